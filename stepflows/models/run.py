"""The rows that runs leave in the database, and what the admin shows of the caches."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeAlias

from django.db import DEFAULT_DB_ALIAS, connections, models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from stepflows.caches import loads
from stepflows.definitions import RegisteredWorkflow, Workflow
from stepflows.errors import DamagedEntry, InvalidUse
from stepflows.results import Err, FailedStep, Result

__all__ = ["CachedStep", "Run", "RunQuerySet"]

AnyWorkflow: TypeAlias = str | Workflow | RegisteredWorkflow[...]

_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.25


class RunQuerySet(models.QuerySet["Run"]):
    """Runs, newest first."""

    def for_workflow(self, workflow: AnyWorkflow) -> RunQuerySet:
        """The runs of a workflow, given as itself or by name."""
        return self.filter(workflow=workflow if isinstance(workflow, str) else workflow.name)


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
    state = models.CharField(_("state"), max_length=20, choices=State, default=State.QUEUED)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    worker = models.CharField(_("worker"), max_length=200, blank=True, default="")
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)
    #: The result as :func:`stepflows.dumps` writes it.
    outcome = models.BinaryField(_("outcome"), null=True, blank=True)
    #: Where the run failed: label, key, and whether the failure was replayed. An outcome does not carry it.
    failed_step = models.JSONField(_("failed step"), null=True, blank=True)
    #: In the order in which they ended; each a dict of label, key, outcome (executed, cached, error, replayed_error),
    #: offset (seconds from the start), duration (seconds) and attempt.
    steps = models.JSONField(_("steps"), default=list, blank=True)

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

        An outcome that cannot be read any more is an ``Err`` with the :exc:`~stepflows.errors.DamagedEntry`.
        """
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
        :exc:`~stepflows.errors.InvalidUse` inside the transaction that is to commit before the run is sent.
        """
        for pause in self._pauses(timeout):
            time.sleep(pause)
        self.refresh_from_db(using=self._state.db)
        return Err(str(self.state)) if self.result is None else self.result

    def _arguments(self) -> Any:
        return loads(bytes(self.arguments)).unwrap()

    def _pauses(self, timeout: float | None) -> Iterator[float]:
        """How long to sleep, again and again, until the run is finished."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE
        self._refresh_state()
        while not self.finished:
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"Run {self.id} of workflow {self.workflow!r} is {self.state} after {timeout} s.")
            yield min(pause, left)
            pause = min(pause * 2, _LONGEST_PAUSE)
            self._refresh_state()

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


class _NoRows(models.Manager["CachedStep"]):
    """There is no table, so whatever walks through all models, such as ``dumpdata``, finds nothing and no error."""

    def get_queryset(self) -> models.QuerySet[CachedStep]:
        return super().get_queryset().none()


class CachedStep(models.Model):
    """An entry of a cache, as the admin lists it. There is no table: the caches are asked."""

    #: Names alias, scope and key.
    id = models.CharField(_("id"), primary_key=True, max_length=600)
    alias = models.CharField(_("cache"), max_length=200)
    scope = models.CharField(_("scope"), max_length=400)
    workflow = models.CharField(_("workflow"), max_length=200)
    version = models.CharField(_("version"), max_length=200, blank=True)
    key = models.CharField(_("key"), max_length=200)
    label = models.CharField(_("label"), max_length=200)
    ok = models.BooleanField(_("succeeded"))
    stored_at = models.DateTimeField(_("stored"), null=True)
    expires_at = models.DateTimeField(_("expires"), null=True)
    #: Seconds.
    duration = models.FloatField(_("duration"), null=True)
    #: Bytes.
    size = models.BigIntegerField(_("size"), null=True)
    run_id = models.CharField(_("run"), max_length=200, blank=True)

    objects = _NoRows()

    class Meta:
        managed = False
        verbose_name = _("cached step")
        verbose_name_plural = _("cached steps")
        default_permissions = ("view", "delete")
        permissions = (("clear_cachedstep", _("Can clear cached steps")),)

    def __str__(self) -> str:
        return f"{self.workflow} {self.key}"
