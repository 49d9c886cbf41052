"""A cache as its tests ask it."""

# ruff: noqa: S101 - tests assert

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any
from uuid import uuid4

from stepflows.caches import portal, resolve
from stepflows.engine.cache import Cache, Claimed, Entry, Lease, Lookup, Lost, Standing
from stepflows.errors import NotCacheable
from stepflows.results import Result, Stamp, stamped

__all__ = ["Voice", "stamp"]


def stamp(ttl: float | None = None, **more: Any) -> Stamp:
    """The stamp of something stored now."""
    now = time.time()
    return Stamp("label", now, 0.25, "run", None if ttl is None else now + ttl)._replace(**more)


class Voice:
    """A cache as a workflow asks it: by its sync methods, or by the async ones on one event loop."""

    def __init__(self, given: Any, run: Callable[[Coroutine[Any, Any, Any]], Any] | None = None) -> None:
        resolved = resolve(given, f"conformance {uuid4().hex}")
        assert resolved is not None
        self.given = given
        self.cache: Cache = resolved
        self._run = run

    def load(self, key: str) -> Lookup:
        found: Lookup = self._run(self.cache.aload(key)) if self._run else self.cache.load(key)
        return found

    def load_many(self, keys: Sequence[str]) -> list[Lookup]:
        found: list[Lookup] = self._run(self.cache.aload_many(keys)) if self._run else self.cache.load_many(keys)
        return found

    def store(self, key: str, result: Result[Any], ttl: float | None = None, *, replace: bool = False) -> Result[Any]:
        [standing] = self.store_many([Entry(key, result if result.stamp else stamped(result, stamp(ttl)), replace)])
        if isinstance(standing, NotCacheable):
            raise standing
        assert not isinstance(standing, Lost)
        return standing

    def store_many(self, entries: Sequence[Entry]) -> list[Standing]:
        standing: list[Standing] = self._run(self.cache.astore(entries)) if self._run else self.cache.store(entries)
        return standing

    def claim(self, *keys: str, seconds: float = 30, refresh: bool = False) -> list[Claimed]:
        if self._run is None:
            return self.cache.claim(keys, seconds, refresh=refresh)
        claimed: list[Claimed] = self._run(self.cache.aclaim(keys, seconds, refresh=refresh))
        return claimed

    def release(self, *leases: Claimed) -> None:
        held = [lease for lease in leases if isinstance(lease, Lease)]
        if self._run is None:
            self.cache.release(held)
        else:
            self._run(self.cache.arelease(held))

    def finish(self, answer: Any) -> Any:
        """The answer, or what it comes to when it has to be awaited."""
        if not inspect.isawaitable(answer):
            return answer
        return self._run(_awaited(answer)) if self._run else portal.run(lambda: _awaited(answer))


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer
