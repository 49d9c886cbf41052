"""A ``dict``, or any other mapping in memory, as a cache."""

from __future__ import annotations

import time
from collections.abc import MutableMapping, Sequence
from typing import Any

from stepflows.caches import local
from stepflows.caches.backend import reaching
from stepflows.engine.cache import MISSING, Busy, Claimed, Damaged, Entry, Lease, Lookup, Standing
from stepflows.engine.policy import is_failure, is_interrupt
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

    @reaching("list keys")
    def keys(self, prefix: str = "") -> list[str]:
        keys: list[Any] = list(self.given)
        return [key for key in keys if isinstance(key, str) and key.startswith(prefix)]

    def claim(self, keys: Sequence[str], seconds: float, *, refresh: bool = False) -> list[Claimed]:
        with local.taking(self.given, keys) as taken:
            if refresh:
                return list(taken)
            return [self._looked_again(key, lease) for key, lease in zip(keys, taken, strict=True)]

    def store(self, entries: Sequence[Entry]) -> list[Standing]:
        standing: list[Standing] = [self._store(entry.key, entry.result, replace=entry.replace) for entry in entries]
        self.release([entry.lease for entry in entries if entry.lease])
        return standing

    def release(self, leases: Sequence[Lease]) -> None:
        local.give_back(leases)

    def freeze(self, entry: Entry) -> Entry:
        return entry

    def abandon(self, leases: Sequence[Lease]) -> None:
        self.release(leases)

    def _looked_again(self, key: str, lease: Lease | Busy) -> Claimed:
        found = self.load(key)
        if not isinstance(found, Ok | Err):
            return lease
        if isinstance(lease, Lease):
            self.release([lease])
        return found

    @reaching("delete")
    def delete(self, key: str) -> bool:
        return self.given.pop(key, None) is not None

    @reaching("write")
    def _store(self, key: str, result: Result[Any], *, replace: bool) -> Result[Any]:
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

    async def akeys(self, prefix: str = "") -> list[str]:
        return self.keys(prefix)

    async def aclaim(self, keys: Sequence[str], seconds: float, *, refresh: bool = False) -> list[Claimed]:
        return self.claim(keys, seconds, refresh=refresh)

    async def astore(self, entries: Sequence[Entry]) -> list[Standing]:
        return self.store(entries)

    async def arelease(self, leases: Sequence[Lease]) -> None:
        self.release(leases)


def judged(found: object) -> Lookup:
    """What something found under a key counts as."""
    if found is MISSING:
        return MISSING
    if isinstance(found, Ok | Err):
        return MISSING if expired(found) else _replayable(found)
    kind = type(found).__name__
    return Damaged(f"holds {'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}, not a Result")


def _replayable(found: Result[Any]) -> Result[Any] | Damaged:
    """The same, unless raising its error would end a task or a worker: no step stores such, so somebody else has."""
    error = found.error if isinstance(found, Err) else None
    if isinstance(error, BaseException) and (is_interrupt(error) or not is_failure(error)):
        return Damaged(f"it holds a {type(error).__name__}, which is never stored")
    return found


def expired(result: Result[Any]) -> bool:
    return result.stamp is not None and result.stamp.expired(time.time())


def remaining(result: Result[Any]) -> float | None:
    """The seconds that a result is still good for; ``None`` is for ever."""
    if result.stamp is None or result.stamp.expires_at is None:
        return None
    return result.stamp.expires_at - time.time()
