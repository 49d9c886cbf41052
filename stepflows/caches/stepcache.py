"""The Map of steps that is kept in one of Django's caches."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import BaseCache

from stepflows import conf
from stepflows.caches.aliases import alias_of, backend_for, backend_of, is_django_cache
from stepflows.caches.backend import Backend, Hold
from stepflows.caches.exchange import adrive, all_decoded, claiming, decoded, drive, frozen, holds, storing
from stepflows.caches.keeper import HeldLease, keeper
from stepflows.caches.names import Name, scope_of
from stepflows.engine.cache import Claimed, Damaged, Entry, Lease, Lookup, Standing
from stepflows.engine.keys import check_key, check_name, check_version, is_plain, new_token
from stepflows.engine.policy import Ttl, seconds
from stepflows.errors import InvalidUse, NotCacheable
from stepflows.results import Err, Ok, Result, Stamp, stamped

__all__ = ["StepCache"]

logger = logging.getLogger("stepflows")


@dataclass(frozen=True)
class StepCache:
    """The results of steps in one of Django's caches, under one namespace.

    ``alias`` names one of ``CACHES`` (or is such a cache object); without it the alias is ``STEPFLOWS["CACHE"]``.
    ``namespace`` and ``version`` are the scope: a workflow's own name and version, unless they are spelt out here,
    which is how two workflows share their steps. Methods with an ``a`` in front are for async code.

    All methods raise :exc:`~stepflows.errors.CacheUnavailable` when the cache cannot be reached and
    :exc:`~stepflows.errors.InvalidUse` when there is no such alias; those that look for keys raise
    :exc:`~stepflows.errors.CannotList` when the cache cannot tell which it holds.
    """

    alias: str | BaseCache | None = None
    namespace: str = ""
    version: int | str | None = field(default=None, kw_only=True)
    #: The scope as the cache's names have it.
    scope: str = field(init=False, repr=False, compare=False)
    #: What serves an object that is no alias.
    _own: Backend | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        alias: Any = alias_of(self.alias) if is_django_cache(self.alias) else self.alias
        if not (alias is None or isinstance(alias, str | BaseCache)):
            raise InvalidUse(
                f"StepCache: alias is {alias!r}; give an alias of CACHES, one of Django's cache objects, or None."
            )
        if alias == "":
            raise InvalidUse("StepCache: the alias is empty; give one of CACHES, or None for that of the settings.")
        if self.namespace != "":
            check_name(self.namespace, "StepCache namespace")
        if self.version is not None:
            check_version(self.version, "StepCache")
        object.__setattr__(self, "alias", alias)
        object.__setattr__(self, "_own", backend_of(alias) if isinstance(alias, BaseCache) else None)
        object.__setattr__(self, "scope", scope_of(self.namespace, self.version))

    @property
    def backend(self) -> Backend:
        """What serves the alias."""
        if self._own is not None:
            return self._own
        alias = cast("str | None", self.alias)
        return backend_for(alias or conf.settings().CACHE)

    def bound(self, namespace: str, version: int | str | None = None) -> StepCache:
        """The same with the namespace and version of a workflow, where none is spelt out."""
        return replace(
            self,
            namespace=self.namespace or namespace,
            version=version if self.version is None else self.version,
        )

    # What a workflow asks.

    def load(self, key: str) -> Lookup:
        """What is stored under the key: a result, ``MISSING`` or ``Damaged``."""
        return decoded(self.scope, key, self.backend.read(Name(self.scope, key)))

    def load_many(self, keys: Sequence[str]) -> list[Lookup]:
        """What is stored under each key, in the order asked."""
        return all_decoded(self.scope, keys, self.backend.read_many([Name(self.scope, key) for key in keys]))

    def claim(self, keys: Sequence[str], seconds: float, *, refresh: bool = False) -> list[Claimed]:
        """For each key the result that is stored by now, or else a lease for that long, or else who has it."""
        backend, token = self.backend, new_token()
        try:
            return drive(backend, claiming(self.scope, backend, token, keys, seconds, refresh=refresh))
        except BaseException:
            # Some may have been granted before it failed.
            keeper.abandon(backend, [Hold(Name(self.scope, key), token) for key in keys])
            raise

    def store(self, entries: Sequence[Entry]) -> list[Standing]:
        """Store results and say what now stands there: the first stored wins, unless it is to be replaced."""
        with keeper.paused([entry.lease for entry in entries if entry.lease]):
            standing = drive(self.backend, storing(self.scope, entries))
        keeper.watch(_unstored(entries, standing))
        return standing

    def release(self, leases: Sequence[Lease]) -> None:
        """End leases whose steps are not stored."""
        keeper.forget(leases)
        self.backend.release(holds(leases))

    def freeze(self, entry: Entry) -> Entry | NotCacheable:
        """The entry with a copy of its value; or why that cannot be kept."""
        return frozen(self.scope, entry)

    def abandon(self, leases: Sequence[Lease]) -> None:
        """The same soon, in another thread."""
        keeper.forget(leases)
        keeper.abandon(self.backend, holds(leases))

    # The Map.

    def get(self, key: str) -> Result[Any] | None:
        """The result under the key, or ``None`` when there is none. A damaged entry is logged and counts as none."""
        return self._usable(key, self.load(self._checked(key)))

    def set(self, key: str, result: Result[Any], ttl: Ttl = None) -> None:
        """Store an ``Ok`` or ``Err`` in place of what is there.

        ``ttl`` is seconds or a ``timedelta``; 0 is not at all. Without it the entry stays for ever, except that a
        result which came out of a cache keeps the end it had.
        Raises :exc:`~stepflows.errors.NotCacheable` when the result cannot be kept as it is.
        """
        if not isinstance(result, Ok | Err):
            raise InvalidUse(
                f"{self!r}.set({key!r}): the result is a {type(result).__name__}; give Ok(value) or Err(error)."
            )
        now = time.time()
        stamp = result.stamp or Stamp(stored_at=now)
        span = seconds(ttl, f"{self!r}.set({key!r})")
        if span is not None:
            stamp = stamp._replace(expires_at=now + span)
        [standing] = self.store([Entry(self._checked(key), stamped(result, stamp), replace=True)])
        if isinstance(standing, NotCacheable):
            raise standing

    def has(self, key: str) -> bool:
        """Whether :meth:`get` would give a result."""
        return isinstance(self.load(self._checked(key)), Ok | Err)

    def delete(self, key: str) -> bool:
        """Remove the entry and say whether there was one."""
        return self.backend.remove([Name(self.scope, self._checked(key))]) > 0

    def clear(self, prefix: str = "") -> int:
        """Remove all entries of this scope, or those whose key has the prefix, and return how many there were."""
        backend = self.backend
        return sum(backend.remove(names) for names in backend.walk(self.scope, self._prefix(prefix)))

    def keys(self, prefix: str = "") -> list[str]:
        """The keys of this scope that have the prefix, sorted."""
        return [name.key for name in self.backend.names(self.scope, self._prefix(prefix))]

    def __len__(self) -> int:
        return self.backend.count(self.scope)

    def __bool__(self) -> bool:
        # A cache is a cache even when it is empty, and to find that out would ask the server.
        return True

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.has(key)

    def __iter__(self) -> Iterator[str]:
        return (name.key for names in self.backend.walk(self.scope) for name in names)

    def _usable(self, key: str, found: Lookup) -> Result[Any] | None:
        if isinstance(found, Damaged):
            logger.warning("%r holds a damaged entry under %r, which counts as missing: %s", self, key, found.reason)
        return found if isinstance(found, Ok | Err) else None

    def _checked(self, key: Any) -> str:
        return key if is_plain(key) else check_key(key, repr(self))

    def _prefix(self, prefix: Any) -> str:
        if not isinstance(prefix, str):
            raise InvalidUse(f"{self!r}: the prefix is {prefix!r}; it must be a str.")
        return prefix

    # The same for async code.

    async def aload(self, key: str) -> Lookup:
        return decoded(self.scope, key, await self.backend.aread(Name(self.scope, key)))

    async def aload_many(self, keys: Sequence[str]) -> list[Lookup]:
        return all_decoded(self.scope, keys, await self.backend.aread_many([Name(self.scope, key) for key in keys]))

    async def aclaim(self, keys: Sequence[str], seconds: float, *, refresh: bool = False) -> list[Claimed]:
        backend, token = self.backend, new_token()
        try:
            return await adrive(backend, claiming(self.scope, backend, token, keys, seconds, refresh=refresh))
        except BaseException:
            keeper.abandon(backend, [Hold(Name(self.scope, key), token) for key in keys])
            raise

    async def astore(self, entries: Sequence[Entry]) -> list[Standing]:
        with keeper.paused([entry.lease for entry in entries if entry.lease]):
            standing = await adrive(self.backend, storing(self.scope, entries))
        keeper.watch(_unstored(entries, standing))
        return standing

    async def arelease(self, leases: Sequence[Lease]) -> None:
        keeper.forget(leases)
        await self.backend.arelease(holds(leases))

    async def aget(self, key: str) -> Result[Any] | None:
        return self._usable(key, await self.aload(self._checked(key)))

    async def aset(self, key: str, result: Result[Any], ttl: Ttl = None) -> None:
        await sync_to_async(self.set)(key, result, ttl)

    async def ahas(self, key: str) -> bool:
        return isinstance(await self.aload(self._checked(key)), Ok | Err)

    async def adelete(self, key: str) -> bool:
        return await sync_to_async(self.delete)(key)

    async def aclear(self, prefix: str = "") -> int:
        return await sync_to_async(self.clear)(prefix)

    async def akeys(self, prefix: str = "") -> list[str]:
        return await sync_to_async(self.keys)(prefix)

    async def alen(self) -> int:
        return await sync_to_async(self.__len__)()

    async def __aiter__(self) -> AsyncIterator[str]:
        for key in await self.akeys():
            yield key


def _unstored(entries: Sequence[Entry], standing: Sequence[Standing]) -> list[HeldLease]:
    """The leases that go on, because it is not the cache's affair what becomes of their steps."""
    return [
        entry.lease
        for entry, stands in zip(entries, standing, strict=True)
        if isinstance(stands, NotCacheable) and isinstance(entry.lease, HeldLease)
    ]
