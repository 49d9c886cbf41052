"""The life of a run on a worker: claimed, performed and finished."""

from __future__ import annotations

import socket
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import router
from django.db.models import F
from django.utils import timezone

from stepflows import conf
from stepflows.caches import dumps
from stepflows.dispatch import publish
from stepflows.engine.context import logger
from stepflows.engine.events import Event
from stepflows.errors import DamagedEntry, NotCacheable, StepflowsError
from stepflows.models import Run, RunQuerySet
from stepflows.registry import registry
from stepflows.results import Err, Result

__all__ = ["StepLog", "perform"]


def perform(run_id: UUID | str, worker: str = "") -> bool:
    """Run here what the row says, if nobody else has; whether it did.

    Whatever comes of it is written into the row. An exit of this process (``SystemExit``, ``KeyboardInterrupt``) puts
    the run back into the queue and goes on; after ``MAX_ATTEMPTS`` of them it has failed. Steps that were completed are
    not run again.
    """
    run = _claim(run_id, worker or socket.gethostname())
    if run is None:
        return False
    log = StepLog()
    try:
        result = _execute(run, log)
    except (KeyboardInterrupt, SystemExit) as error:
        _give_back(run, log, error)
        raise
    _finish(run, log, result)
    return True


class StepLog:
    """Listens to a run and notes what became of each step, in memory. Steps in threads may call it at the same time."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self._start: datetime | None = None

    def __call__(self, event: Event) -> None:
        if event.type == "workflow_start":
            self._start = event.time
        outcome = _outcome(event)
        if outcome is not None:
            # What the stored execution of a hit took, it did not take here.
            seconds = 0.0 if event.type == "step_cache_hit" else event.duration or 0.0
            elapsed = (event.time - (self._start or event.time)).total_seconds()
            self.steps.append(
                {
                    "label": event.label,
                    "key": event.key,
                    "outcome": outcome,
                    "offset": round(max(0.0, elapsed - seconds), 6),
                    "duration": round(seconds, 6),
                    "attempt": event.attempt,
                }
            )


def _outcome(event: Event) -> str | None:
    if event.type == "step_cache_hit":
        return "cached" if event.ok else "replayed_error"
    return {"step_success": "executed", "step_error": "error"}.get(event.type)


def _rows(run_id: Any) -> RunQuerySet:
    return Run.objects.using(router.db_for_write(Run)).filter(pk=run_id)


def _claim(run_id: UUID | str, worker: str) -> Run | None:
    """Take the run, in one statement that only one of many can win."""
    claimed = (
        _rows(run_id)
        .filter(state=Run.State.QUEUED)
        .update(
            state=Run.State.RUNNING,
            attempts=F("attempts") + 1,
            worker=worker[:200],
            started_at=timezone.now(),
        )
    )
    if not claimed:
        logger.info("Run %s is not queued (any more); this message has nothing to do", run_id)
        return None
    return _rows(run_id).get()


def _execute(run: Run, log: StepLog) -> Result[Any]:
    """The result of the run. A wrong use, which ``run`` would raise, is one as well: there is nobody to raise it to."""
    try:
        workflow = registry.get(run.workflow)
        args, kwargs = _arguments(run)
        return workflow.execute(args, kwargs, run_id=str(run.pk), listeners=[log])
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        logger.exception("Run %s of workflow %r failed", run.pk, run.workflow)
        return Err(error, error.__cause__)


def _arguments(run: Run) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        return run.args, run.kwargs
    except DamagedEntry as error:
        raise DamagedEntry(f"The arguments in the row of run {run.pk} of workflow {run.workflow!r}: {error}") from error


def _finish(run: Run, log: StepLog, result: Result[Any]) -> None:
    """Write it all down in one statement, unless the run is not this attempt's any more."""
    result, outcome = _kept(run, result)
    failed_step = result.step if isinstance(result, Err) else None
    state = Run.State.SUCCEEDED if result.ok else Run.State.FAILED
    _leave(run, state=state, outcome=outcome, failed_step=failed_step, steps=log.steps, finished_at=timezone.now())


def _kept(run: Run, result: Result[Any]) -> tuple[Result[Any], bytes]:
    try:
        return result, dumps(result)
    except NotCacheable as error:
        refused = error.of(f"workflow {run.workflow!r}")
        logger.error("Run %s: its result could not be kept: %s It was: %r", run.pk, refused, result)
        failure = Err(refused, result.error if isinstance(result, Err) else None)
        return failure, dumps(failure)


def _give_back(run: Run, log: StepLog, error: BaseException) -> None:
    """Queue the run again and send it again: not every version of Celery delivers the message anew after an exit.

    Where it does as well, the second message finds nothing to do.
    """
    most = conf.settings().MAX_ATTEMPTS
    try:
        if run.attempts < most:
            _leave(run, state=Run.State.QUEUED, started_at=None, worker="")
            publish(run, {})
            return
        problem = (
            f"Workflow {run.workflow!r} ended its process in each of {run.attempts} attempts; it is not tried again."
        )
        _finish(run, log, Err(StepflowsError(problem), error))
    except Exception:
        # The exit goes first; the row stays as it is.
        logger.exception("Run %s of workflow %r could not be given back", run.pk, run.workflow)


def _leave(run: Run, **fields: Any) -> None:
    rows = _rows(run.pk).filter(state=Run.State.RUNNING, attempts=run.attempts)
    if not rows.update(**fields):
        logger.warning("Run %s of workflow %r was taken over or deleted while it ran here", run.pk, run.workflow)
