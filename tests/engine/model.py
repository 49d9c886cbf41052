"""A cache in a few lines: what the engine may rely on, and what tests do to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepflows.engine.cache import LOST, MISSING, Busy, Claimed, Entry, Lease, Lookup, Standing
from stepflows.results import Err, Ok, Result


class ModelCache:
    """Each method is one step that nobody interrupts. Leases last until something ends them."""

    def __init__(self) -> None:
        self.entries: dict[str, Result[Any]] = {}
        self.leases: dict[str, str] = {}
        self._claims = 0

    def load(self, key: str) -> Lookup:
        return self.entries.get(key, MISSING)

    def load_many(self, keys: Sequence[str]) -> list[Lookup]:
        return [self.load(key) for key in keys]

    def keys(self, prefix: str = "") -> list[str]:
        return [key for key in self.entries if key.startswith(prefix)]

    def claim(self, keys: Sequence[str], seconds: float, *, refresh: bool = False) -> list[Claimed]:
        self._claims += 1
        return [self._claim(key, refresh=refresh) for key in keys]

    def _claim(self, key: str, *, refresh: bool) -> Claimed:
        found = MISSING if refresh else self.load(key)
        if isinstance(found, Ok | Err):
            return found
        if key in self.leases:
            return Busy(self.leases[key])
        lease = Lease(key, f"{self._claims}")
        self.leases[key] = lease.token
        return lease

    def store(self, entries: Sequence[Entry]) -> list[Standing]:
        standing = [self._store(entry) for entry in entries]
        self.release([entry.lease for entry in entries if entry.lease])
        return standing

    def _store(self, entry: Entry) -> Standing:
        key, lease = entry.key, entry.lease
        if not entry.replace and key in self.entries:
            return self.entries[key]
        holder = self.leases.get(key)
        yields = lease is not None and (entry.replace or not entry.result.ok)
        if yields and lease and holder not in {None, lease.token}:
            return LOST
        self.entries[key] = entry.result
        return entry.result

    def release(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            if self.leases.get(lease.key) == lease.token:
                del self.leases[lease.key]

    def abandon(self, leases: Sequence[Lease]) -> None:
        self.release(leases)

    # What the world does to it.

    def standing(self, key: str) -> Lookup:
        return self.load(key)

    def holders(self) -> dict[str, str]:
        """The tokens of the leases that are held, by key."""
        return dict(self.leases)

    def expire(self, key: str) -> None:
        """End whatever lease there is on the key."""
        del self.leases[key]
