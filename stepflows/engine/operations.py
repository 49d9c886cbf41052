"""What a plan may ask of its driver, and the answers to a :class:`Call`.

Plans decide and drivers act: a plan yields one of these and is sent the answer. (The separation is that of httpx's
auth flows and psycopg's generators.)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

from stepflows.engine.events import Event
from stepflows.results import Err, Result

__all__ = [
    "Call",
    "Emit",
    "Gathering",
    "Load",
    "LoadMany",
    "Operation",
    "Outcome",
    "Pause",
    "Plan",
    "Raised",
    "Returned",
    "StepInfo",
    "Store",
    "Together",
]


@dataclass(frozen=True, slots=True)
class StepInfo:
    """The step whose function is running; see :func:`stepflows.current_step`."""

    label: str
    key: str | None
    #: Counts from 1.
    attempt: int
    #: The same for every attempt and every run of this step of this workflow; without a key, for every attempt.
    idempotency_key: str


class Load(NamedTuple):
    """Look a key up. Answer: a :data:`~stepflows.engine.cache.Lookup`."""

    key: str


class LoadMany(NamedTuple):
    """Look keys up together. Answer: a list of lookups in the same order."""

    keys: Sequence[str]


class Store(NamedTuple):
    """Store a stamped result. Answer: the result that stands there now."""

    key: str
    result: Result[Any]
    replace: bool


class Call(NamedTuple):
    """Call a function and wait for what it returns. Answer: an :data:`Outcome`; it never raises."""

    function: Callable[[], Any]
    step: StepInfo | None = None
    #: Seconds.
    timeout: float | None = None


class Together(NamedTuple):
    """Drive plans at the same time, at most ``limit`` of them. Answer: a :class:`Gathering`."""

    plans: Sequence[Plan]
    limit: int | None = None


class Pause(NamedTuple):
    """Wait for this many seconds."""

    seconds: float


class Emit(NamedTuple):
    """Tell the listeners."""

    event: Event


Operation: TypeAlias = Load | LoadMany | Store | Call | Together | Pause | Emit
Plan: TypeAlias = Generator[Operation, Any, Result[Any]]


class Returned(NamedTuple):
    value: Any


class Raised(NamedTuple):
    error: BaseException


Outcome: TypeAlias = Returned | Raised


class Gathering:
    """The results of plans that are driven together. The first failure closes it: what has not started, will not."""

    __slots__ = ("failed", "open", "results")

    def __init__(self, size: int) -> None:
        self.results: list[Result[Any] | None] = [None] * size
        self.failed: Err | None = None
        self.open = True

    def take(self, index: int, result: Result[Any]) -> None:
        self.results[index] = result
        if isinstance(result, Err):
            self.failed = self.failed or result
            self.open = False

    def complete(self) -> list[Result[Any]]:
        """The results, once all plans have been driven to their end."""
        return cast("list[Result[Any]]", self.results)
