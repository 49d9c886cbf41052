"""What a plan may ask of its driver, and the answers to a :class:`Call`.

Plans decide and drivers act: a plan yields one of these and is sent the answer. (The separation is that of httpx's
auth flows and psycopg's generators.)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, cast

from stepflows.engine.cache import Busy, Entry, Lease
from stepflows.engine.events import Event
from stepflows.engine.transactions import Transaction
from stepflows.results import Err, Result

__all__ = [
    "LAST",
    "Call",
    "Claim",
    "Defer",
    "Deferred",
    "Emit",
    "Gathering",
    "Keys",
    "Load",
    "LoadMany",
    "Operation",
    "Outcome",
    "Pause",
    "Plan",
    "Raised",
    "Release",
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


class Keys(NamedTuple):
    """Ask which keys with this prefix are stored. Answer: a list of them."""

    prefix: str


class Claim(NamedTuple):
    """Ask for the right to run these keys' steps. Answer: a list of :data:`~stepflows.engine.cache.Claimed`."""

    keys: Sequence[str]
    #: How long a lease lasts when nobody renews it.
    seconds: float
    refresh: bool = False


class Store(NamedTuple):
    """Store stamped results. Answer: a list of :data:`~stepflows.engine.cache.Standing`."""

    entries: Sequence[Entry]


class Defer(NamedTuple):
    """Drive a plan when all transactions that a step used have committed; call a function when one rolls back.

    The plan is made for the entry as its value is now. Answer: why that cannot be kept, or ``None``.
    """

    transactions: Sequence[Transaction]
    entry: Entry
    committed: Callable[[Entry], Plan]
    forgotten: Callable[[], None]


class Deferred(NamedTuple):
    """Ask what is deferred under a busy lease. Answer: the result, if it is of the transaction that one is in here."""

    busy: Busy
    key: str


class Release(NamedTuple):
    """End leases whose steps are not stored."""

    leases: Sequence[Lease]
    #: Without waiting for it, because the cache is away.
    soon: bool = False


class Call(NamedTuple):
    """Call a function and wait for what it returns. Answer: an :data:`Outcome`; it never raises."""

    function: Callable[[], Any]
    step: StepInfo | None = None
    #: Seconds.
    timeout: float | None = None
    lease: Lease | None = None
    #: What is done with the outcome if the waiting is cancelled while a thread is at it.
    late: Callable[[Outcome], Plan] | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the result is to be stored, so that it matters in which transaction it is made."""
        return self.step is not None and self.step.key is not None


class Together(NamedTuple):
    """Drive plans at the same time, at most ``limit`` of them. Answer: a :class:`Gathering`.

    ``then`` makes a plan of the positions of those that have ended, several at a time where they end quickly. It is
    driven beside the others, and never two of it at once.
    """

    plans: Sequence[Plan]
    limit: int | None = None
    then: Callable[[Sequence[int]], Plan] | None = None

    def width(self, most: int) -> int:
        """How many of them at a time, where that may be so many at most."""
        return min(self.limit or most, most, len(self.plans))


class Pause(NamedTuple):
    """Wait for this many seconds."""

    seconds: float


class Emit(NamedTuple):
    """Tell the listeners."""

    event: Event


Operation: TypeAlias = (
    Load | LoadMany | Keys | Claim | Store | Defer | Deferred | Release | Call | Together | Pause | Emit
)
#: What follows after a function has run; it is done even if the run is called off.
LAST: Final = (Emit, Release, Store, Defer)
Plan: TypeAlias = Generator[Operation, Any, Result[Any]]


class Returned(NamedTuple):
    value: Any
    #: The open transaction in which the function used the database, if it did.
    transaction: Transaction | None = None


class Raised(NamedTuple):
    error: BaseException
    transaction: Transaction | None = None


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
