"""Django's local-memory cache, read from its dictionary."""

# ruff: noqa: SLF001 - Django's cache has no public way to its dictionary

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from stepflows.caches.enumerable import EnumerableBackend, made_prefix
from stepflows.caches.pickled import plain_bytes

__all__ = ["LocMemBackend"]


class LocMemBackend(EnumerableBackend):
    """Leases are as good as the cache's own lock, and end when they should. The loop never waits for more than that."""

    _counts_whole_seconds: ClassVar[bool] = False
    _blocks: ClassVar[bool] = False

    def _raw(self, cache: Any, keys: list[str]) -> dict[str, bytes]:
        found = {}
        with cache._lock:
            for key in keys:
                place = cache.make_key(key)
                if not cache._has_expired(place):
                    found[key] = cache._cache[place]
                    # As the cache's own get() does, so that culling takes what was not asked for.
                    cache._cache.move_to_end(place, last=False)
        return found

    def _contents(self, cache: Any) -> Iterable[tuple[str, bytes]]:
        prefix = made_prefix(cache)
        with cache._lock:
            pickles = [
                (place, pickle)
                for place, pickle in cache._cache.items()
                if place.startswith(prefix) and not cache._has_expired(place)
            ]
        return ((place, plain_bytes(pickle) or b"") for place, pickle in pickles)

    def _extend(self, cache: Any, lease: str, own: bytes, timeout: float) -> bool:
        place = cache.make_key(lease)
        with cache._lock:
            if not _holds(cache, place, own):
                return False
            cache._expire_info[place] = cache.get_backend_timeout(timeout)
            return True

    def _end(self, cache: Any, lease: str, own: bytes) -> None:
        place = cache.make_key(lease)
        with cache._lock:
            if _holds(cache, place, own):
                cache._delete(place)


def _holds(cache: Any, place: str, own: bytes) -> bool:
    return not cache._has_expired(place) and plain_bytes(cache._cache[place]) == own
