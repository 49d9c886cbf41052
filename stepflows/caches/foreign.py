"""A Map-like of the user's own, sync or async, as a cache."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from asgiref.sync import sync_to_async

from stepflows.caches import local, portal
from stepflows.caches.backend import PASSING, cannot_list, unavailable
from stepflows.caches.mapping import expired, judged, remaining
from stepflows.engine.cache import MISSING, Busy, Claimed, Damaged, Entry, Lease, Lookup, Standing
from stepflows.engine.calls import is_async
from stepflows.errors import DamagedEntry, InvalidUse, NotCacheable
from stepflows.results import Err, Ok, Result

__all__ = ["METHODS", "ForeignCache"]

METHODS: Final = ("get", "set", "has", "delete")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of one of the object's methods."""

    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


Calls: TypeAlias = Generator[_Call, Any, T]


class ForeignCache:
    """Hands :class:`~stepflows.results.Result` objects to the object and takes them back; keys are not scoped.

    What its methods raise is CacheUnavailable, but for DamagedEntry (out of ``stepflows.loads``), which counts as
    missing, and other errors of stepflows, which pass. If ``set`` takes a ``ttl``, it is given the seconds that the
    entry is good for, or ``None``; if not, the result knows all the same.
    """

    def __init__(self, given: Any) -> None:
        missing = [f"{name}()" for name in METHODS if not callable(getattr(given, name, None))]
        if missing:
            raise InvalidUse(
                f"A {type(given).__name__} cannot be a cache: it has no {' and no '.join(missing)}. "
                f"A cache of your own has the methods {', '.join(METHODS)}, sync or async."
            )
        #: What the workflow was given.
        self.given = given
        self.title = f"cache {type(given).__name__}"
        self._takes_ttl = _takes_ttl(given.set)

    def __repr__(self) -> str:
        return f"ForeignCache({type(self.given).__name__})"

    def load(self, key: str) -> Lookup:
        return self._drive(self._loading(key))

    def load_many(self, keys: Sequence[str]) -> list[Lookup]:
        return [self.load(key) for key in keys]

    def keys(self, prefix: str = "") -> list[str]:
        raise cannot_list(self.title, "cache of your own")

    def claim(self, keys: Sequence[str], seconds: float, *, refresh: bool = False) -> list[Claimed]:
        with local.taking(self.given, keys) as taken:
            return self._drive(self._claiming(keys, taken, refresh=refresh))

    def store(self, entries: Sequence[Entry]) -> list[Standing]:
        return self._drive(self._storing(entries))

    def release(self, leases: Sequence[Lease]) -> None:
        local.give_back(leases)

    def freeze(self, entry: Entry) -> Entry:
        return entry

    def abandon(self, leases: Sequence[Lease]) -> None:
        self.release(leases)

    def delete(self, key: str) -> bool:
        return bool(self._drive(self._deleting(key)))

    async def aload(self, key: str) -> Lookup:
        return await self._adrive(self._loading(key))

    async def aload_many(self, keys: Sequence[str]) -> list[Lookup]:
        return [await self.aload(key) for key in keys]

    async def akeys(self, prefix: str = "") -> list[str]:
        return self.keys(prefix)

    async def aclaim(self, keys: Sequence[str], seconds: float, *, refresh: bool = False) -> list[Claimed]:
        with local.taking(self.given, keys) as taken:
            return await self._adrive(self._claiming(keys, taken, refresh=refresh))

    async def astore(self, entries: Sequence[Entry]) -> list[Standing]:
        return await self._adrive(self._storing(entries))

    async def arelease(self, leases: Sequence[Lease]) -> None:
        self.release(leases)

    # What is asked of the object, and in which order.

    def _loading(self, key: str) -> Calls[Lookup]:
        found = yield _Call("get", (key,), {})
        if isinstance(found, Damaged):
            return found
        return MISSING if found is None else judged(found)

    def _deleting(self, key: str) -> Calls[Any]:
        return (yield _Call("delete", (key,), {}))

    def _claiming(self, keys: Sequence[str], taken: list[Lease | Busy], *, refresh: bool) -> Calls[list[Claimed]]:
        claimed: list[Claimed] = list(taken)
        for position, lease in enumerate([] if refresh else taken):
            found = yield from self._loading(keys[position])
            if isinstance(found, Ok | Err):
                claimed[position] = found
                self.release([lease] if isinstance(lease, Lease) else [])
        return claimed

    def _storing(self, entries: Sequence[Entry]) -> Calls[list[Standing]]:
        standing: list[Standing] = []
        for key, result, replace, lease in entries:
            standing.append((yield from self._storing_one(key, result, replace=replace)))
            self.release([lease] if lease else [])
        return standing

    def _storing_one(self, key: str, result: Result[Any], *, replace: bool) -> Calls[Standing]:
        if expired(result):
            if replace:
                yield _Call("delete", (key,), {})
            return result
        if not replace:
            standing = yield from self._loading(key)
            if isinstance(standing, Ok | Err):
                return standing
        refused = yield _Call("set", (key, result), {"ttl": remaining(result)} if self._takes_ttl else {})
        return refused if isinstance(refused, NotCacheable) else result

    # Who calls it.

    def _drive(self, calls: Calls[T]) -> T:
        answer = None
        while True:
            try:
                call = calls.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # a generator's StopIteration has no type
            answer = self._answer(call)

    async def _adrive(self, calls: Calls[T]) -> T:
        answer = None
        while True:
            try:
                call = calls.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # a generator's StopIteration has no type
            answer = await self._aanswer(call)

    def _answer(self, call: _Call) -> Any:
        method = getattr(self.given, call.method)
        if is_async(method):
            return portal.run(lambda: self._awaited(call, lambda: method(*call.arguments, **call.options)))
        answer = self._called(call, method)
        return portal.run(lambda: self._awaited(call, lambda: answer)) if inspect.isawaitable(answer) else answer

    async def _aanswer(self, call: _Call) -> Any:
        method = getattr(self.given, call.method)
        if is_async(method):
            return await self._awaited(call, lambda: method(*call.arguments, **call.options))
        answer = await sync_to_async(self._called)(call, method)
        return await self._awaited(call, lambda: answer) if inspect.isawaitable(answer) else answer

    def _called(self, call: _Call, method: Callable[..., Any]) -> Any:
        # In the thread itself: a StopIteration must not get out of it.
        try:
            return method(*call.arguments, **call.options)
        except Exception as error:
            return self._judged(call, error)

    async def _awaited(self, call: _Call, begin: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await begin()
        except Exception as error:
            return self._judged(call, error)

    def _judged(self, call: _Call, error: Exception) -> Damaged | NotCacheable:
        if isinstance(error, DamagedEntry):
            return Damaged(str(error))
        if isinstance(error, NotCacheable) and call.method == "set":
            return error
        if isinstance(error, PASSING):
            raise error
        raise unavailable(self.title, call.method, error) from error


def _takes_ttl(method: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        # Some objects have no signature to look at.
        return False
    return any(each.name == "ttl" or each.kind is each.VAR_KEYWORD for each in parameters)
