"""A ``dict``, or any other mapping in memory, as a cache."""

from __future__ import annotations

import time
from collections.abc import MutableMapping, Sequence
from typing import Any

from stepflows.caches.backend import reaching
from stepflows.engine.cache import MISSING, Damaged, Lookup
from stepflows.results import Err, Ok, Result

__all__ = ["MappingCache", "expired", "judged", "remaining"]


class MappingCache:
    """Keeps results in the mapping as they are, under the very key: nothing is copied or written out."""

    def __init__(self, mapping: MutableMapping[str, Any]) -> None:
        #: What the workflow was given.
        self.given = mapping
        self.title = f"mapping {type(mapping).__name__}"

    def __repr__(self) -> str:
        return f"MappingCache({type(self.given).__name__})"

    @reaching("read")
    def load(self, key: str) -> Lookup:
        found: Any = self.given.get(key, MISSING)
        return judged(found)

    def load_many(self, keys: Sequence[str]) -> list[Lookup]:
        return [self.load(key) for key in keys]

    @reaching("write")
    def store(self, key: str, result: Result[Any], *, replace: bool = False) -> Result[Any]:
        if expired(result):
            if replace:
                self.given.pop(key, None)
            return result
        if not replace:
            # Of two threads at once, a dict lets one win.
            standing = judged(self.given.setdefault(key, result))
            if isinstance(standing, Ok | Err):
                return standing
        self.given[key] = result
        return result

    async def aload(self, key: str) -> Lookup:
        return self.load(key)

    async def aload_many(self, keys: Sequence[str]) -> list[Lookup]:
        return self.load_many(keys)

    async def astore(self, key: str, result: Result[Any], *, replace: bool = False) -> Result[Any]:
        return self.store(key, result, replace=replace)


def judged(found: object) -> Lookup:
    """What something found under a key counts as."""
    if found is MISSING:
        return MISSING
    if isinstance(found, Ok | Err):
        return MISSING if expired(found) else found
    kind = type(found).__name__
    return Damaged(f"holds {'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}, not a Result")


def expired(result: Result[Any]) -> bool:
    return result.stamp is not None and result.stamp.expired(time.time())


def remaining(result: Result[Any]) -> float | None:
    """The seconds that a result is still good for; ``None`` is for ever."""
    if result.stamp is None or result.stamp.expires_at is None:
        return None
    return result.stamp.expires_at - time.time()
