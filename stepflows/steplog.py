"""What became of each step of a run, as its row keeps it."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime
from threading import Lock
from typing import Any, Final

from stepflows.engine.events import Event
from stepflows.engine.policy import is_failure, is_interrupt

__all__ = ["EXECUTED", "REPLAYED", "StepLog"]

#: The outcomes of steps whose function ran in this run, and of those that were in the cache or done by somebody else.
EXECUTED: Final = ("executed", "error")
REPLAYED: Final = ("cached", "waited", "replayed_error")

_ENDS: Final = {"step_success": "executed", "step_error": "error", "step_cache_hit": "cached"}
_BEGINNINGS: Final = ("step_start", "step_wait")


class StepLog:
    """Listens to a run and notes in memory what its steps come to. Steps in threads may call it at the same time."""

    def __init__(self) -> None:
        #: Counts the notes.
        self.length = 0
        self._lock = Lock()
        self._start: datetime | None = None
        self._ended: list[dict[str, Any]] = []
        #: Of the steps that are under way, by label and key: when they began to wait, or to run.
        self._open: defaultdict[tuple[str | None, str | None], list[Event]] = defaultdict(list)

    def __call__(self, event: Event) -> None:
        with self._lock:
            if event.type == "workflow_start":
                self._start = event.time
            elif event.type in _BEGINNINGS:
                self._begin(event)
            elif event.type in _ENDS:
                self._end(event)

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Those that have ended, then those that are under way."""
        with self._lock:
            return [
                *self._ended,
                *(self._entry(event, "running") for events in self._open.values() for event in events),
            ]

    def counts(self) -> dict[str, int]:
        """How many were executed, and how many were not because their result was there."""
        with self._lock:
            outcomes = Counter(step["outcome"] for step in self._ended)
        return {
            "executed": sum(outcomes[outcome] for outcome in EXECUTED),
            "cached": sum(outcomes[outcome] for outcome in REPLAYED),
        }

    def _begin(self, event: Event) -> None:
        begun = self._open[event.label, event.key]
        if event.type == "step_start" and begun and begun[-1].type == "step_wait":
            # Whoever it waited for has not done it.
            begun.pop()
        begun.append(event)
        self.length += 1

    def _end(self, event: Event) -> None:
        begun = self._open.get((event.label, event.key))
        beginning = begun.pop() if begun else None
        if not begun:
            self._open.pop((event.label, event.key), None)
        outcome = _ENDS[event.type]
        if outcome == "cached":
            # What the stored execution took, it did not take here; but waiting for it may have taken long.
            waited = (event.time - beginning.time).total_seconds() if beginning else 0.0
            outcome = "replayed_error" if not event.ok else "waited" if beginning else "cached"
            self._ended.append(self._entry(event, outcome, waited))
        else:
            self._ended.append(self._entry(event, _ended(event, outcome), event.duration or 0.0))
        self.length += 1

    def _entry(self, event: Event, outcome: str, seconds: float = 0.0) -> dict[str, Any]:
        elapsed = (event.time - (self._start or event.time)).total_seconds()
        return {
            "label": event.label,
            "key": event.key,
            "outcome": outcome,
            "offset": round(max(0.0, elapsed - seconds), 6),
            "duration": round(max(0.0, seconds), 6),
            "attempt": event.attempt,
        }


def _ended(event: Event, outcome: str) -> str:
    """A step that was torn apart by the end of its run or its process has not failed."""
    error = event.error
    torn = isinstance(error, BaseException) and (is_interrupt(error) or not is_failure(error))
    return "interrupted" if torn else outcome
