"""django-redis and Django's own Redis cache: bytes on the alias's own connection, and an index of what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, cast
from weakref import WeakKeyDictionary

from django.core.cache.backends.base import BaseCache
from django_redis.cache import RedisCache
from redis import Redis, ResponseError

from stepflows.caches.backend import BATCH, reaching
from stepflows.caches.index import Index, Range, name_of, range_of
from stepflows.caches.names import Name, backend_key
from stepflows.errors import InvalidUse

__all__ = ["RedisBackend"]

_MGET: Final = 500


class RedisBackend:
    """The serializer and the compressor of the alias are never on the path, nor is its IGNORE_EXCEPTIONS.

    Everything goes to the primary: a replica that lags would let a completed step run again.
    """

    can_list: ClassVar[bool] = True

    def __init__(self, title: str, source: Callable[[], BaseCache]) -> None:
        self.title = title
        # Django keeps a cache object per thread, so it is asked for each time.
        self._source = source

    @reaching("read")
    def read(self, name: Name) -> bytes | None:
        cache = self._source()
        try:
            return cast("bytes | None", self._client(cache).get(cache.make_key(backend_key(name))))
        except ResponseError as error:
            return _foreign(error)

    @reaching("read")
    def read_many(self, names: Sequence[Name]) -> list[bytes | None]:
        cache = self._source()
        client = self._client(cache)
        found: list[bytes | None] = []
        for batch in _batches(names, _MGET):
            found += cast("list[bytes | None]", client.mget(_keys(cache, batch)))
        return found

    @reaching("write")
    def write(self, name: Name, data: bytes, *, ttl: float | None, replace: bool) -> bytes | None:
        cache = self._source()
        return self._index(cache).store(cache.make_key(backend_key(name)), name, data, ttl, replace=replace)

    @reaching("delete")
    def remove(self, names: Sequence[Name]) -> int:
        cache = self._source()
        index = self._index(cache)
        return sum(index.remove(_keys(cache, batch), batch) for batch in _batches(names, BATCH))

    @reaching("read")
    def contains(self, name: Name) -> bool:
        cache = self._source()
        return bool(self._client(cache).exists(cache.make_key(backend_key(name))))

    @reaching("read")
    def heads(self, names: Sequence[Name], size: int = 512) -> list[bytes | None]:
        cache = self._source()
        found: list[bytes | None] = []
        for batch in _batches(names, BATCH):
            with self._client(cache).pipeline(transaction=False) as pipeline:
                for key in _keys(cache, batch):
                    pipeline.getrange(key, 0, size - 1)
                found += [_head(reply) for reply in pipeline.execute(raise_on_error=False)]
        return found

    def names(self, scope: str | None = None, prefix: str = "", start: int = 0, limit: int | None = None) -> list[Name]:
        names: list[Name] = []
        ranges = self._ranges(scope, prefix)
        for bounds in ranges:
            if start and len(ranges) > 1 and (size := self._count(bounds)) <= start:
                start -= size
                continue
            for batch in self._pages(bounds, start, None if limit is None else limit - len(names)):
                names += batch
            start = 0
        return names

    def walk(self, scope: str | None = None, prefix: str = "", size: int = BATCH) -> Iterator[list[Name]]:
        for bounds in self._ranges(scope, prefix):
            yield from filter(None, self._pages(bounds, 0, None, size))

    def count(self, scope: str | None = None, prefix: str = "") -> int:
        return sum(self._count(bounds) for bounds in self._ranges(scope, prefix))

    @reaching("list keys")
    def scopes(self) -> list[str]:
        return self._index(self._source()).scopes()

    def _ranges(self, scope: str | None, prefix: str) -> list[Range]:
        """A prefix is of keys, so among all scopes it is a range in each."""
        if scope is None and prefix:
            return [range_of(each, prefix) for each in self.scopes()]
        return [range_of(scope, prefix)]

    def _pages(self, bounds: Range, start: int, limit: int | None, size: int = BATCH) -> Iterator[list[Name]]:
        low, high = bounds
        while limit is None or limit > 0:
            wanted = size if limit is None else min(size, limit)
            members, names = self._page((low, high), start, wanted)
            yield names
            if len(members) < wanted:
                return
            # From the last one on, whatever was removed or stored meanwhile; a page is filled up from there.
            low, start = members[-1] + b"\0", 0
            limit = None if limit is None else limit - len(names)

    @reaching("list keys")
    def _page(self, bounds: Range, start: int, limit: int) -> tuple[list[bytes], list[Name]]:
        cache = self._source()
        index = self._index(cache)
        members = index.page(bounds, start, limit)
        if not members:
            return [], []
        keys = _keys(cache, map(name_of, members))
        return members, [name_of(member) for member in index.living(keys, members)]

    @reaching("count keys")
    def _count(self, bounds: Range) -> int:
        return self._index(self._source()).count(bounds)

    def _index(self, cache: BaseCache) -> Index:
        return Index(self._client(cache), cache.make_key)

    def _client(self, cache: Any) -> Redis:
        if isinstance(cache, RedisCache):
            client = cast("Redis", cache.client.get_client(write=True))
        else:
            client = _kept_client(cache)
        if client.connection_pool.connection_kwargs.get("decode_responses"):
            raise InvalidUse(
                f"The {self.title} has decode_responses=True, but entries are bytes and no text. Take that option "
                "away, or use another alias for steps."
            )
        return client


# Django makes a client for each call, which takes longer than the call itself; its pool stays the same.
_clients: Final[WeakKeyDictionary[BaseCache, Redis]] = WeakKeyDictionary()


def _kept_client(cache: Any) -> Redis:
    client = _clients.get(cache)
    if client is None:
        client = _clients[cache] = cast("Redis", cache._cache.get_client(None, write=True))  # noqa: SLF001 - as it does
    return client


def _keys(cache: BaseCache, names: Iterable[Name]) -> list[str]:
    return [cache.make_key(backend_key(name)) for name in names]


def _head(reply: Any) -> bytes | None:
    return _foreign(reply) if isinstance(reply, Exception) else reply or None


def _foreign(error: Exception) -> bytes:
    """No bytes at all for a key that holds a list or a hash of somebody's; any other error is an error."""
    if "WRONGTYPE" in str(error):
        return b""
    raise error


def _batches(names: Sequence[Name], size: int) -> Iterable[Sequence[Name]]:
    return (names[start : start + size] for start in range(0, len(names), size))
