"""The rows that runs leave in the database."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, Final, TypeAlias

from django.db import DEFAULT_DB_ALIAS, connections, models, router, transaction
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from stepflows import conf
from stepflows.caches import loads
from stepflows.definitions import RegisteredWorkflow, Workflow
from stepflows.errors import DamagedEntry, InvalidUse
from stepflows.messages import intend, publish
from stepflows.models.statements import update
from stepflows.registry import registry
from stepflows.results import Err, FailedStep, Result

__all__ = ["Run", "RunQuerySet"]

AnyWorkflow: TypeAlias = str | Workflow | RegisteredWorkflow[...]

_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.25
#: Heartbeats after which a run that is not heard of is taken for lost.
_LIFE: Final = 2.5
#: Heartbeats until a message that nobody has taken is sent again.
_GRACE: Final = 3.0


class RunQuerySet(models.QuerySet["Run"]):
    """Runs, newest first."""

    def for_workflow(self, workflow: AnyWorkflow) -> RunQuerySet:
        """The runs of a workflow, given as itself or by name."""
        return self.filter(workflow=workflow if isinstance(workflow, str) else workflow.name)

    def due(self) -> RunQuerySet:
        """Those that should have been heard of by now, the longest due first. The database's clock decides."""
        return self.filter(due_at__lt=Now()).order_by("due_at")


