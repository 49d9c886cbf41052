"""django-redis and Django's own Redis cache: bytes on the alias's own connection, and an index of what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, NoReturn, TypeVar

from django.core.cache.backends.base import BaseCache
from redis import ResponseError

from stepflows.caches import scripts
from stepflows.caches.backend import BATCH, PASSING, Answer, Held, Hold, Survey, Write, unavailable
from stepflows.caches.connection import Connection, Flow
from stepflows.caches.index import NAMES, Index, Range, batches, milliseconds, range_of
from stepflows.caches.keeper import claim_in_thread
from stepflows.caches.names import Name, backend_key, lease_key
from stepflows.engine.cache import Busy

__all__ = ["RedisBackend"]

T = TypeVar("T")


class RedisBackend:
    """The serializer and the compressor of the alias are never on the path, nor is its IGNORE_EXCEPTIONS.

    Everything goes to the primary: a replica that lags would let a completed step run again.
    """

    can_list: ClassVar[bool] = True

    def __init__(self, title: str, source: Callable[[], BaseCache]) -> None:
        self.title = title
        self._source = source

    @cached_property
    def _connection(self) -> Connection:
        """One for all threads, and one cache object, which is asked to make every key."""
        try:
            return Connection(self.title, self._source())
        except Exception as error:
            self._fail("connect", error)

    @cached_property
    def _index(self) -> Index:
        return Index(self._connection.cache)

    # What a workflow asks.

    def read(self, name: Name) -> bytes | None:
        # The one that is asked most, and so the one that is spelt out.
        try:
            connection = self._connection
            data: bytes | None = connection.get(connection.make_key(backend_key(name)))
        except ResponseError as error:
            return self._foreign(error)
        except Exception as error:
            self._fail("read", error)
        return data

    async def aread(self, name: Name) -> bytes | None:
        connection = self._connection
        if not connection.is_for_loops:
            return await self._arun("read", self._read(name))
        try:
            return await connection.aget(connection.make_key(backend_key(name)))
        except ResponseError as error:
            return self._foreign(error)
        except Exception as error:
            self._fail("read", error)

    def read_many(self, names: Sequence[Name]) -> list[bytes | None]:
        return self._run("read", self._read_many(names))

    async def aread_many(self, names: Sequence[Name]) -> list[bytes | None]:
        return await self._arun("read", self._read_many(names))

    def claim(
        self, names: Sequence[Name], token: str, seconds: float, *, force: bool = False
    ) -> list[bytes | Answer | Held | Busy]:
        return self._run("claim", self._claim(names, token, seconds, force=force))

    async def aclaim(
        self, names: Sequence[Name], token: str, seconds: float, *, force: bool = False
    ) -> list[bytes | Answer | Held | Busy]:
        if self._connection.is_for_loops:
            return await self._arun("claim", self._claim(names, token, seconds, force=force))
        claim = partial(self.claim, names, token, seconds, force=force)
        holds = [Hold(name, token) for name in names]
        return await claim_in_thread(claim, self, holds, sensitive=not self._connection.has_stock_keys)

    def write(self, writes: Sequence[Write]) -> list[bytes | Answer]:
        return self._run("write", self._index.write(writes))

    async def awrite(self, writes: Sequence[Write]) -> list[bytes | Answer]:
        return await self._arun("write", self._index.write(writes))

    def renew(self, holds: Sequence[Hold], seconds: float) -> list[bool]:
        return self._run("renew leases", self._renew(holds, seconds))

    def release(self, holds: Sequence[Hold]) -> None:
        self._run("release leases", self._release(holds))

    async def arelease(self, holds: Sequence[Hold]) -> None:
        await self._arun("release leases", self._release(holds))

    # What an operator asks.

    def remove(self, names: Sequence[Name]) -> int:
        return self._run("delete", self._index.remove(names))

    async def aremove(self, names: Sequence[Name]) -> int:
        return await self._arun("delete", self._index.remove(names))

    def heads(self, names: Sequence[Name], size: int = 512) -> list[bytes | None]:
        return self._run("read", self._heads(names, size))

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

    def scopes(self) -> list[str]:
        return self._run("list keys", self._index.scopes())

    def survey(
        self, plain: str | None = None, prefix: str = "", start: int = 0, limit: int = BATCH, size: int = 512
    ) -> Survey:
        while (found := self._survey(plain, prefix, start, limit, size)) is None:
            # Where some have gone, many may have: far more than a page is looked through.
            while self._survey(plain, prefix, start, BATCH, 1) is None:
                pass
        return found

    def is_complete(self) -> bool:
        return self._run("list keys", self._index.is_complete())

    def rebuild(self) -> int:
        return self._run("list keys", self._index.rebuild())

    # How it is done, in either voice.

    def _run(self, purpose: str, flow: Flow[T]) -> T:
        try:
            return self._connection.run(flow)
        except Exception as error:
            self._fail(purpose, error)

    async def _arun(self, purpose: str, flow: Flow[T]) -> T:
        try:
            return await self._connection.arun(flow)
        except Exception as error:
            self._fail(purpose, error)

    def _fail(self, purpose: str, error: Exception) -> NoReturn:
        if isinstance(error, PASSING):
            raise error
        raise unavailable(self.title, purpose, error) from error

    def _foreign(self, error: ResponseError) -> bytes:
        """No bytes at all for a key that holds a list or a hash of somebody's; any other error is an error."""
        if "WRONGTYPE" not in str(error):
            self._fail("read", error)
        return b""

    def _read(self, name: Name) -> Flow[bytes | None]:
        try:
            data: bytes | None = yield ("GET", self._connection.make_key(backend_key(name)))
        except ResponseError as error:
            return self._foreign(error)
        return data

    def _read_many(self, names: Sequence[Name]) -> Flow[list[bytes | None]]:
        found: list[bytes | None] = []
        for batch in batches(names, NAMES):
            found += yield ("MGET", *self._keys(batch))
        return found

    def _claim(
        self, names: Sequence[Name], token: str, seconds: float, *, force: bool
    ) -> Flow[list[bytes | Answer | Held | Busy]]:
        make_key = self._connection.make_key
        answers: list[bytes | Answer | Held | Busy] = []
        for batch in batches(names, NAMES):
            places = [make_key(key(name)) for name in batch for key in (backend_key, lease_key)]
            arguments: list[int | str] = [token, milliseconds(seconds), int(force)]
            replies = yield from scripts.CLAIM(places, arguments)
            # With a KEY_FUNCTION of the project's own, the thread that renews might make another key.
            own = places[1::2] if not self._connection.has_stock_keys else [""] * len(batch)
            answers += [_claimed(reply, place) for reply, place in zip(replies, own, strict=True)]
        return answers

    def _renew(self, holds: Sequence[Hold], seconds: float) -> Flow[list[bool]]:
        held: list[bool] = []
        for batch in batches(holds, NAMES):
            arguments: list[int | str] = [milliseconds(seconds), *(hold.token for hold in batch)]
            held += map(bool, (yield from scripts.RENEW(self._leases(batch), arguments)))
        return held

    def _release(self, holds: Sequence[Hold]) -> Flow[None]:
        for batch in batches(holds, NAMES):
            yield from scripts.RELEASE(self._leases(batch), [hold.token for hold in batch])

    def _heads(self, names: Sequence[Name], size: int) -> Flow[list[bytes | None]]:
        found: list[bytes | None] = []
        for batch in batches(names, BATCH):
            heads = yield from scripts.HEADS(self._keys(batch), [size - 1])
            found += [b"" if isinstance(head, list) else head or None for head in heads]
        return found

    def _ranges(self, scope: str | None, prefix: str) -> list[Range]:
        """A prefix is of keys, so among all scopes it is a range in each."""
        if scope is None and prefix:
            return [range_of(each, prefix) for each in self.scopes()]
        return [range_of(scope, prefix)]

    def _pages(self, bounds: Range, start: int, limit: int | None, size: int = BATCH) -> Iterator[list[Name]]:
        low: bytes | None
        low, high = bounds
        while low is not None and (limit is None or limit > 0):
            wanted = size if limit is None else min(size, limit)
            names, low = self._run("list keys", self._index.page((low, high), start, wanted))
            yield names
            # A page of which some have gone is filled up from there.
            start, limit = 0, None if limit is None else limit - len(names)

    def _survey(self, plain: str | None, prefix: str, start: int, limit: int, size: int) -> Survey | None:
        return self._run("list keys", self._index.survey(plain, prefix, start, limit, size))

    def _count(self, bounds: Range) -> int:
        return self._run("count keys", self._index.count(bounds))

    def _keys(self, names: Iterable[Name]) -> list[str]:
        make_key = self._connection.make_key
        return [make_key(backend_key(name)) for name in names]

    def _leases(self, holds: Iterable[Hold]) -> list[str]:
        return [hold.place or self._connection.make_key(lease_key(hold.name)) for hold in holds]


def _claimed(reply: Any, place: str) -> bytes | Answer | Held | Busy:
    if isinstance(reply, list):
        return Busy(reply[0].decode("utf-8", "replace"))
    if isinstance(reply, bytes):
        return reply
    return Held(place) if place else Answer.GRANTED
