"""Django's caches whose contents can be looked through, and which are read without unpickling."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Final

from django.core.cache.backends.base import BaseCache

from stepflows.caches.backend import reaching
from stepflows.caches.codec import current_codec
from stepflows.caches.django import BaseCacheBackend
from stepflows.caches.names import PREFIX, Name, backend_key
from stepflows.caches.pickled import plain_bytes
from stepflows.engine.cache import Damaged

__all__ = ["HEAD_BYTES", "EnumerableBackend", "made_prefix"]

#: Enough for the head of any entry, with scope, key and label of the greatest length in four-byte characters.
HEAD_BYTES: Final = 6144


class EnumerableBackend(BaseCacheBackend):
    """Looks through all that the cache holds and takes names from the entries' own heads.

    Backend keys may be hashed or quoted, so they tell no names; that an entry lies where its name belongs is checked.
    """

    can_list: ClassVar[bool] = True

    @reaching("list keys")
    def names(self, scope: str | None = None, prefix: str = "", start: int = 0, limit: int | None = None) -> list[Name]:
        names = [
            name for name in self._all_names() if (scope is None or name.scope == scope) and name.key.startswith(prefix)
        ]
        return sorted(names)[start : None if limit is None else start + limit]

    def _all_names(self) -> Iterable[Name]:
        cache, codec, now = self._source(), current_codec(), time.time()
        for place, data in self._contents(cache):
            head = codec.head(data)
            if isinstance(head, Damaged) or (head.stamp.expires_at is not None and head.stamp.expires_at <= now):
                continue
            name = Name(head.scope, head.key)
            if self._place(cache, backend_key(name)) == place:
                yield name

    def _place(self, cache: Any, key: str) -> str:
        """Where the cache puts a key, in the terms of :meth:`_contents`."""
        return str(cache.make_key(key))

    @abstractmethod
    def _contents(self, cache: Any) -> Iterable[tuple[str, bytes]]:
        """Every unexpired thing that may be ours: its place and its first bytes, at least ``HEAD_BYTES`` of them."""

    @abstractmethod
    def _raw(self, cache: Any, keys: list[str]) -> dict[str, bytes]:
        """The pickle of each unexpired value."""

    def _read(self, cache: BaseCache, key: str) -> bytes | None:
        return self._read_many(cache, [key]).get(key)

    def _read_many(self, cache: BaseCache, keys: list[str]) -> dict[str, bytes]:
        return {key: _own(raw) for key, raw in self._raw(cache, keys).items()}


def made_prefix(cache: BaseCache) -> str:
    """What all our keys begin with once the cache has made its own of them; nothing, if its KEY_FUNCTION mixes them."""
    prefix = cache.make_key(PREFIX)
    return prefix if cache.make_key(f"{PREFIX}x") == f"{prefix}x" else ""


def _own(pickle: bytes) -> bytes:
    """What is no plain bytes object is handed on as it is; it will not be an entry."""
    data = plain_bytes(pickle)
    return pickle if data is None else data
