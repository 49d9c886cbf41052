"""Act on what plans ask for: in the calling thread, or on an event loop.

The two drivers differ in how they wait and in nothing else; which operation comes when is the plan's affair.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from stepflows.engine.cache import Cache
from stepflows.engine.calls import attempt, is_async, running_step
from stepflows.engine.context import logger
from stepflows.engine.events import Event, Listener
from stepflows.engine.loops import discard, is_on_a_loop, running_loop, wait_for
from stepflows.engine.operations import (
    Call,
    Emit,
    Gathering,
    Load,
    LoadMany,
    Outcome,
    Pause,
    Plan,
    Raised,
    Returned,
    Store,
    Together,
)
from stepflows.engine.policy import is_interrupt
from stepflows.engine.threads import Hop, Pool, Threads, hop
from stepflows.errors import InvalidUse
from stepflows.results import Result

__all__ = ["AsyncDriver", "Driver"]

#: The position of a plan, the plan, and the context to drive it in.
Job = tuple[int, Plan, Context | None]


def _width(operation: Together, most: int) -> int:
    return min(operation.limit or most, most, len(operation.plans))


class Driver:
    """Drives plans in the calling thread."""

    def __init__(self, cache: Cache | None, listeners: Sequence[Listener] = (), threads: Threads | None = None) -> None:
        self.cache = cache
        self.listeners = listeners
        self.threads = threads or Threads()
        #: Set from elsewhere when nobody waits for the run any more: it ends at its next operation.
        self.stopped = False
        self._perform: dict[type, Callable[[Any], Any]] = {
            Call: self._call,
            Together: self._together,
            Pause: lambda operation: time.sleep(operation.seconds),
            Emit: self._emit,
        }
        if cache is not None:
            self._perform[Load] = lambda operation: cache.load(operation.key)
            self._perform[LoadMany] = lambda operation: cache.load_many(operation.keys)
            self._perform[Store] = lambda op: cache.store(op.key, op.result, replace=op.replace)

    def drive(self, plan: Plan) -> Result[Any]:
        """Perform what the plan asks for until it returns its result."""
        perform = self._perform
        try:
            operation = next(plan)
            while True:
                try:
                    if self.stopped and not isinstance(operation, Emit):
                        raise asyncio.CancelledError  # noqa: TRY301 - as if the operation had been cancelled
                    answer = perform[type(operation)](operation)
                except BaseException as error:
                    operation = plan.throw(error)
                else:
                    operation = plan.send(answer)
        except StopIteration as stop:
            result: Result[Any] = stop.value
            return result

    def _call(self, operation: Call) -> Outcome:
        with running_step(operation.step):
            outcome = attempt(operation.function)
            if isinstance(outcome, Returned) and inspect.isawaitable(outcome.value):
                return self._awaited(outcome.value)
        return outcome

    def _awaited(self, awaitable: Awaitable[Any]) -> Outcome:
        if is_on_a_loop():
            discard(awaitable)
            return Raised(InvalidUse("run() cannot wait for an async function on an event loop's thread. Use arun."))
        return attempt(partial(wait_for, awaitable))

    def _emit(self, operation: Emit) -> None:
        for listener in self.listeners:
            try:
                answer = listener(operation.event)
                if inspect.isawaitable(answer):
                    wait_for(answer)
            except Exception as error:
                _report(listener, operation.event, error)

    def _together(self, operation: Together) -> Gathering:
        gathering = Gathering(len(operation.plans))
        width = _width(operation, self.threads.max_workers())
        if width <= 1 or self.threads.pinned():
            self._work(((index, plan, None) for index, plan in enumerate(operation.plans)), gathering)
        else:
            self._in_threads(operation.plans, gathering, width)
        return gathering

    def _in_threads(self, plans: Sequence[Plan], gathering: Gathering, width: int) -> None:
        if is_on_a_loop():
            # This call blocks the loop, so the threads must not wait for it.
            running_loop.set(None)
        # Threads may share the iterator of a list: taking from it is one step.
        jobs = iter([(index, plan, copy_context()) for index, plan in enumerate(plans)])
        with ThreadPoolExecutor(width, thread_name_prefix="stepflows") as pool:
            try:
                for worker in [pool.submit(self._work_in_thread, jobs, gathering) for _ in range(width)]:
                    worker.result()
            finally:
                gathering.open = False

    def _work_in_thread(self, jobs: Iterator[Job], gathering: Gathering) -> None:
        try:
            self._work(jobs, gathering)
        except BaseException:
            gathering.open = False
            raise
        finally:
            self.threads.finished()

    def _work(self, jobs: Iterator[Job], gathering: Gathering) -> None:
        for index, plan, context in jobs:
            if not gathering.open:
                return
            gathering.take(index, context.run(self.drive, plan) if context else self.drive(plan))


class AsyncDriver:
    """Drives plans on the running event loop. Functions that are not async are called in a thread."""

    def __init__(
        self,
        cache: Cache | None,
        listeners: Sequence[Listener] = (),
        threads: Threads | None = None,
        hop: Hop = hop,
    ) -> None:
        self.cache = cache
        self.listeners = listeners
        self.threads = threads or Threads()
        self._hop = hop
        self._perform: dict[type, Callable[[Any], Awaitable[Any]]] = {
            Call: self._call,
            Together: self._together,
            Pause: lambda operation: asyncio.sleep(operation.seconds),
            Emit: self._emit,
        }
        if cache is not None:
            self._perform[Load] = lambda operation: cache.aload(operation.key)
            self._perform[LoadMany] = lambda operation: cache.aload_many(operation.keys)
            self._perform[Store] = lambda op: cache.astore(op.key, op.result, replace=op.replace)

    async def drive(self, plan: Plan) -> Result[Any]:
        """Perform what the plan asks for until it returns its result."""
        perform = self._perform
        try:
            operation = next(plan)
            while True:
                try:
                    answer = await perform[type(operation)](operation)
                except BaseException as error:
                    operation = plan.throw(error)
                else:
                    operation = plan.send(answer)
        except StopIteration as stop:
            result: Result[Any] = stop.value
            return result

    async def _call(self, operation: Call) -> Outcome:
        with running_step(operation.step):
            if is_async(operation.function):
                outcome = attempt(operation.function)
            else:
                running_loop.set(asyncio.get_running_loop())
                outcome = await self._hop(operation.function)
            if isinstance(outcome, Returned) and inspect.isawaitable(outcome.value):
                return await _awaited(outcome.value, operation)
            return outcome

    async def _emit(self, operation: Emit) -> None:
        for listener in self.listeners:
            try:
                answer = listener(operation.event)
                if inspect.isawaitable(answer):
                    await answer
            except Exception as error:
                _report(listener, operation.event, error)

    async def _together(self, operation: Together) -> Gathering:
        gathering = Gathering(len(operation.plans))
        width = _width(operation, len(operation.plans))
        jobs = iter(enumerate(operation.plans))
        if width <= 1:
            await self._work(self, jobs, gathering)
            return gathering
        pool = ThreadPoolExecutor(min(width, self.threads.max_workers()), thread_name_prefix="stepflows")
        driver = AsyncDriver(self.cache, self.listeners, self.threads, Pool(pool, self.threads, self._hop))
        workers = [asyncio.ensure_future(self._work(driver, jobs, gathering)) for _ in range(width)]
        try:
            await asyncio.gather(*workers)
        except BaseException:
            await _cancelled(workers)
            raise
        finally:
            # Waiting for threads here would stop the event loop.
            pool.shutdown(wait=False, cancel_futures=True)
        return gathering

    @staticmethod
    async def _work(driver: AsyncDriver, jobs: Iterator[tuple[int, Plan]], gathering: Gathering) -> None:
        for index, plan in jobs:
            if not gathering.open:
                return
            gathering.take(index, await driver.drive(plan))


async def _awaited(awaitable: Awaitable[Any], operation: Call) -> Outcome:
    """What comes of it within the time given. A thread could not be interrupted; what is awaited can."""
    limit = asyncio.timeout(operation.timeout)
    try:
        async with limit:
            try:
                return Returned(await awaitable)
            except Exception as error:
                return Raised(error)
    except TimeoutError:
        if not limit.expired():
            raise
        label = operation.step and operation.step.label
        return Raised(TimeoutError(f"step {label!r} was not finished within {operation.timeout:g} s"))


def _report(listener: Listener, event: Event, error: Exception) -> None:
    if is_interrupt(error):
        raise error
    logger.error("The listener %r failed on %s", listener, event.type, exc_info=error)


async def _cancelled(tasks: Sequence[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
