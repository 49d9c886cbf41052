"""What happens in a run, as values that listeners are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

__all__ = ["EVENT_TYPES", "Event", "Listener"]

EVENT_TYPES: Final = (
    "workflow_start",
    "workflow_success",
    "workflow_error",
    "step_cache_hit",
    "step_cache_miss",
    "step_start",
    "step_success",
    "step_error",
    "step_retry",
    "step_wait",
    "step_cache_write_failed",
    "step_cache_corrupt",
)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. The types are those of :data:`EVENT_TYPES`."""

    type: str
    workflow: str
    run_id: str
    #: When, with the UTC time zone.
    time: datetime
    label: str | None = None
    key: str | None = None
    #: Seconds that the step or the workflow took; on a hit, what the stored execution took. ``None`` at a start.
    duration: float | None = None
    #: Counts from 1.
    attempt: int = 1
    #: Whether what it tells of is no failure; on a hit, whether the stored result is an ``Ok``.
    ok: bool = True
    #: The error of a failure: an exception, or what a step returned as ``Err(error)``.
    error: Any = None


#: Whoever is told; it may be async.
Listener: TypeAlias = Callable[[Event], Any]
