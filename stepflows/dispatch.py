"""Sending runs to workers: the row in the caller's transaction, the message after its commit."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from celery import current_app
from django.db import connections, router, transaction
from django.utils import timezone

from stepflows.caches import dumps
from stepflows.engine.context import logger
from stepflows.errors import InvalidOption, InvalidUse, NotCacheable, hint
from stepflows.models import Run
from stepflows.registry import registry
from stepflows.results import Ok

__all__ = ["TASK", "ArgumentNotKept", "enqueue", "publish"]

#: The name of the Celery task.
TASK = "stepflows.run"

# One more try, at once: a connection of the pool may have gone stale. Celery's own patience is for a broker that comes
# back while the caller waits; here the row waits instead.
_IMPATIENT = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}


def enqueue(workflow: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any], /) -> Run:
    """Write the row of a run and, when the surrounding transaction commits, send its id to a worker.

    Options: ``countdown`` (seconds), ``eta``, ``queue``, ``priority`` and ``run_id``. Giving the ``run_id`` of a run
    that exists returns that run; one that is still queued is sent again, which does no harm.

    A broker that cannot be reached is logged, and the run stays queued. Raises
    :exc:`~stepflows.errors.UnknownWorkflow`, :exc:`~stepflows.errors.InvalidUse` for options that cannot be and for a
    ``run_id`` of another workflow or other arguments, and :exc:`~stepflows.errors.NotCacheable`.
    """
    where = f"workflow {workflow!r}"
    given = _checked(where, options)
    arguments = _encoded(where, registry.get(workflow).body, args, kwargs)
    run = _written(where, given.pop("run_id", None), Run(workflow=workflow, arguments=arguments))
    if run.state == Run.State.QUEUED:
        database = router.db_for_write(Run)
        run.awaits_commit = connections[database].in_atomic_block
        transaction.on_commit(partial(publish, run, given), using=database)
    return run


def _written(where: str, run_id: UUID | None, run: Run) -> Run:
    """The row in the database: this one, or the one that has its id already."""
    runs = Run.objects.using(router.db_for_write(Run))
    if run_id is None:
        run.save(force_insert=True, using=runs.db)
        return run
    fields = {"workflow": run.workflow, "arguments": run.arguments}
    kept, created = runs.get_or_create(id=run_id, defaults=fields)
    if not created and not _same(kept, run):
        raise InvalidUse(
            f"{where}: the run_id {run_id} belongs to a run of workflow {kept.workflow!r} with other arguments. Give "
            "each run an id of its own; the same id again means the same run."
        )
    return kept


def _same(kept: Run, run: Run) -> bool:
    if kept.workflow != run.workflow:
        return False
    # The bytes of equal sets may differ; what is not equal to itself has equal bytes.
    return bytes(kept.arguments) == bytes(run.arguments) or (kept.args, kept.kwargs) == (run.args, run.kwargs)


def publish(run: Run, options: Mapping[str, Any]) -> None:
    """Send the id. The row is committed by now, so a broker that is down is no failure of whoever asked."""
    run.awaits_commit = False
    try:
        current_app.tasks[TASK].apply_async((str(run.pk),), retry=True, retry_policy=_IMPATIENT, **options)
    except Exception:
        logger.exception(
            "Run %s of workflow %r stays queued: Celery app %r could not send it. Is its broker up, and is the app "
            "imported in this process?",
            run.pk,
            run.workflow,
            current_app.main,
        )


def _encoded(where: str, body: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    try:
        return dumps(Ok((args, dict(kwargs))))
    except NotCacheable as error:
        parameters = inspect.signature(body).bind(None, None, *args, **kwargs).arguments
        for name, value in list(parameters.items())[2:]:
            try:
                dumps(Ok(value))
            except NotCacheable as refused:
                raise ArgumentNotKept.of_argument(refused, f"{where}: the argument {name!r}") from None
        raise ArgumentNotKept.of_argument(error, f"{where}: the arguments together") from None


class ArgumentNotKept(NotCacheable):
    """An argument of a run cannot be kept until a worker reads it."""

    @classmethod
    def of_argument(cls, refused: NotCacheable, where: str) -> ArgumentNotKept:
        # The codec's advice is for what steps return.
        remedy = refused.remedy.replace("Return ", "Pass ").replace("return ", "pass ")
        return cls(refused.reason, refused.path, remedy, where)

    def __str__(self) -> str:
        place = f" at value{self.path}" if self.path else ""
        return f"{self.where} cannot be sent to a worker: {self.reason}{place}. {self.remedy}".rstrip()


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_uuid(value: Any) -> bool:
    try:
        UUID(str(value))
    except ValueError:
        return False
    return isinstance(value, UUID | str)


_OPTIONS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "countdown": ("a number of seconds that is not negative", _is_seconds),
    "eta": ("a datetime", lambda value: isinstance(value, datetime)),
    "queue": ("the name of a queue", lambda value: isinstance(value, str) and value != ""),
    "priority": ("a whole number from 0 to 255", lambda value: type(value) is int and 0 <= value <= 255),
    "run_id": ("a UUID", _is_uuid),
}


def _checked(where: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are given, each right by itself: after the commit it would be too late to complain."""
    for name, value in options.items():
        if name not in _OPTIONS:
            raise InvalidUse(f"{where}: unknown option {name!r}. {hint(name, _OPTIONS)}")
        words, accepts = _OPTIONS[name]
        if value is not None and not accepts(value):
            raise InvalidOption(f"{where}: {name} is {value!r}; give {words}.")
    given = {name: value for name, value in options.items() if value is not None}
    if "countdown" in given and "eta" in given:
        raise InvalidUse(f"{where}: both countdown and eta are given; give one of them.")
    if "run_id" in given:
        given["run_id"] = UUID(str(given["run_id"]))
    if "eta" in given and timezone.is_naive(given["eta"]):
        given["eta"] = timezone.make_aware(given["eta"])
    return given