class Run(models.Model):
    """One run of a registered workflow. This row is the truth about it, whatever becomes of the broker's message."""

    class State(models.TextChoices):
        QUEUED = "queued", _("queued")
        RUNNING = "running", _("running")
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    workflow = models.CharField(_("workflow"), max_length=200)
    #: ``(args, kwargs)`` as :func:`stepflows.dumps` writes them.
    arguments = models.BinaryField(_("arguments"))
    #: The same for people to read, and to look for.
    summary = models.TextField(_("summary"), blank=True, default="")
    state = models.CharField(_("state"), max_length=20, choices=State, default=State.QUEUED)
    #: Counts each change of hands. Whoever has an older one has lost the run, and nothing it writes counts.
    epoch = models.PositiveIntegerField(_("epoch"), default=0, editable=False)
    #: Since somebody has asked for it: by delay, resume or retry.
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    worker = models.CharField(_("worker"), max_length=200, blank=True, default="")
    queue = models.CharField(_("queue"), max_length=200, blank=True, default="")
    priority = models.PositiveSmallIntegerField(_("priority"), null=True, blank=True)
    #: When somebody has to look after it unless it is heard of before, by the clock of the database, which all workers
    #: share: queued for too long, or running without a heartbeat. Nobody has to once it is finished.
    due_at = models.DateTimeField(_("due"), null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)
    #: The result as :func:`stepflows.dumps` writes it.
    outcome = models.BinaryField(_("outcome"), null=True, blank=True)
    #: Where the run failed: label, key, and whether the failure was replayed. An outcome does not carry it.
    failed_step = models.JSONField(_("failed step"), null=True, blank=True)
    #: How many steps the latest attempt has executed, and how many it had from the cache.
    executed = models.PositiveIntegerField(_("executed"), default=0)
    cached = models.PositiveIntegerField(_("cached"), default=0)
    #: Those of the latest attempt in the order in which they ended, then those that are under way; each a dict of
    #: label, key, outcome (executed, cached, waited, error, replayed_error, interrupted, running), offset (seconds from
    #: the start), duration (seconds) and attempt.
    steps = models.JSONField(_("steps"), default=list, blank=True)
    #: Earlier attempts, each a dict of worker, started_at, ended_at, reason (why it ended) and steps.
    history = models.JSONField(_("history"), default=list, blank=True)

    objects = RunQuerySet.as_manager()

    class Meta:
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        ordering = ("-created_at",)
        get_latest_by = "created_at"
        default_permissions = ("view", "change")
        indexes = (
            models.Index(fields=["-created_at"], name="stepflows_run_created"),
            models.Index(fields=["state", "-created_at"], name="stepflows_run_state"),
            models.Index(fields=["workflow", "-created_at"], name="stepflows_run_workflow"),
            models.Index(fields=["due_at"], name="stepflows_run_due"),
        )

    #: Set between a ``delay`` inside a transaction and its commit.
    awaits_commit = False

    def __str__(self) -> str:
        return f"{self.workflow} {self.id}"

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments. Raises :exc:`~stepflows.errors.DamagedEntry` where the row cannot be read."""
        args: tuple[Any, ...] = self._arguments()[0]
        return args

    @property
    def kwargs(self) -> dict[str, Any]:
        """The named arguments. Raises :exc:`~stepflows.errors.DamagedEntry` where the row cannot be read."""
        kwargs: dict[str, Any] = self._arguments()[1]
        return kwargs

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state in (self.State.SUCCEEDED, self.State.FAILED, self.State.CANCELLED)

    @property
    def result(self) -> Result[Any] | None:
        """What the run came to, as this object was last read; ``None`` until it is finished.

        That of a cancelled run is ``Err("cancelled")``. An outcome that cannot be read any more is an ``Err`` with the
        :exc:`~stepflows.errors.DamagedEntry`.
        """
        if self.state == self.State.CANCELLED:
            return Err(str(self.state))
        if self.outcome is None:
            return None
        try:
            result = loads(bytes(self.outcome))
        except DamagedEntry as error:
            return Err(error)
        if isinstance(result, Err) and self.failed_step:
            return replace(result, step=FailedStep(*self.failed_step))
        return result

    @property
    def duration(self) -> float | None:
        """Seconds from the start of the last attempt to the end; ``None`` until it is finished."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()

    def wait(self, timeout: float | None = None) -> Result[Any]:
        """Wait until the run is finished, at most ``timeout`` seconds, and return its result.

        Reads the row every few milliseconds at first, four times a second later. Raises :exc:`TimeoutError`, and
        :exc:`~stepflows.errors.InvalidUse` where it would never end: inside the transaction that is to commit before
        the run is sent, and without a timeout inside any transaction of SQLite, which shows the row as it was.
        """
        for pause in self._pauses(timeout):
            time.sleep(pause)
        self.refresh_from_db(using=self._state.db)
        return Err(str(self.state)) if self.result is None else self.result

    # What people do with it.

    def cancel(self) -> bool:
        """Call the run off, and say whether it was not finished yet.

        One that is running ends before its next step, within about a second: a step that is under way is not torn
        apart, and what is done stays in the cache.
        """
        cancelled: dict[str, Any] = {"state": self.State.CANCELLED, "due_at": None, "finished_at": timezone.now()}
        while self._read().state in (self.State.QUEUED, self.State.RUNNING):
            if self.hand_over(**cancelled):
                return True
        return False

    def resume(self) -> bool:
        """Have a worker go on with a run that failed or was cancelled, and say whether it was one.

        Results and errors that are cached stand, so a failure that was stored is replayed; see :meth:`retry`. A run
        that is still queued is sent again, now.
        """
        while self._read().state in (self.State.FAILED, self.State.CANCELLED, self.State.QUEUED):
            if self.requeue(self.state, attempts=0):
                return True
        return False

    def retry(self) -> bool:
        """Like :meth:`resume`, once the errors that this run has met are removed from the cache: those steps run again.

        Raises :exc:`~stepflows.errors.CacheUnavailable`, and :exc:`~stepflows.errors.UnknownWorkflow` when its workflow
        is not registered here.
        """
        if self._read().state not in (self.State.FAILED, self.State.CANCELLED):
            return False
        failed = [step["key"] for step in self.steps if step["key"] and step["outcome"] in ("error", "replayed_error")]
        registry.get(self.workflow).forget(failed, errors_only=True)
        return self.resume()

    def run_again(self, keys: Sequence[str]) -> bool:
        """Have a worker go through a finished run once more, and say whether it was finished.

        What is cached under these keys is removed first, so those steps run again; whatever else is cached stands.
        Raises :exc:`~stepflows.errors.CacheUnavailable`, and :exc:`~stepflows.errors.UnknownWorkflow` when its workflow
        is not registered here.
        """
        if not self._read().finished:
            return False
        registry.get(self.workflow).forget(keys)
        while self._read().finished:
            if self.requeue(self.state, attempts=0):
                return True
        return False

    # What workers do with it.

    @property
    def known_keys(self) -> Sequence[str]:
        """The keys of the steps that earlier attempts came to."""
        return [*dict.fromkeys(step["key"] for step in _steps_of(self.history) if step["key"])]

    def hand_over(self, *, overdue: bool = False, **fields: Any) -> bool:
        """Change the row, unless somebody else has since this object read it; whether it was done.

        An ``overdue`` one is left alone as well if it has been heard of meanwhile.
        """
        fields["epoch"] = self.epoch + 1
        if overdue:
            done = self._rows().filter(state=self.state, epoch=self.epoch).due().update(**fields)
        else:
            done = update(Run, self._database, {"id": self.pk, "state": self.state, "epoch": self.epoch}, fields)
        if done:
            self._set(**fields)
        return done > 0

    def renew(self, **fields: Any) -> bool:
        """Say that it is still being run, and what has come of it so far; whether it is still this attempt's."""
        return self._attempted().update(**fields, due_at=from_now(self.life())) > 0

    def is_mine(self) -> bool:
        """Whether it is running, and nobody has taken it over or called it off since this object claimed it."""
        return self._attempted().exists()

    def requeue(self, reason: str, *, attempts: int, overdue: bool = False, send: bool = True) -> bool:
        """Send it to a worker again after this attempt; whether it was still this object's to send.

        An ``overdue`` one is left alone as well if it has been heard of meanwhile. One that is not to be sent now is
        sent by whoever looks for runs that nobody has taken.
        """
        fields: dict[str, Any] = dict.fromkeys(("started_at", "finished_at", "outcome", "failed_step"))
        history = self.history if self.started_at is None else [*self.history, self._attempt(reason)]
        fields |= {"state": self.State.QUEUED, "attempts": attempts, "worker": "", "history": history, "steps": []}
        fields |= {"executed": 0, "cached": 0, "due_at": from_now(self.grace())}
        if not self.hand_over(overdue=overdue, **fields):
            return False
        if send:
            self.publish_on_commit()
        return True

    def resend(self, pause: float) -> bool | None:
        """Send the message of a queued run once more, and not again for ``pause`` seconds.

        Whether the broker took it; ``None`` if the run was not this object's to send any more.
        """
        if not self.hand_over(due_at=from_now(pause)):
            return None
        return self.publish()

    def publish_on_commit(self, **when: Any) -> None:
        """Send the message as soon as the row can be seen; Celery is told the ``eta`` or ``countdown`` too."""
        self.awaits_commit = connections[self._database].in_atomic_block
        intend(self)
        transaction.on_commit(partial(self.publish, **when), using=self._database)

    def publish(self, **when: Any) -> bool:
        """Send the message now; whether the broker has taken it."""
        self.awaits_commit = False
        options = {"queue": self.queue or None, "priority": self.priority, **when}
        given = {name: value for name, value in options.items() if value is not None}
        return publish(self.pk, self.workflow, **given)

    @staticmethod
    def life() -> float:
        """Seconds after which a running one that is not heard of is taken for lost."""
        return _LIFE * conf.settings().HEARTBEAT

    @staticmethod
    def grace() -> float:
        """Seconds after which one that nobody has taken is sent again."""
        return _GRACE * conf.settings().HEARTBEAT

    @property
    def _database(self) -> str:
        # Not where it was read: that may be a replica.
        return router.db_for_write(Run, instance=self)

    def _rows(self) -> RunQuerySet:
        return Run.objects.using(self._database).filter(pk=self.pk)

    def _attempted(self) -> RunQuerySet:
        # Said by the thread of the heartbeat, while the run's own may just be changing this object.
        return self._rows().filter(state=self.State.RUNNING, epoch=self.epoch)

    def _read(self) -> Run:
        self.refresh_from_db(using=self._database)
        return self

    def _set(self, **fields: Any) -> None:
        """The same on this object. What the database has worked out is read when it is asked for."""
        for name, value in fields.items():
            if hasattr(value, "resolve_expression"):
                self.__dict__.pop(name, None)
            else:
                setattr(self, name, value)

    def _attempt(self, reason: str) -> dict[str, Any]:
        """The latest attempt as history keeps it; what an earlier one had already is left out."""
        known = set(self.known_keys)
        steps = [step for step in self.steps if step["outcome"] != "cached" or step["key"] not in known]
        return {
            "worker": self.worker,
            "started_at": self.started_at and self.started_at.isoformat(),
            "ended_at": timezone.now().isoformat(),
            "reason": reason,
            # What was under way has not ended.
            "steps": [step | {"outcome": "interrupted"} if step["outcome"] == "running" else step for step in steps],
        }

    def _arguments(self) -> Any:
        return loads(bytes(self.arguments)).unwrap()

    def _pauses(self, timeout: float | None) -> Iterator[float]:
        """How long to sleep, again and again, until the run is finished."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE
        self._refresh_state()
        if deadline is None and not self.finished:
            self._refuse_a_snapshot()
        while not self.finished:
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(self._unfinished(timeout))
            yield min(pause, left)
            pause = min(pause * 2, _LONGEST_PAUSE)
            self._refresh_state()

    def _refuse_a_snapshot(self) -> None:
        connection = connections[self._state.db or DEFAULT_DB_ALIAS]
        if connection.vendor == "sqlite" and connection.in_atomic_block:
            raise InvalidUse(
                f"Run {self.id} of workflow {self.workflow!r} is {self.state}, and waiting for it inside a transaction "
                "of SQLite would never end, because its end cannot be seen there. Wait after the atomic block (in a "
                "TestCase, perform it with stepflows.testing.runs_in_place), or give a timeout."
            )

    def _unfinished(self, timeout: float | None) -> str:
        told = f"Run {self.id} of workflow {self.workflow!r} is {self.state} after {timeout} s."
        if self.state == self.State.QUEUED:
            told += " No worker has taken it: is one running that reads this broker and queue, and is it free?"
        return told

    def _refresh_state(self) -> None:
        if self.awaits_commit and connections[self._state.db or DEFAULT_DB_ALIAS].in_atomic_block:
            raise InvalidUse(
                f"Run {self.id} of workflow {self.workflow!r} is sent when the transaction commits that is open here, "
                "so waiting for it in that transaction would never end. Wait after the atomic block."
            )
        try:
            self.refresh_from_db(using=self._state.db, fields=["state"])
        except Run.DoesNotExist:
            raise Run.DoesNotExist(
                f"Run {self.id} of workflow {self.workflow!r} has no row (any more): it was deleted, or the "
                "transaction that made it was rolled back, and then nothing was sent."
            ) from None


@lru_cache
def from_now(seconds: float) -> Any:
    """That many seconds from now on the clock of the database."""
    return Now() + timedelta(seconds=seconds)


def _steps_of(history: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (step for attempt in history for step in attempt["steps"])
