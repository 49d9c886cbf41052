"""The life of a run on a worker: claimed, performed, and finished or given back."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any, Final, TypeVar
from uuid import UUID

from django.db import InterfaceError, OperationalError, connections, router
from django.utils import timezone
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from stepflows import conf
from stepflows.definitions import RegisteredWorkflow
from stepflows.engine.calls import is_async
from stepflows.engine.cancellation import Cancellation
from stepflows.engine.context import logger
from stepflows.engine.policy import is_interrupt
from stepflows.errors import DamagedEntry, InvalidUse, RunLost, UnknownWorkflow
from stepflows.heartbeat import heartbeat
from stepflows.models import Run
from stepflows.models.run import from_now
from stepflows.models.statements import read
from stepflows.outcomes import kept
from stepflows.registry import registry
from stepflows.results import Err, Result
from stepflows.steplog import StepLog

__all__ = ["perform"]

T = TypeVar("T")

#: How the database tells that it cannot be reached, or is busy.
_AWAY: Final = (OperationalError, InterfaceError)
#: Seconds that a result waits for the database; after that the run is an orphan, whose steps are in the cache.
_PATIENCE: Final = 60
#: Seconds between two writes of what the steps have come to, unless writing takes more than a twentieth of that.
_NOTES: Final = 0.5


def perform(run_id: UUID | str, worker: str = "") -> bool:
    """Run here what the row says, if nobody else has; whether it did.

    Whatever comes of it is written into the row. What ends this process or its task, such as ``SystemExit`` or a
    worker's time limit, puts the run back into the queue and goes on; after ``MAX_ATTEMPTS`` of them it has failed.
    Steps that were completed are not run again.
    """
    run = _claim(run_id, worker or socket.gethostname())
    if run is None:
        return False
    attempt = _Attempt(run)
    # A transaction that is open here is a test's, and what another connection writes would wait for its end.
    alone = connections[router.db_for_write(Run)].in_atomic_block
    with nullcontext() if alone else heartbeat.of(attempt):
        attempt.perform()
    return True


class _Attempt:
    """One worker's go at a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._log = StepLog()
        self._cancellation = Cancellation()
        self._written = 0
        self._first = self._next_notes = time.monotonic() + _NOTES
        self._next_beat = time.monotonic() + conf.settings().HEARTBEAT
        self._complained = False
        self._over = False

    def __repr__(self) -> str:
        return f"<attempt {self._run.attempts} at run {self._run.pk}>"

    def perform(self) -> None:
        """Execute the run, and write down what comes of it."""
        try:
            if not self._put_off():
                self._finish(_uninterrupted(self._execute()))
        except asyncio.CancelledError:
            # Called off, or taken over by somebody who thought that this worker was gone.
            self._note_the_end()
        except BaseException as error:
            if isinstance(error, Exception) and not is_interrupt(error):
                raise
            self._give_back(error)
            raise
        finally:
            self._over = True

    # In the thread of the heartbeat.

    def beat(self) -> None:
        """Say that the run goes on, note its steps, and see whether it is still wanted."""
        if self._is_silent():
            return
        try:
            if self._is_wanted():
                self._complained = False
                return
        except _AWAY as error:
            connections.close_all()
            if not self._complained:
                logger.warning("%r: the database cannot be told that it goes on: %s", self, error)
            self._complained = True
            return
        if not (self._over or self._cancellation.requested):
            logger.warning("%r was called off or taken over; it ends before its next step", self)
        self._cancellation.request()

    def _is_silent(self) -> bool:
        """Whether there is nothing to say yet, or any more."""
        return self._over or time.monotonic() < self._first

    def _is_wanted(self) -> bool:
        now, length = time.monotonic(), self._log.length
        if length > self._written and now >= self._next_notes:
            wanted = self._run.renew(steps=self._log.steps, **self._log.counts())
            self._written = length
            self._next_notes = now + max(_NOTES, 20 * (time.monotonic() - now))
        elif now >= self._next_beat:
            wanted = self._run.renew()
        else:
            return self._run.is_mine()
        self._next_beat = now + conf.settings().HEARTBEAT
        return wanted

    # In the thread of the run.

    def _put_off(self) -> bool:
        """Leave a run whose workflow is not known here for later: while a release is rolled out, others know it."""
        run = self._run
        try:
            registry.get(run.workflow)
        except UnknownWorkflow as error:
            if run.attempts >= conf.settings().MAX_ATTEMPTS:
                return False
            if run.requeue(repr(error), attempts=run.attempts, send=False):
                logger.warning("Run %s is put off, for a worker that knows its workflow: %s", run.pk, error)
            return True
        return False

    def _execute(self) -> Result[Any]:
        """The result of the run. A wrong use, which ``run`` would raise, is one too: there is nobody to raise it to."""
        run = self._run
        try:
            workflow = registry.get(run.workflow)
            _check_threads(workflow)
            args, kwargs = _arguments(run)
            return workflow.execute(
                args,
                kwargs,
                run_id=str(run.pk),
                listeners=[self._log],
                prefetch=run.known_keys,
                cancellation=self._cancellation,
            )
        except BaseException as error:
            called_off = isinstance(error, asyncio.CancelledError) and self._cancellation.requested
            if called_off or isinstance(error, KeyboardInterrupt | SystemExit) or is_interrupt(error):
                raise
            logger.exception("Run %s of workflow %r failed", run.pk, run.workflow)
            return Err(error, error.__cause__)

    def _finish(self, result: Result[Any]) -> None:
        """Write it all down in one statement, unless the run is not this attempt's any more."""
        run = self._run
        result, outcome = kept(result, run.pk, run.workflow)
        fields: dict[str, Any] = {"state": Run.State.SUCCEEDED if result.ok else Run.State.FAILED, "outcome": outcome}
        fields |= {"failed_step": result.step if isinstance(result, Err) else None}
        fields |= {"finished_at": timezone.now(), "due_at": None, "steps": self._log.steps, **self._log.counts()}
        if not _persistently(lambda: run.hand_over(**fields)):
            logger.warning(
                "Run %s of workflow %r was called off, taken over or deleted meanwhile", run.pk, run.workflow
            )

    def _give_back(self, error: BaseException) -> None:
        """Queue the run again and send it again, which not every version of Celery does by itself after an exit."""
        run = self._run
        try:
            if run.state != Run.State.RUNNING:
                # It was struck when it had just finished.
                return
            # It may have been struck in the middle of a statement.
            _drop_connection()
            if run.attempts < conf.settings().MAX_ATTEMPTS:
                run.steps = self._log.steps
                run.requeue(repr(error), attempts=run.attempts)
            else:
                self._finish(Err(RunLost(_given_up(run, "ended its process or its task")), error))
        except Exception:
            # The exit goes first. The row stays as it is, until somebody notices that nobody is heard of.
            logger.exception("Run %s of workflow %r could not be given back", run.pk, run.workflow)

    def _note_the_end(self) -> None:
        """What the steps came to after the run was called off, for whoever looks at the row."""
        run = self._run
        rows = Run.objects.using(router.db_for_write(Run)).filter(pk=run.pk, state=Run.State.CANCELLED)
        rows.filter(epoch=run.epoch + 1).update(steps=self._log.steps, **self._log.counts())


