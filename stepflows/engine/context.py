"""What one run of a workflow knows about itself."""

from __future__ import annotations

import logging
import math
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from stepflows.engine.events import Event
from stepflows.engine.keys import token
from stepflows.engine.operations import Emit, Outcome, Raised, Returned
from stepflows.engine.policy import Policy, is_failure
from stepflows.errors import StepFailed, StepKeyConflict
from stepflows.results import Err, FailedStep, Ok, Result

__all__ = ["RunContext", "judge", "logger"]

logger = logging.getLogger("stepflows")


class RunContext:
    """Shared by all steps of one run, and by the threads and tasks they run in."""

    def __init__(
        self,
        workflow: str,
        *,
        policy: Policy | None = None,
        caching: bool = True,
        listening: bool = False,
        namespace: str | None = None,
        run_id: str | None = None,
    ) -> None:
        self.workflow = workflow
        self.policy = policy or Policy()
        self.caching = caching
        self.listening = listening
        self.namespace = workflow if namespace is None else namespace
        self.run_id = run_id or str(uuid.uuid4())
        #: Results that count in this run although the cache does not hold them.
        self.kept: dict[str, Result[Any]] = {}
        #: How many results wait for a commit.
        self.deferred = 0
        #: When it was last given up to store something (monotonic).
        self.gave_up = -math.inf
        #: What was looked up before the body began.
        self.ahead: dict[str, Result[Any]] = {}
        #: Whose each key is.
        self.labels: dict[str, str] = {}
        self._failures: dict[int, Err] = {}

    def where(self, label: Any, key: Any = None) -> str:
        """The step as error messages and the log name it."""
        return f"workflow {self.workflow!r}, step {label!r}" + (f" (key {key!r})" if key is not None else "")

    def conflict(self, key: str, label: str) -> StepKeyConflict:
        """The error for a key that is another label's already."""
        return StepKeyConflict(
            f"Workflow {self.workflow!r} uses the key {key!r} for the steps {self.labels[key]!r} and {label!r}. One of "
            f"them would be given the other's result; give each a key of its own, such as {label + ':' + key!r}."
        )

    def token(self, key: str | None, part: str) -> str:
        """The idempotency key of a step, or of a part of ``step.all`` and ``step.map``."""
        return token(self.namespace, key, part) if key is not None else uuid.uuid4().hex

    def event(self, kind: str, label: str | None = None, key: str | None = None, **more: Any) -> Emit:
        return Emit(Event(kind, self.workflow, self.run_id, datetime.now(UTC), label, key, **more))

    def exception(self, failure: Err, label: str, key: str | None) -> BaseException:
        """The exception with which a failed step leaves the body; remembers which step it was."""
        step = failure.step or FailedStep(label, key)
        if not isinstance(failure.error, BaseException):
            return StepFailed(failure.error, failure.cause, step)
        self._failures[id(failure.error)] = Err(failure.error, failure.cause, step)
        # A replayed exception object may be raised many times; its traceback would grow each time.
        return BaseException.with_traceback(failure.error, None) if step.replayed else failure.error

    def conclude(self, outcome: Outcome) -> Result[Any]:
        """What the body's outcome makes of the run."""
        result = judge(outcome)
        if isinstance(outcome, Returned):
            # A failed run that the body hands on keeps the step that failed.
            return replace(outcome.value, stamp=None) if isinstance(outcome.value, Err) else result
        if isinstance(outcome.error, StepFailed):
            return _failed(outcome.error)
        return self._failure(outcome.error) or result

    def _failure(self, error: BaseException) -> Err | None:
        """The failed step that an exception came from."""
        if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
            # What Python makes of a StopIteration that leaves a generator or a coroutine.
            return self._failures.get(id(error.__cause__))
        return self._failures.get(id(error))


def _failed(error: StepFailed) -> Err:
    """What it stands for. One that was rebuilt from what somebody has written into the cache may lack anything."""
    given = vars(error)
    step = given.get("step")
    return Err(given.get("error"), given.get("cause"), step if isinstance(step, FailedStep) else None)


def judge(outcome: Outcome) -> Result[Any]:
    """A function's outcome as a result. Raises what is no failure: a cancellation, an exit, a wrong use."""
    if isinstance(outcome, Raised):
        error = outcome.error
        if not is_failure(error):
            raise error
        if isinstance(error, StepFailed):
            return replace(_failed(error), step=None)
        return Err(error, error.__cause__)
    value = outcome.value
    if isinstance(value, Ok):
        return Ok(value.value)
    if isinstance(value, Err):
        return Err(value.error, value.cause)
    return Ok(value)
