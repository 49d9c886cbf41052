"""Any cache of Django's framework, through the methods that all of them have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final, NoReturn

from django.core.cache.backends.base import BaseCache

from stepflows.caches.backend import BATCH, cannot_list, reaching
from stepflows.caches.names import Name, backend_key
from stepflows.errors import CacheUnavailable

__all__ = ["BaseCacheBackend", "DummyBackend", "backend_timeout"]

_CENTURY: Final = 100 * 366 * 24 * 3600
_ATTEMPTS: Final = 3
_ABSENT: Final = object()


class BaseCacheBackend:
    """Memcached, and whatever else somebody wrote.

    What such a cache gives back has been through its own serializer. Anything but ``bytes`` is foreign.
    """

    can_list: ClassVar[bool] = False

    def __init__(self, title: str, source: Callable[[], BaseCache]) -> None:
        self.title = title
        # Django keeps a cache object per thread, so it is asked for each time.
        self._source = source

    @reaching("read")
    def read(self, name: Name) -> bytes | None:
        return self._read(self._source(), backend_key(name))

    @reaching("read")
    def read_many(self, names: Sequence[Name]) -> list[bytes | None]:
        keys = [backend_key(name) for name in names]
        found = self._read_many(self._source(), list(dict.fromkeys(keys)))
        return [found.get(key) for key in keys]

    @reaching("write")
    def write(self, name: Name, data: bytes, *, ttl: float | None, replace: bool) -> bytes | None:
        cache, key, timeout = self._source(), backend_key(name), backend_timeout(ttl)
        if replace:
            self._set(cache, key, data, timeout)
            return None
        # What stood in the way may be gone when it is read: then there is room again.
        for _ in range(_ATTEMPTS):
            if self._add(cache, key, data, timeout):
                return None
            first = self._read(cache, key)
            if first is not None:
                return first
        raise refused(self.title)

    @reaching("delete")
    def remove(self, names: Sequence[Name]) -> int:
        cache = self._source()
        return sum(bool(cache.delete(backend_key(name))) for name in names)

    def contains(self, name: Name) -> bool:
        return self.read(name) is not None

    def heads(self, names: Sequence[Name], size: int = 512) -> list[bytes | None]:
        return [None if data is None else data[:size] for data in self.read_many(names)]

    def names(self, scope: str | None = None, prefix: str = "", start: int = 0, limit: int | None = None) -> list[Name]:
        self._cannot_list()

    def walk(self, scope: str | None = None, prefix: str = "", size: int = BATCH) -> Iterator[list[Name]]:
        names = self.names(scope, prefix)
        return (names[start : start + size] for start in range(0, len(names), size))

    def count(self, scope: str | None = None, prefix: str = "") -> int:
        return len(self.names(scope, prefix))

    def scopes(self) -> list[str]:
        return sorted({name.scope for name in self.names()})

    def _cannot_list(self) -> NoReturn:
        raise cannot_list(self.title, type(self._source()).__name__)

    # What subclasses do in another way. Keys are given as ``cache.get`` takes them.

    def _read(self, cache: BaseCache, key: str) -> bytes | None:
        value = cache.get(key, _ABSENT)
        return None if value is _ABSENT else _own(value)

    def _read_many(self, cache: BaseCache, keys: list[str]) -> dict[str, bytes]:
        return {key: _own(value) for key, value in cache.get_many(keys).items()}

    def _add(self, cache: BaseCache, key: str, data: bytes, timeout: int | None) -> bool:
        return bool(cache.add(key, data, timeout))

    def _set(self, cache: BaseCache, key: str, data: bytes, timeout: int | None) -> None:
        cache.set(key, data, timeout)


class DummyBackend(BaseCacheBackend):
    """Django's dummy cache keeps nothing, and so it can say what it holds."""

    can_list: ClassVar[bool] = True

    def names(self, scope: str | None = None, prefix: str = "", start: int = 0, limit: int | None = None) -> list[Name]:
        return []


def backend_timeout(ttl: float | None) -> int | None:
    """A timeout for a backend that counts whole seconds: never too short, because the entry itself knows when it ends.

    More than a century is for ever; the database cache has no dates for it.
    """
    return None if ttl is None or ttl > _CENTURY else math.ceil(ttl) + 1


def refused(title: str) -> CacheUnavailable:
    """The error for a cache that says neither that it stored something nor what is there instead."""
    return CacheUnavailable(f"The {title} did not store an entry and gave no reason. See its server's log.")


def _own(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b""
