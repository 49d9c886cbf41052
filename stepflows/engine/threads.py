"""Threads that run steps, and how an event loop gets at them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol

from asgiref.sync import sync_to_async

from stepflows.engine.calls import attempt
from stepflows.engine.operations import Outcome, Returned
from stepflows.engine.transactions import Watch

__all__ = ["Hop", "Pool", "Threads", "hop", "in_thread", "watched"]


class Threads:
    """What a project wants done about threads that run steps; the default is nothing."""

    def max_workers(self) -> int:
        """How many threads ``step.all`` and ``step.map`` use at most."""
        return 8

    def pinned(self) -> bool:
        """Whether steps have to stay in this thread, because others would not see what it has under way."""
        return False

    def watch(self) -> Watch | None:
        """Begin to watch for queries in the transactions that are open in this thread, if any is."""
        return None

    def finished(self) -> None:
        """Called in a thread after the last step that it ran."""


def watched(function: Callable[[], Outcome], threads: Threads) -> Outcome:
    """Call it in this thread, and note in its outcome which open transaction it used."""
    watch = threads.watch()
    if watch is None:
        return function()
    try:
        with watch:
            outcome = function()
    finally:
        transaction = watch.close()
    return outcome._replace(transaction=transaction)


class Hop(Protocol):
    """How an event loop has a function called in a thread."""

    async def __call__(self, function: Callable[[], Any], /) -> Outcome: ...


async def hop(function: Callable[[], Any]) -> Outcome:
    """In the thread that Django keeps for this."""
    return await sync_to_async(attempt, thread_sensitive=True)(function)


async def in_thread(function: Callable[[], Any]) -> Any:
    """What it returns, or raises, in that thread."""
    outcome = await hop(function)
    if isinstance(outcome, Returned):
        return outcome.value
    raise outcome.error


class Pool:
    """Has functions called in threads of a pool, or all in the usual one if they must not leave it."""

    def __init__(self, executor: Executor, threads: Threads, usual: Hop) -> None:
        self._executor = executor
        self._threads = threads
        self._usual = usual
        self._pinned: asyncio.Future[Outcome] | None = None

    async def is_pinned(self) -> bool:
        """Whether functions have to stay in the usual thread; asked there, once."""
        if self._pinned is None:
            self._pinned = asyncio.ensure_future(self._usual(self._threads.pinned))
        return await self._pinned == Returned(True)

    async def __call__(self, function: Callable[[], Any], /) -> Outcome:
        if await self.is_pinned():
            return await self._usual(function)
        call = partial(copy_context().run, self._call, function)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _call(self, function: Callable[[], Any]) -> Outcome:
        try:
            return attempt(function)
        finally:
            self._threads.finished()
