"""What the engine asks of a cache, and the answers it understands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from stepflows.errors import NotCacheable
from stepflows.results import Err, Ok, Result

__all__ = [
    "LOST",
    "MISSING",
    "Busy",
    "Cache",
    "Claimed",
    "Damaged",
    "Entry",
    "Lease",
    "Lookup",
    "Lost",
    "Missing",
    "Standing",
]


class Missing(Enum):
    """A typed "nothing there": ``None`` is a value that a step may return (the idea is dogpile.cache's)."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True)
class Damaged:
    """Something is stored that is no entry: damaged, foreign, forged or of a later format. Counts as missing."""

    reason: str


Lookup: TypeAlias = Ok[Any] | Err | Missing | Damaged


class Lease:
    """The right to run one step, while whoever holds this object holds it.

    The cache renews it for as long as the object lives, so one that is dropped ends by itself.
    """

    __slots__ = ("__weakref__", "key", "passed_on", "token")

    def __init__(self, key: str, token: str) -> None:
        self.key = key
        #: Whether a thread that nobody waits for any more has it until its function has ended.
        self.passed_on = False
        #: Random, one for each attempt to get leases.
        self.token = token

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key!r})"


class Busy(NamedTuple):
    """Somebody else has the lease."""

    #: Of the lease that is held; empty when it is not known.
    token: str = ""


class Lost(Enum):
    """A typed "not stored, and nothing there": somebody else has the lease by now and is at it."""

    LOST = "lost"


LOST: Final = Lost.LOST

#: What claiming a key came to.
Claimed: TypeAlias = Ok[Any] | Err | Lease | Busy
#: What storing came to: the result that stands there now, or why there is none.
Standing: TypeAlias = Ok[Any] | Err | Lost | NotCacheable


class Entry(NamedTuple):
    """A stamped result to store."""

    key: str
    result: Result[Any]
    replace: bool = False
    #: Ends when the entry stands.
    lease: Lease | None = None


class Cache(Protocol):
    """Seven questions, most of them in two voices. Everything else about a cache is its own affair.

    Every method raises :exc:`~stepflows.errors.CacheUnavailable` when the cache cannot be reached, and nothing else
    but what it names. Results carry a :class:`~stepflows.results.Stamp` both ways. Answers come in the order asked.
    """

    def load(self, key: str) -> Lookup:
        """What is stored under the key. Never an expired entry."""

    def load_many(self, keys: Sequence[str]) -> list[Lookup]:
        """What is stored under each key, in as few round trips as there can be."""

    def keys(self, prefix: str = "") -> list[str]:
        """The stored keys with this prefix. Raises :exc:`~stepflows.errors.CannotList` when the cache cannot tell."""

    def claim(self, keys: Sequence[str], seconds: float, *, refresh: bool = False) -> list[Claimed]:
        """For each key the result that is stored by now, or else a lease for that long, or else who has it.

        With ``refresh``, what is stored does not matter.
        """

    def store(self, entries: Sequence[Entry]) -> list[Standing]:
        """Store results and say what now stands there: the first stored wins, unless ``replace``.

        A lease that was lost meanwhile does not keep a success from being the first. An ``Err``, or what is to replace
        something, is ``LOST`` if somebody else has the lease by now.
        """

    def delete(self, key: str) -> bool:
        """Remove what is stored under the key, and say whether there was anything."""

    def freeze(self, entry: Entry) -> Entry | NotCacheable:
        """The entry as it is now, whatever is done to its value before it is stored. Asks no server."""

    def release(self, leases: Sequence[Lease]) -> None:
        """End leases whose steps are not stored."""

    def abandon(self, leases: Sequence[Lease]) -> None:
        """The same soon, and without waiting for anything, wherever this is called."""

    async def aload(self, key: str) -> Lookup: ...

    async def aload_many(self, keys: Sequence[str]) -> list[Lookup]: ...

    async def akeys(self, prefix: str = "") -> list[str]: ...

    async def aclaim(self, keys: Sequence[str], seconds: float, *, refresh: bool = False) -> list[Claimed]: ...

    async def astore(self, entries: Sequence[Entry]) -> list[Standing]: ...

    async def arelease(self, leases: Sequence[Lease]) -> None: ...
