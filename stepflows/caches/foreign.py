"""A Map-like of the user's own, sync or async, as a cache."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from asgiref.sync import sync_to_async

from stepflows.caches import portal
from stepflows.caches.backend import PASSING, unavailable
from stepflows.caches.mapping import expired, judged, remaining
from stepflows.engine.cache import MISSING, Damaged, Lookup
from stepflows.engine.calls import is_async
from stepflows.errors import DamagedEntry, InvalidUse
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

    def store(self, key: str, result: Result[Any], *, replace: bool = False) -> Result[Any]:
        return self._drive(self._storing(key, result, replace=replace))

    async def aload(self, key: str) -> Lookup:
        return await self._adrive(self._loading(key))

    async def aload_many(self, keys: Sequence[str]) -> list[Lookup]:
        return [await self.aload(key) for key in keys]

    async def astore(self, key: str, result: Result[Any], *, replace: bool = False) -> Result[Any]:
        return await self._adrive(self._storing(key, result, replace=replace))

    # What is asked of the object, and in which order.

    def _loading(self, key: str) -> Calls[Lookup]:
        found = yield _Call("get", (key,), {})
        if isinstance(found, Damaged):
            return found
        return MISSING if found is None else judged(found)

    def _storing(self, key: str, result: Result[Any], *, replace: bool) -> Calls[Result[Any]]:
        if expired(result):
            if replace:
                yield _Call("delete", (key,), {})
            return result
        if not replace:
            standing = yield from self._loading(key)
            if isinstance(standing, Ok | Err):
                return standing
        yield _Call("set", (key, result), {"ttl": remaining(result)} if self._takes_ttl else {})
        return result

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

    def _judged(self, call: _Call, error: Exception) -> Damaged:
        if isinstance(error, DamagedEntry):
            return Damaged(str(error))
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
