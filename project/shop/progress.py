"""How a checkout gets on, in words: for its page, and for the script that keeps the page up to date."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from project.shop.workflows import CHECKOUT_STEPS
from stepflows import Err, Ok
from stepflows.models import Run

#: What becomes of a step: the outcomes that the row of a run keeps, and what can be told beyond that.
WORDS = {
    "executed": "done in {took}",
    "cached": "from the cache",
    "waited": "done by another run, after {took}",
    "error": "failed after {took}",
    "replayed_error": "failed before: from the cache",
    "running": "running",
    "interrupted": "under way when it ended",
    "pending": "to come",
    "skipped": "not reached",
}
#: What a visitor can do about a run in each state; "again" is another run of the same order.
ACTIONS: dict[str, tuple[str, ...]] = {
    Run.State.QUEUED: ("cancel",),
    Run.State.RUNNING: ("cancel",),
    Run.State.SUCCEEDED: ("again",),
    Run.State.FAILED: ("retry", "resume"),
    Run.State.CANCELLED: ("resume", "retry"),
}


@dataclass(frozen=True)
class Progress:
    """A run of the checkout as it was last read."""

    run: Run

    @property
    def headline(self) -> str:
        """One sentence, which changes with the state only: it is read out to those who do not see it."""
        match self.run.state:
            case Run.State.QUEUED:
                return "Waiting for a worker"
            case Run.State.RUNNING:
                return "Running" if self.run.attempts < 2 else f"Running, attempt {self.run.attempts}"
            case Run.State.SUCCEEDED:
                return f"Done: {self.result}"
            case Run.State.FAILED:
                return f"Failed: {self.error}"
            case _:
                return "Cancelled"

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Those that happened, and then those to come."""
        return [*self._happened(), *self._to_come()]

    @property
    def result(self) -> str | None:
        result = self.run.result
        return str(result.value) if isinstance(result, Ok) else None

    @property
    def error(self) -> str | None:
        result = self.run.result
        return _described(result) if isinstance(result, Err) else None

    @property
    def actions(self) -> tuple[str, ...]:
        return ACTIONS[self.run.state]

    def as_dict(self) -> dict[str, Any]:
        run = self.run
        return {
            "id": str(run.pk),
            "workflow": run.workflow,
            "state": run.state,
            "attempts": run.attempts,
            "steps": self.steps,
            "result": self.result,
            "error": self.error,
            "finished": run.finished,
            "headline": self.headline,
            "actions": self.actions,
        }

    def _happened(self) -> Iterator[dict[str, Any]]:
        for step in self.run.steps:
            outcome = "interrupted" if step["outcome"] == "running" and self.run.finished else step["outcome"]
            yield _step(step["label"], outcome, step["key"], step["offset"], step["duration"])

    def _to_come(self) -> Iterator[dict[str, Any]]:
        outcomes = {step["label"]: step["outcome"] for step in self.run.steps}
        rest = [label for label in CHECKOUT_STEPS if label not in outcomes]
        # The row is written twice a second: where it names no step that is under way, the next one is.
        if rest and self.run.state == Run.State.RUNNING and "running" not in outcomes.values():
            yield _step(rest.pop(0), "running")
        for label in rest:
            yield _step(label, "skipped" if self.run.finished else "pending")


def seconds(duration: float) -> str:
    """A duration as people read it."""
    milliseconds = round(duration * 1000)
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{duration:.1f} s"


def _step(
    label: str, outcome: str, key: str | None = None, offset: float | None = None, duration: float | None = None
) -> dict[str, Any]:
    says = WORDS.get(outcome, outcome).format(took=seconds(duration or 0.0))
    return {"label": label, "key": key, "outcome": outcome, "offset": offset, "duration": duration, "says": says}


def _described(failure: Err) -> str:
    """The error, and what is known of its cause."""
    error = failure.error
    text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
    return f"{text} ({failure.cause})" if failure.cause else text
