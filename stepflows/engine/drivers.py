"""Act on what plans ask for: in the calling thread, or on an event loop.

The two drivers differ in how they wait and in nothing else; which operation comes when is the plan's affair.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, Protocol

from asgiref.sync import iscoroutinefunction, sync_to_async

from stepflows.engine.cache import Cache
from stepflows.engine.context import logger
from stepflows.engine.events import Event
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
    StepInfo,
    Store,
    Together,
)
from stepflows.engine.policy import is_interrupt
from stepflows.errors import InvalidUse
from stepflows.results import Result

__all__ = ["AsyncDriver", "Driver", "Listener", "Threads", "current_step", "is_async"]

Listener = Callable[[Event], Any]
#: The position of a plan, the plan, and the context to drive it in.
Job = tuple[int, Plan, Context | None]

_current: ContextVar[StepInfo | None] = ContextVar("stepflows_current_step", default=None)


class Threads:
    """What a project wants done about threads that run steps; the default is nothing."""

    def max_workers(self) -> int:
        """How many threads ``step.all`` and ``step.map`` use at most."""
        return 8

    def pinned(self) -> bool:
        """Whether steps have to stay in this thread, because others would not see what it has under way."""
        return False

    def finished(self) -> None:
        """Called in a thread after the last step that it ran."""


def current_step() -> StepInfo:
    """The step whose function is running: label, key, attempt, and an ``idempotency_key`` for payment APIs.

    Raises :exc:`~stepflows.errors.InvalidUse` outside a step's function.
    """
    info = _current.get()
    if info is None:
        raise InvalidUse("current_step() is called outside a step's function. Call it inside the function that runs.")
    return info


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine; an object with an ``async def __call__`` does so too."""
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def attempt(function: Callable[[], Any]) -> Outcome:
    """Call it. Exceptions are answers: a StopIteration would not survive a generator, nor a thread's future."""
    try:
        return Returned(function())
    except BaseException as error:
        return Raised(error)


@contextmanager
def _current_step(info: StepInfo | None) -> Iterator[None]:
    token = _current.set(info)
    try:
        yield
    finally:
        _current.reset(token)


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
        with _current_step(operation.step):
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


class Hop(Protocol):
    """How an event loop has a function called in a thread."""

    async def __call__(self, function: Callable[[], Any], /) -> Outcome: ...


async def _hop(function: Callable[[], Any]) -> Outcome:
    """In the thread that Django keeps for this."""
    return await sync_to_async(attempt, thread_sensitive=True)(function)


class AsyncDriver:
    """Drives plans on the running event loop. Functions that are not async are called in a thread."""

    def __init__(
        self,
        cache: Cache | None,
        listeners: Sequence[Listener] = (),
        threads: Threads | None = None,
        hop: Hop = _hop,
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
        with _current_step(operation.step):
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
        driver = AsyncDriver(self.cache, self.listeners, self.threads, _Pool(pool, self.threads, self._hop))
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


class _Pool:
    """Has functions called in threads of a pool, or all in the usual one if they must not leave it."""

    def __init__(self, executor: Executor, threads: Threads, usual: Hop) -> None:
        self._executor = executor
        self._threads = threads
        self._usual = usual
        self._pinned: asyncio.Future[Outcome] | None = None

    async def __call__(self, function: Callable[[], Any], /) -> Outcome:
        if self._pinned is None:
            self._pinned = asyncio.ensure_future(self._usual(self._threads.pinned))
        if await self._pinned == Returned(True):
            return await self._usual(function)
        call = partial(copy_context().run, self._call, function)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _call(self, function: Callable[[], Any]) -> Outcome:
        try:
            return attempt(function)
        finally:
            self._threads.finished()


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
