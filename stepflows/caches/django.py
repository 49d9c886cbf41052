"""Any cache of Django's framework, through the methods that all of them have."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Final, NoReturn, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import BaseCache

from stepflows.caches.backend import BATCH, Answer, Held, Hold, Survey, Write, cannot_list, reaching
from stepflows.caches.keeper import claim_in_thread
from stepflows.caches.names import Name, backend_key, is_version_of, lease_key
from stepflows.engine.cache import Busy
from stepflows.errors import CacheUnavailable

__all__ = ["BaseCacheBackend", "DummyBackend", "backend_timeout"]

_CENTURY: Final = 100 * 366 * 24 * 3600
_ATTEMPTS: Final = 3
_ABSENT: Final = object()

P = ParamSpec("P")
T = TypeVar("T")


class BaseCacheBackend:
    """Memcached, and whatever else somebody wrote.

    What such a cache gives back has been through its own serializer. Anything but ``bytes`` is foreign.

    A lease is what ``add`` puts under a key of its own, so it is one caller's if ``add`` is atomic. Such a cache may
    count whole seconds, so that a lease may stand two seconds longer than asked, never shorter. Renewing and ending
    one is to read it and then to act, which is not atomic: if it ends, and is somebody else's, between the two, it is
    that one's lease that is renewed or ended.
    """

    can_list: ClassVar[bool] = False
    _counts_whole_seconds: ClassVar[bool] = True
    #: Whether an event loop would wait.
    _blocks: ClassVar[bool] = True

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

    @reaching("take a lease")
    def claim(
        self, names: Sequence[Name], token: str, seconds: float, *, force: bool = False
    ) -> list[bytes | Answer | Held | Busy]:
        cache, own, timeout = self._source(), token.encode(), self._lease_timeout(seconds)
        answers: list[Answer | Busy] = [Answer.UNGUARDED] * len(names)
        if self._guards(cache):
            answers = [self._claim(cache, lease_key(name), own, timeout) for name in names]
        # Not sooner: whoever had a lease before may have stored the entry meanwhile.
        found = [None] * len(names) if force else self.read_many(names)
        for name, data, answer in zip(names, found, answers, strict=True):
            if data is not None and answer is Answer.GRANTED:
                self._end(cache, lease_key(name), own)
        return [answer if data is None else data for data, answer in zip(found, answers, strict=True)]

    @reaching("write")
    def write(self, writes: Sequence[Write]) -> list[bytes | Answer]:
        cache = self._source()
        holders = self._holders(cache, writes)
        answers = []
        for write in writes:
            lease, own = lease_key(write.name), write.token.encode()
            holder = holders.get(lease)
            answers.append(self._write(cache, write, own, holder))
            if own and holder == own and not isinstance(answers[-1], bytes):
                self._end(cache, lease, own)
        return answers

    @reaching("renew a lease")
    def renew(self, holds: Sequence[Hold], seconds: float) -> list[bool]:
        cache, timeout = self._source(), self._lease_timeout(seconds)
        return [self._renew(cache, lease_key(name), token.encode(), timeout) for name, token, _ in holds]

    @reaching("release a lease")
    def release(self, holds: Sequence[Hold]) -> None:
        cache = self._source()
        for name, token, _ in holds:
            self._end(cache, lease_key(name), token.encode())

    @reaching("delete")
    def remove(self, names: Sequence[Name]) -> int:
        cache = self._source()
        return sum(bool(cache.delete(backend_key(name))) for name in names)

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

    def survey(
        self, plain: str | None = None, prefix: str = "", start: int = 0, limit: int = BATCH, size: int = 512
    ) -> Survey:
        names = self.names()
        wanted = [
            name
            for name in names
            if (plain is None or is_version_of(name.scope, plain)) and name.key.startswith(prefix)
        ]
        page = wanted[start : start + limit]
        return Survey(Counter(name.scope for name in names), len(wanted), page, self.heads(page, size), True)

    def is_complete(self) -> bool:
        return True

    def rebuild(self) -> int:
        return self.count()

    async def aread(self, name: Name) -> bytes | None:
        return await self._apart(self.read, name)

    async def aread_many(self, names: Sequence[Name]) -> list[bytes | None]:
        return await self._apart(self.read_many, names)

    async def aremove(self, names: Sequence[Name]) -> int:
        return await self._apart(self.remove, names)

    async def aclaim(
        self, names: Sequence[Name], token: str, seconds: float, *, force: bool = False
    ) -> list[bytes | Answer | Held | Busy]:
        claim = partial(self.claim, names, token, seconds, force=force)
        if not self._blocks:
            return claim()
        return await claim_in_thread(claim, self, [Hold(name, token) for name in names], sensitive=True)

    async def awrite(self, writes: Sequence[Write]) -> list[bytes | Answer]:
        return await self._apart(self.write, writes)

    async def arelease(self, holds: Sequence[Hold]) -> None:
        await self._apart(self.release, holds)

    async def _apart(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """In the thread that Django keeps for this, unless the method never waits."""
        return await sync_to_async(method)(*args, **kwargs) if self._blocks else method(*args, **kwargs)

    def _lease_timeout(self, seconds: float) -> float:
        return math.ceil(seconds) + 1 if self._counts_whole_seconds else seconds

    def _claim(self, cache: BaseCache, lease: str, own: bytes, timeout: float) -> Answer | Busy:
        holder = self._take(cache, lease, own, timeout)
        if holder is None or (holder == own and self._extend(cache, lease, own, timeout)):
            return Answer.GRANTED
        return Busy(holder.decode("utf-8", "replace"))

    def _renew(self, cache: BaseCache, lease: str, own: bytes, timeout: float) -> bool:
        return self._extend(cache, lease, own, timeout) or self._take(cache, lease, own, timeout) in {None, own}

    def _take(self, cache: BaseCache, lease: str, own: bytes, timeout: float) -> bytes | None:
        """Who had the lease already; ``None`` if nobody did and so it is taken."""
        return self._first(cache, lease, partial(self._add_lease, cache, lease, own, timeout))

    def _write(self, cache: BaseCache, write: Write, own: bytes, holder: bytes | None) -> bytes | Answer:
        key, timeout = backend_key(write.name), backend_timeout(write.ttl)
        if write.yields and holder not in {None, own}:
            there = None if write.replace else self._read(cache, key)
            return Answer.LOST if there is None else there
        if write.replace:
            self._set(cache, key, write.data, timeout)
        else:
            first = self._first(cache, key, partial(self._add, cache, key, write.data, timeout))
            if first is not None:
                return first
        return Answer.LATE if own and holder != own else Answer.WRITTEN

    def _first(self, cache: BaseCache, key: str, add: Callable[[], bool]) -> bytes | None:
        """What was there before ``add`` could put something there; ``None`` if it could."""
        # What stood in the way may be gone when it is read: then there is room again.
        for _ in range(_ATTEMPTS):
            if add():
                return None
            first = self._read(cache, key)
            if first is not None:
                return first
        raise refused(self.title)

    def _cannot_list(self) -> NoReturn:
        raise cannot_list(self.title, type(self._source()).__name__)

    # What subclasses do in another way. Keys are given as ``cache.get`` takes them.

    def _read(self, cache: BaseCache, key: str) -> bytes | None:
        value = cache.get(key, _ABSENT)
        return None if value is _ABSENT else _own(value)

    def _read_many(self, cache: BaseCache, keys: list[str]) -> dict[str, bytes]:
        return {key: _own(value) for key, value in cache.get_many(keys).items()}

    def _add(self, cache: BaseCache, key: str, data: bytes, timeout: float | None) -> bool:
        return bool(cache.add(key, data, timeout))

    def _set(self, cache: BaseCache, key: str, data: bytes, timeout: float | None) -> None:
        cache.set(key, data, timeout)

    def _guards(self, cache: BaseCache) -> bool:
        """Whether others can see a lease that is taken here and now."""
        return True

    def _holders(self, cache: BaseCache, writes: Sequence[Write]) -> dict[str, bytes]:
        """Who has the leases, by their keys, of those writes to which it matters."""
        leases = dict.fromkeys(lease_key(write.name) for write in writes if write.token or write.yields)
        return self._read_many(cache, list(leases)) if leases else {}

    def _add_lease(self, cache: BaseCache, lease: str, own: bytes, timeout: float) -> bool:
        return self._add(cache, lease, own, timeout)

    def _extend(self, cache: BaseCache, lease: str, own: bytes, timeout: float) -> bool:
        """Let a lease that is this one's last that long from now; whether it was."""
        return self._read(cache, lease) == own and bool(cache.touch(lease, timeout))

    def _end(self, cache: BaseCache, lease: str, own: bytes) -> None:
        """End a lease that is this one's."""
        if self._read(cache, lease) == own:
            cache.delete(lease)


class DummyBackend(BaseCacheBackend):
    """Django's dummy cache keeps nothing, and so it can say what it holds; nobody ever has a lease of it."""

    can_list: ClassVar[bool] = True
    _blocks: ClassVar[bool] = False

    def write(self, writes: Sequence[Write]) -> list[bytes | Answer]:
        return [Answer.WRITTEN] * len(writes)

    def _guards(self, cache: BaseCache) -> bool:
        return False

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
