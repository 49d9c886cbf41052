"""Sending runs to workers: the row in the caller's transaction, the message after its commit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from reprlib import Repr
from typing import Any, Final
from uuid import UUID

from django.db import DatabaseError, router
from django.utils import timezone

from stepflows.caches import dumps
from stepflows.errors import InvalidOption, InvalidUse, NotCacheable, hint
from stepflows.models import Run
from stepflows.models.run import from_now
from stepflows.models.tables import remedy
from stepflows.registry import registry
from stepflows.results import Ok

__all__ = ["ArgumentNotKept", "enqueue"]

#: Seconds, some thirty years: later than that is beyond what clocks and calendars of brokers hold.
_LONGEST: Final = 1_000_000_000
#: Characters.
_SUMMARY: Final = 1000


def enqueue(workflow: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any], /) -> Run:
    """Write the row of a run and, when the surrounding transaction commits, send its id to a worker.

    Options: ``countdown`` (seconds), ``eta``, ``queue``, ``priority`` and ``run_id``. Giving the ``run_id`` of a run
    that exists returns that run; one that is still queued is sent again, which does no harm.

    A broker that cannot be reached is logged, and the run stays queued until a worker sends it. Raises
    :exc:`~stepflows.errors.UnknownWorkflow`, :exc:`~stepflows.errors.InvalidUse` for options that cannot be and for a
    ``run_id`` of another workflow or other arguments, and :exc:`~stepflows.errors.NotCacheable`.
    """
    where = f"workflow {workflow!r}"
    given = _checked(where, options)
    run_id = given.pop("run_id", None)
    bound = inspect.signature(registry.get(workflow).body).bind(None, None, *args, **kwargs)
    named = dict([*bound.arguments.items()][2:])
    run = _row(given)
    run.workflow, run.arguments, run.summary = workflow, _encoded(where, named, args, kwargs), _summary(named)
    try:
        run = _written(where, run_id, run)
    except DatabaseError as error:
        if advice := remedy(error):
            error.add_note(f"The run of {where} was not written.{advice}")
        raise
    if run.state == Run.State.QUEUED:
        run.publish_on_commit(**given)
    return run


def _row(given: dict[str, Any]) -> Run:
    """The row to be written. Where and how urgently is in it, for when the message has to be sent again."""
    start = given.get("countdown", 0)
    if "eta" in given:
        start = max(0, (given["eta"] - datetime.now(UTC)).total_seconds())
    where = {"queue": given.pop("queue", ""), "priority": given.pop("priority", None)}
    return Run(due_at=from_now(start + Run.grace()), **where)


def _written(where: str, run_id: UUID | None, run: Run) -> Run:
    """The row in the database: this one, or the one that has its id already."""
    runs = Run.objects.using(router.db_for_write(Run))
    if run_id is None:
        run.save(force_insert=True, using=runs.db)
        kept, created = run, True
    else:
        run.pk = run_id
        fields = {field.attname: getattr(run, field.attname) for field in Run._meta.concrete_fields}
        kept, created = runs.get_or_create(pk=run_id, defaults=fields)
    if created:
        # What the database has made of the expression is read when it is asked for.
        del kept.due_at
    elif not _same(kept, run):
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


def _encoded(where: str, named: Mapping[str, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    try:
        return dumps(Ok((args, dict(kwargs))))
    except NotCacheable as error:
        for name, value in named.items():
            try:
                dumps(Ok(value))
            except NotCacheable as refused:
                raise ArgumentNotKept.of_argument(refused, f"{where}: the argument {name!r}") from None
        raise ArgumentNotKept.of_argument(error, f"{where}: the arguments together") from None


def _summary(named: Mapping[str, Any]) -> str:
    """The arguments in a line, long ones cut."""
    short = Repr()
    short.maxstring = short.maxother = short.maxlong = 100
    return ", ".join(f"{name}={short.repr(value)}" for name, value in named.items())[:_SUMMARY]


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
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST


def _is_uuid(value: Any) -> bool:
    try:
        UUID(str(value))
    except ValueError:
        return False
    return isinstance(value, UUID | str)


_OPTIONS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "countdown": ("a number of seconds from 0 to a billion", _is_seconds),
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
