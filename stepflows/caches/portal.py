"""Where sync code runs the methods of an async cache: always on one event loop, so that its connections stay good."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext, async_to_sync

from stepflows.engine.loops import is_on_a_loop, running_loop

__all__ = ["run"]

T = TypeVar("T")


class _Portal:
    """An event loop in a thread of this process, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inherited: list[asyncio.AbstractEventLoop] = []

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="stepflows-portal", daemon=True).start()
            return self._loop

    def forked(self) -> None:
        """In a forked child there is a loop, but no thread that runs it."""
        self._lock = threading.Lock()
        if self._loop is not None:
            # Kept, because to close it here would take the parent's loop's own file descriptors from its poll.
            self._inherited.append(self._loop)
            self._loop = None


_portal: Final = _Portal()
os.register_at_fork(after_in_child=_portal.forked)


def run(call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Wait in this thread for what the function's coroutine comes to.

    It runs on the loop of the workflow's own ``arun``, if this thread works for one, or else on the process's portal.
    """
    loop = running_loop.get()
    if loop is None or not loop.is_running() or is_on_a_loop():
        return _wait(_apart(call), _portal.loop())
    if getattr(SyncToAsync.threadlocal, "main_event_loop", None) is loop:
        # Lets this thread serve the coroutine's own sync_to_async meanwhile; only to wait would be a deadlock.
        return async_to_sync(_begun)(call)
    return _wait(_apart(call), loop)


async def _begun(call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return await call()


async def _apart(call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Its own sync_to_async gets a thread of its own: the usual one may be waiting for this very coroutine."""
    AsyncToSync.executors.current = None
    SyncToAsync.thread_sensitive_context.set(ThreadSensitiveContext())
    return await call()


def _wait(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        # A time limit or Ctrl-C that strikes this thread ends the work over there as well.
        future.cancel()
        raise
