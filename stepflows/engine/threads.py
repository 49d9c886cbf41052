"""Threads that run steps, and how an event loop gets at them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol

from asgiref.sync import sync_to_async

from stepflows.engine.calls import attempt
from stepflows.engine.operations import Outcome, Raised, Returned
from stepflows.engine.transactions import Watch

__all__ = ["Attended", "Hop", "Pool", "Threads", "hop", "in_thread", "watched"]


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


class Attended:
    """A function for a thread. Whoever waits for it may leave; then what it comes to is handed to ``finish``."""

    def __init__(self, function: Callable[[], Outcome], finish: Callable[[Outcome], None], threads: Threads) -> None:
        self._function = function
        self._finish = finish
        self._threads = threads
        self._lock = threading.Lock()
        self._begun = False
        self._left = False
        self._outcome: Outcome | None = None

    def __call__(self) -> Outcome:
        with self._lock:
            if self._left:
                return Raised(asyncio.CancelledError())
            self._begun = True
        outcome = self._function()
        if self._ends(outcome):
            self._finish(outcome)
        return outcome

    def leave(self) -> bool:
        """Wait no more. Whether the function has begun, so that its outcome is seen to."""
        with self._lock:
            self._left = True
            outcome = self._outcome
        if outcome is not None:
            # It ended, but nobody has taken it.
            threading.Thread(target=self._finish_apart, args=(outcome,), name="stepflows-late").start()
        return self._begun

    def _ends(self, outcome: Outcome) -> bool:
        """Note the outcome. Whether nobody waits for it."""
        with self._lock:
            self._outcome = outcome
            return self._left

    def _finish_apart(self, outcome: Outcome) -> None:
        try:
            self._finish(outcome)
        finally:
            self._threads.finished()


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
