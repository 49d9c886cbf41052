"""The ``step`` that a body is given, in two voices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import FunctionType
from typing import Any, TypeVar, Unpack, overload

from stepflows.engine.context import RunContext
from stepflows.engine.drivers import AsyncDriver, Driver
from stepflows.engine.loops import discard
from stepflows.engine.requests import ItemKey, Key, Requests, StepOptions
from stepflows.results import Ok

__all__ = ["AsyncStep", "Step"]

T = TypeVar("T")
Item = TypeVar("Item")


class Step(Requests):
    """Given to sync bodies. ``step(label, function, key=...)`` runs the function once per key and returns its value.

    Raises what the function raises, :exc:`~stepflows.errors.StepFailed` where it returns an ``Err``, and at a wrong use
    :exc:`~stepflows.errors.InvalidUse`, :exc:`~stepflows.errors.InvalidStepKey` or
    :exc:`~stepflows.errors.StepKeyConflict`.
    """

    _awaits = False

    def __init__(self, run: RunContext, driver: Driver) -> None:
        super().__init__(run)
        self._drive = driver.drive

    def __call__(
        self, label: str, function: Callable[[], Any], *, key: Key = None, **options: Unpack[StepOptions]
    ) -> Any:
        """Run ``function()`` once per key."""
        try:
            ahead = self._run.ahead and self._ahead(label, function, key, options)
            result = ahead or self._drive(self._one(label, function, key, options))
            return result.value if isinstance(result, Ok) else self._value(result, label, key)
        finally:
            if type(function) is not FunctionType:
                discard(function)

    run = __call__

    def all(
        self,
        label: str,
        functions: Mapping[str, Callable[[], Any]],
        *,
        key: Key = None,
        limit: int | None = None,
        **options: Unpack[StepOptions],
    ) -> dict[str, Any]:
        """Run the functions at the same time, in at most ``limit`` threads; a dict in the order given."""
        try:
            steps = self._all(label, functions, key, limit, options)
            return self._value(self._drive(steps), label, key)  # type: ignore[no-any-return]
        finally:
            _discard_all(functions)

    def map(
        self,
        label: str,
        items: Iterable[Item],
        function: Callable[[Item], T],
        *,
        key: ItemKey[Item] = None,
        limit: int | None = None,
        **options: Unpack[StepOptions],
    ) -> list[T]:
        """``function(item)`` for each item at the same time; a list in order. A callable ``key`` caches each item."""
        steps = self._map(label, items, function, key, limit, options)
        return self._value(self._drive(steps), label, key)  # type: ignore[no-any-return]


class AsyncStep(Requests):
    """Given to async bodies. Like :class:`Step`, awaited; functions may be async, and awaitables are accepted."""

    _awaits = True

    def __init__(self, run: RunContext, driver: AsyncDriver) -> None:
        super().__init__(run)
        self._drive = driver.drive

    async def __call__(
        self,
        label: str,
        function: Callable[[], Any] | Awaitable[Any],
        *,
        key: Key = None,
        **options: Unpack[StepOptions],
    ) -> Any:
        """Run ``function()`` once per key. An awaitable in its place is closed on a hit, without having started."""
        try:
            ahead = self._run.ahead and self._ahead(label, function, key, options)
            return self._value(ahead or await self._drive(self._one(label, function, key, options)), label, key)
        finally:
            discard(function)

    run = __call__

    async def all(
        self,
        label: str,
        functions: Mapping[str, Callable[[], Any] | Awaitable[Any]],
        *,
        key: Key = None,
        limit: int | None = None,
        **options: Unpack[StepOptions],
    ) -> dict[str, Any]:
        """Run the functions at the same time, at most ``limit`` of them; a dict in the order given."""
        try:
            steps = self._all(label, functions, key, limit, options)
            return self._value(await self._drive(steps), label, key)  # type: ignore[no-any-return]
        finally:
            _discard_all(functions)

    @overload
    async def map(
        self,
        label: str,
        items: Iterable[Item],
        function: Callable[[Item], Awaitable[T]],
        *,
        key: ItemKey[Item] = None,
        limit: int | None = None,
        **options: Unpack[StepOptions],
    ) -> list[T]: ...

    @overload
    async def map(
        self,
        label: str,
        items: Iterable[Item],
        function: Callable[[Item], T],
        *,
        key: ItemKey[Item] = None,
        limit: int | None = None,
        **options: Unpack[StepOptions],
    ) -> list[T]: ...

    async def map(
        self,
        label: str,
        items: Iterable[Item],
        function: Callable[[Item], Any],
        *,
        key: ItemKey[Item] = None,
        limit: int | None = None,
        **options: Unpack[StepOptions],
    ) -> list[Any]:
        """``function(item)`` for each item at the same time; a list in order. A callable ``key`` caches each item."""
        steps = self._map(label, items, function, key, limit, options)
        return self._value(await self._drive(steps), label, key)  # type: ignore[no-any-return]


def _discard_all(functions: Any) -> None:
    for function in functions.values() if isinstance(functions, Mapping) else ():
        discard(function)
