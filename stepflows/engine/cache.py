"""What the engine asks of a cache, and the answers it understands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol, TypeAlias

from stepflows.results import Err, Ok, Result

__all__ = ["MISSING", "Cache", "Damaged", "Lookup", "Missing"]


class Missing(Enum):
    """A typed "nothing there": ``None`` is a value that a step may return (the idea is dogpile.cache's)."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True)
class Damaged:
    """Something is stored that is no entry: damaged, foreign, forged or of a later format. Counts as missing."""

    reason: str


Lookup: TypeAlias = Ok[Any] | Err | Missing | Damaged


class Cache(Protocol):
    """Four questions, each in two voices. Everything else about a cache is its own affair.

    Every method raises :exc:`~stepflows.errors.CacheUnavailable` when the cache cannot be reached, and nothing else
    but what :meth:`store` names. Results carry a :class:`~stepflows.results.Stamp` in both directions.
    """

    def load(self, key: str) -> Lookup:
        """What is stored under the key. Never an expired entry."""

    def load_many(self, keys: Sequence[str]) -> list[Lookup]:
        """What is stored under each key, in the order asked, in as few round trips as there can be."""

    def store(self, key: str, result: Result[Any], *, replace: bool = False) -> Result[Any]:
        """Store a stamped result and return what now stands there: the first stored wins, unless ``replace``.

        Raises :exc:`~stepflows.errors.NotCacheable` when the result cannot be kept.
        """

    async def aload(self, key: str) -> Lookup: ...

    async def aload_many(self, keys: Sequence[str]) -> list[Lookup]: ...

    async def astore(self, key: str, result: Result[Any], *, replace: bool = False) -> Result[Any]: ...
