"""A cache that plays dead, so that a test can see a workflow resume."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any, Self

from stepflows.caches.mapping import MappingCache
from stepflows.engine.cache import Claimed, Entry, Lease, Lookup, Standing
from stepflows.engine.policy import add_interrupts
from stepflows.errors import InvalidOption
from stepflows.results import Result

__all__ = ["Crash", "CrashingCache"]


class Crash(BaseExceptionGroup[SystemExit]):
    """The process has died, as far as the workflow can tell. Like an exit it is no failure, and is never stored.

    It is a group with a ``SystemExit`` in it, because a bare one, raised in a task, would end the event loop of the
    test as well.
    """

    def __new__(cls, message: str) -> Self:
        return super().__new__(cls, message, [SystemExit(message)])


# A worker that meets it gives its run back.
add_interrupts(Crash)


class CrashingCache(MappingCache):
    """A cache in memory that crashes once ``after`` steps have been stored.

    Whatever is asked of it next raises :exc:`Crash`, and so does everything after that, until :meth:`restart`::

        cache = CrashingCache(after=1)
        with pytest.raises(Crash):
            checkout.using(cache=cache).run(order_id=7)
        cache.restart()
        checkout.using(cache=cache).run(order_id=7)
    """

    def __init__(self, after: int) -> None:
        super().__init__({})
        self.title = "crashing cache of a test"
        self._lock = threading.Lock()
        self._tokens: set[str] = set()
        #: How many more steps are stored; ``None`` is any number.
        self._left: int | None = _checked(after)

    def __repr__(self) -> str:
        return f"CrashingCache({'alive' if self._left != 0 else 'crashed'}, {len(self.given)} stored)"

    @property
    def stored(self) -> dict[str, Result[Any]]:
        """What a new process finds; can be looked at at any time."""
        return dict(self.given)

    def restart(self, after: int | None = None) -> None:
        """Come back with what was stored and without a lease, as in a new process; for good, or to crash again."""
        with self._lock:
            # Leases belong to the object that lies behind the cache.
            self.given = dict(self.given)
            self._tokens = set()
            self._left = None if after is None else _checked(after)

    def load(self, key: str) -> Lookup:
        self._live()
        return super().load(key)

    def keys(self, prefix: str = "") -> list[str]:
        self._live()
        return super().keys(prefix)

    def claim(self, keys: Sequence[str], seconds: float, *, refresh: bool = False) -> list[Claimed]:
        with self._lock:
            self._live()
            claimed = super().claim(keys, seconds, refresh=refresh)
            self._tokens.update(each.token for each in claimed if isinstance(each, Lease))
            return claimed

    def store(self, entries: Sequence[Entry]) -> list[Standing]:
        self._live(entry.lease for entry in entries)
        return super().store(entries)

    def delete(self, key: str) -> bool:
        self._live()
        deleted: bool = super().delete(key)
        return deleted

    def _store(self, key: str, result: Result[Any], *, replace: bool) -> Result[Any]:
        with self._lock:
            self._live()
            standing: Result[Any] = super()._store(key, result, replace=replace)
            if self._left is not None and self.given.get(key) is result:
                self._left -= 1
            return standing

    def _live(self, leases: Iterable[Lease | None] = ()) -> None:
        """Raise what the dead meet. Who has a lease from before the restart, such as a thread, is one of them."""
        if self._left == 0 or any(lease and lease.token not in self._tokens for lease in leases):
            raise Crash("The cache has crashed, as this test asked for. Call restart(), then run the workflow again.")


def _checked(after: Any) -> int:
    if isinstance(after, bool) or not isinstance(after, int) or after < 0:
        raise InvalidOption(f"CrashingCache: after is {after!r}; give a number of steps, 0 or more.")
    return after
