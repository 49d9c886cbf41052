"""The event loop that code belongs to, also where it runs in a thread, and waiting for a coroutine from a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final

from asgiref.sync import AsyncToSync, SyncToAsync, async_to_sync

__all__ = ["discard", "is_on_a_loop", "is_under_a_thread", "running_loop", "wait_for"]

#: Set by the asynchronous driver before it hands work to a thread.
running_loop: Final[ContextVar[asyncio.AbstractEventLoop | None]] = ContextVar("stepflows_running_loop", default=None)


def is_on_a_loop() -> bool:
    """Whether this thread is running an event loop, which must not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def is_under_a_thread() -> bool:
    """Whether a thread waits for this loop in ``async_to_sync``, perhaps in the middle of a transaction.

    Elsewhere no transaction is open between two functions: Django's ``atomic`` does not await.
    """
    if getattr(AsyncToSync.executors, "current", None) is not None:
        return True
    return asyncio.get_running_loop() in AsyncToSync.loop_thread_executors


def discard(awaitable: Any) -> None:
    """Close a coroutine, or cancel a future, that nobody will wait for. What has ended is left as it is."""
    if isinstance(awaitable, Coroutine):
        awaitable.close()
    elif isinstance(awaitable, asyncio.Future):
        awaitable.cancel()


def wait_for(awaitable: Awaitable[Any]) -> Any:
    """Wait in this thread. A time limit or Ctrl-C that strikes it ends the work on the loop as well."""
    begun: list[asyncio.Task[Any]] = []
    outer = getattr(SyncToAsync.threadlocal, "main_event_loop", None)

    async def begin() -> Any:
        task = asyncio.current_task()
        if task is not None:
            begun.append(task)
        return await awaitable

    try:
        return async_to_sync(begin)()
    except BaseException:
        for task in begun:
            with suppress(RuntimeError):  # its loop is closed, so it has ended
                task.get_loop().call_soon_threadsafe(task.cancel)
        if not begun:
            discard(awaitable)
        raise
    finally:
        # asgiref leaves the loop there for which this thread has called something. An interrupted one is not closed
        # yet, and the next async_to_sync would hand it work that it never gets to.
        SyncToAsync.threadlocal.main_event_loop = outer