def _claim(run_id: UUID | str, worker: str) -> Run | None:
    """Take the run, by a statement that only one of many can win."""
    run = read(Run, router.db_for_write(Run), {"id": run_id, "state": Run.State.QUEUED})
    if run and run.hand_over(
        state=Run.State.RUNNING,
        attempts=run.attempts + 1,
        worker=worker[:200],
        started_at=timezone.now(),
        due_at=from_now(run.life()),
    ):
        return run
    logger.info("Run %s is not queued (any more); this message has nothing to do", run_id)
    return None


def _check_threads(workflow: RegisteredWorkflow[...]) -> None:
    """Greenlets share a thread, and what runs an event loop in one of them keeps Django's database from all."""
    gevent: Any = sys.modules.get("gevent.monkey")
    if is_async(workflow.body) and gevent and gevent.is_module_patched("threading"):
        raise InvalidUse(
            f"Workflow {workflow.name!r} has an async body, which cannot run on a worker with the gevent pool. Write "
            "it as a sync one, or use the pool prefork or threads for its queue."
        )


def _arguments(run: Run) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        return run.args, run.kwargs
    except DamagedEntry as error:
        raise DamagedEntry(f"The arguments in the row of run {run.pk} of workflow {run.workflow!r}: {error}") from error


def _uninterrupted(result: Result[Any]) -> Result[Any]:
    """The result, unless it is a time limit that has struck in the middle: that says nothing about the workflow."""
    if isinstance(result, Err) and isinstance(result.error, BaseException) and is_interrupt(result.error):
        raise result.error
    return result


def _given_up(run: Run, what: str) -> str:
    return f"Workflow {run.workflow!r} {what} in each of {run.attempts} attempts; it is not tried again."


def _persistently(write: Callable[[], T]) -> T:
    """Write although the database is away for a while."""
    attempts = Retrying(
        retry=retry_if_exception_type(_AWAY),
        wait=wait_exponential(0.05, max=2),
        stop=stop_after_delay(_PATIENCE),
        before_sleep=_complain,
        reraise=True,
    )
    return attempts(write)


def _complain(state: RetryCallState) -> None:
    if state.attempt_number == 1:
        logger.warning(
            "A run cannot be finished while the database is away: %s", state.outcome and state.outcome.exception()
        )
    # It does not mend by itself.
    _drop_connection()


def _drop_connection() -> None:
    """Have the next statement make a new one, unless a transaction is open on it."""
    connection = connections[router.db_for_write(Run)]
    if not connection.in_atomic_block:
        # What is gone already, MySQL's client says, cannot be closed; Django forgets it all the same.
        with suppress(*_AWAY):
            connection.close()
