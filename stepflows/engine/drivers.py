"""Act on what plans ask for: in the calling thread, or on an event loop.

The two drivers differ in how they wait and in nothing else; which operation comes when is the plan's affair.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, cast

from stepflows.engine.cache import Cache, Entry, Standing
from stepflows.engine.calls import attempt, is_async, running_step
from stepflows.engine.cancellation import Cancellation
from stepflows.engine.context import logger
from stepflows.engine.deferrals import Deferral, deferral
from stepflows.engine.events import Event, Listener
from stepflows.engine.loops import discard, is_on_a_loop, is_under_a_thread, running_loop, wait_for
from stepflows.engine.operations import (
    Call,
    Claim,
    Defer,
    Deferred,
    Emit,
    Gathering,
    Keys,
    Load,
    LoadMany,
    Outcome,
    Pause,
    Plan,
    Raised,
    Release,
    Returned,
    Store,
    Together,
)
from stepflows.engine.policy import is_interrupt
from stepflows.engine.threads import Attended, Hop, Pool, Threads, hop, in_thread, watched
from stepflows.engine.transactions import Watch
from stepflows.errors import InvalidUse, NotCacheable
from stepflows.results import Result

__all__ = ["AsyncDriver", "Driver"]

#: The position of a plan, the plan, and the context to drive it in.
Job = tuple[int, Plan, Context | None]
Then = Callable[[Sequence[int]], Plan]


#: What follows after a function has run is done all the same.
_LAST: Final = (Emit, Release, Store, Defer)
#: Seconds after which somebody who pauses looks whether the run was called off.
_NAP: Final = 0.25


def _width(operation: Together, most: int) -> int:
    return min(operation.limit or most, most, len(operation.plans))


class Driver:
    """Drives plans in the calling thread."""

    def __init__(
        self,
        cache: Cache | None,
        listeners: Sequence[Listener] = (),
        threads: Threads | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        self.cache = cache
        self.listeners = listeners
        self.threads = threads or Threads()
        self.cancellation = cancellation or Cancellation()
        self._perform: dict[type, Callable[[Any], Any]] = {
            Call: self._call,
            Together: self._together,
            Pause: self._pause,
            Emit: self._emit,
        }
        if cache is not None:
            self._perform[Load] = lambda operation: cache.load(operation.key)
            self._perform[LoadMany] = lambda operation: cache.load_many(operation.keys)
            self._perform[Keys] = lambda operation: cache.keys(operation.prefix)
            self._perform[Claim] = lambda op: cache.claim(op.keys, op.seconds, refresh=op.refresh)
            self._perform[Store] = lambda operation: _stored(cache, operation.entries)
            self._perform[Release] = lambda operation: cache.release(operation.leases)
            self._perform[Defer] = self.defer
            self._perform[Deferred] = _deferred

    def drive(self, plan: Plan) -> Result[Any]:
        """Perform what the plan asks for until it returns its result."""
        perform, cancellation = self._perform, self.cancellation
        try:
            operation = next(plan)
            while True:
                try:
                    if cancellation.requested and not isinstance(operation, _LAST):
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
        with running_step(operation.step, operation.lease):
            call = partial(self._called, operation.function)
            return watched(call, self.threads) if _is_kept(operation) else call()

    def _called(self, function: Callable[[], Any]) -> Outcome:
        outcome = attempt(function)
        if isinstance(outcome, Returned) and inspect.isawaitable(outcome.value):
            return self._awaited(outcome.value)
        return outcome

    def _awaited(self, awaitable: Awaitable[Any]) -> Outcome:
        if is_on_a_loop():
            discard(awaitable)
            return Raised(InvalidUse("run() cannot wait for an async function on an event loop's thread. Use arun."))
        return attempt(partial(wait_for, awaitable))

    def _pause(self, operation: Pause) -> None:
        for nap in _naps(operation.seconds, self.cancellation):
            time.sleep(nap)

    def _emit(self, operation: Emit) -> None:
        for listener in self.listeners:
            try:
                answer = listener(operation.event)
                if inspect.isawaitable(answer):
                    wait_for(answer)
            except Exception as error:
                _report(listener, operation.event, error)

    def defer(self, operation: Defer) -> NotCacheable | None:
        cache = cast("Cache", self.cache)
        entry = cache.freeze(operation.entry)
        if isinstance(entry, NotCacheable):
            return entry

        def committed() -> None:
            # This run may have been stopped since; what it did stands.
            Driver(cache, self.listeners, self.threads).drive(operation.committed(entry))

        def forgotten() -> None:
            operation.forgotten()
            cache.abandon([entry.lease] if entry.lease else [])

        Deferral(operation.transactions, entry, committed, forgotten).begin()
        return None

    def _together(self, operation: Together) -> Gathering:
        gathering = Gathering(len(operation.plans))
        width = _width(operation, self.threads.max_workers())
        if width <= 1 or self.threads.pinned():
            jobs: Iterator[Job] = ((index, plan, None) for index, plan in enumerate(operation.plans))
            then = operation.then
            self._work(jobs, gathering, (lambda index: self._drive_then(then, [index])) if then else _nothing)
        else:
            self._in_threads(operation, gathering, width)
        return gathering

    def _in_threads(self, operation: Together, gathering: Gathering, width: int) -> None:
        if is_on_a_loop():
            # This call blocks the loop, so the threads must not wait for it.
            running_loop.set(None)
        # Threads may share the iterator of a list: taking from it is one step.
        jobs = iter([(index, plan, copy_context()) for index, plan in enumerate(operation.plans)])
        then = operation.then
        ended: SimpleQueue[int | None] = SimpleQueue()
        with ThreadPoolExecutor(width + bool(then), thread_name_prefix="stepflows") as pool:
            after = pool.submit(copy_context().run, self._work_after, then, ended, gathering) if then else None
            take = ended.put if then else _nothing
            workers = [pool.submit(self._work_in_thread, jobs, gathering, take) for _ in range(width)]
            try:
                for worker in workers:
                    worker.result()
            finally:
                gathering.open = False
                # What they are at will be done, and is to be stored.
                wait(workers)
                ended.put(None)
            if after:
                after.result()

    def _work_in_thread(self, jobs: Iterator[Job], gathering: Gathering, take: Callable[[int], None]) -> None:
        try:
            self._work(jobs, gathering, take)
        except BaseException:
            gathering.open = False
            raise
        finally:
            self.threads.finished()

    def _work(self, jobs: Iterator[Job], gathering: Gathering, take: Callable[[int], None]) -> None:
        for index, plan, context in jobs:
            if not gathering.open:
                return
            gathering.take(index, context.run(self.drive, plan) if context else self.drive(plan))
            take(index)

    def _work_after(self, then: Then, ended: SimpleQueue[int | None], gathering: Gathering) -> None:
        """Take what has ended since the last look, all at once."""
        try:
            more = True
            while more:
                batch = [ended.get(), *(ended.get() for _ in range(ended.qsize()))]
                more = None not in batch
                self._drive_then(then, [index for index in batch if index is not None])
        except BaseException:
            gathering.open = False
            raise
        finally:
            self.threads.finished()

    def _drive_then(self, then: Then, indexes: Sequence[int]) -> None:
        if indexes:
            self.drive(then(indexes))


class AsyncDriver:
    """Drives plans on the running event loop. Functions that are not async are called in a thread."""

    def __init__(
        self,
        cache: Cache | None,
        listeners: Sequence[Listener] = (),
        threads: Threads | None = None,
        hop: Hop = hop,
        cancellation: Cancellation | None = None,
    ) -> None:
        self.cache = cache
        self.listeners = listeners
        self.threads = threads or Threads()
        self.cancellation = cancellation or Cancellation()
        self._hop = hop
        self._perform: dict[type, Callable[[Any], Awaitable[Any]]] = {
            Call: self._call,
            Together: self._together,
            Pause: self._pause,
            Emit: self._emit,
        }
        if cache is not None:
            self._perform[Load] = lambda operation: cache.aload(operation.key)
            self._perform[LoadMany] = lambda operation: cache.aload_many(operation.keys)
            self._perform[Keys] = lambda operation: cache.akeys(operation.prefix)
            self._perform[Claim] = lambda op: cache.aclaim(op.keys, op.seconds, refresh=op.refresh)
            self._perform[Store] = lambda operation: _astored(cache, operation.entries)
            self._perform[Release] = lambda operation: cache.arelease(operation.leases)
            # Transactions belong to the thread that Django's own async methods use.
            self._perform[Defer] = lambda operation: in_thread(partial(self._sync().defer, operation))
            self._perform[Deferred] = lambda operation: in_thread(partial(_deferred, operation))

    async def drive(self, plan: Plan) -> Result[Any]:
        """Perform what the plan asks for until it returns its result."""
        perform, cancellation = self._perform, self.cancellation
        try:
            operation = next(plan)
            while True:
                try:
                    if cancellation.requested and not isinstance(operation, _LAST):
                        raise asyncio.CancelledError  # noqa: TRY301 - as if the operation had been cancelled
                    answer = await perform[type(operation)](operation)
                except BaseException as error:
                    operation = plan.throw(error)
                else:
                    operation = plan.send(answer)
        except StopIteration as stop:
            result: Result[Any] = stop.value
            return result

    async def _call(self, operation: Call) -> Outcome:
        with running_step(operation.step, operation.lease):
            if is_async(operation.function):
                return await self._watched(partial(_awaited, operation.function, operation), operation)
            running_loop.set(asyncio.get_running_loop())
            outcome = await self._in_thread(operation)
            if not (isinstance(outcome, Returned) and inspect.isawaitable(outcome.value)):
                return outcome
            awaited = await self._watched(partial(_awaited, lambda: outcome.value, operation), operation)
            return awaited._replace(transaction=awaited.transaction or outcome.transaction)

    async def _in_thread(self, operation: Call) -> Outcome:
        """What the function comes to in a thread, which no cancellation stops."""
        call = partial(attempt, operation.function)
        if not _is_kept(operation):
            answer = await self._hop(call)
        else:
            attended = Attended(partial(watched, call, self.threads), partial(self._finish, operation), self.threads)
            try:
                answer = await self._hop(attended)
            except asyncio.CancelledError:
                if attended.leave() and operation.lease and operation.late:
                    operation.lease.passed_on = True
                raise
        return answer.value if isinstance(answer, Returned) else answer

    def _finish(self, operation: Call, outcome: Outcome) -> None:
        if isinstance(outcome, Returned) and inspect.isawaitable(outcome.value):
            discard(outcome.value)
            outcome = Raised(asyncio.CancelledError())
        try:
            if operation.late:
                self._sync().drive(operation.late(outcome))
        except Exception:
            logger.exception("What a step came to after its run was cancelled could not be stored: %r", operation.step)
            if self.cache and operation.lease:
                self.cache.abandon([operation.lease])

    async def _watched(self, call: Callable[[], Awaitable[Outcome]], operation: Call) -> Outcome:
        """The same as :func:`watched`. The connections are those of the thread that Django's own async methods use."""
        wanted = _is_kept(operation) and is_under_a_thread()
        if wanted and isinstance(self._hop, Pool):
            wanted = await self._hop.is_pinned()
        watch: Watch | None = await in_thread(self.threads.watch) if wanted else None
        if watch is None:
            return await call()
        try:
            with watch:
                outcome = await call()
        finally:
            transaction = await in_thread(watch.close)
        return outcome._replace(transaction=transaction)

    async def _pause(self, operation: Pause) -> None:
        for nap in _naps(operation.seconds, self.cancellation):
            await asyncio.sleep(nap)

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
        ended: asyncio.Queue[int | None] = asyncio.Queue()
        # It starts threads only when it is asked to.
        pool = ThreadPoolExecutor(self.threads.max_workers(), thread_name_prefix="stepflows")
        hop = Pool(pool, self.threads, self._hop) if width > 1 else self._hop
        driver = AsyncDriver(self.cache, self.listeners, self.threads, hop, self.cancellation)
        workers = [asyncio.ensure_future(self._work(driver, jobs, gathering, ended)) for _ in range(width)]
        after = asyncio.ensure_future(self._work_after(operation.then, ended, gathering)) if operation.then else None
        try:
            # What comes after ends before the others only if it fails.
            await asyncio.gather(*workers)
        except BaseException:
            await _cancelled(workers)
            raise
        finally:
            # Waiting for threads here would stop the event loop.
            pool.shutdown(wait=False, cancel_futures=True)
            ended.put_nowait(None)
            if after:
                await after
        return gathering

    @staticmethod
    async def _work(
        driver: AsyncDriver, jobs: Iterator[tuple[int, Plan]], gathering: Gathering, ended: asyncio.Queue[int | None]
    ) -> None:
        for index, plan in jobs:
            if not gathering.open:
                return
            gathering.take(index, await driver.drive(plan))
            ended.put_nowait(index)

    async def _work_after(self, then: Then, ended: asyncio.Queue[int | None], gathering: Gathering) -> None:
        """Take what has ended since the last look, all at once. A cancellation does not lose what has ended."""
        batch: list[int | None] = []
        try:
            while None not in batch:
                batch = [await ended.get(), *_taken(ended)]
                await self._drive_then(then, batch)
        except BaseException as error:
            gathering.open = False
            if isinstance(error, asyncio.CancelledError):
                await self._drive_then(then, [*batch, *_taken(ended)])
            raise

    async def _drive_then(self, then: Then, batch: Sequence[int | None]) -> None:
        if indexes := [index for index in batch if index is not None]:
            await self.drive(then(indexes))

    def _sync(self) -> Driver:
        return Driver(self.cache, self.listeners, self.threads)


def _naps(seconds: float, cancellation: Cancellation) -> Iterator[float]:
    """A pause in pieces, cut short when the run is called off."""
    end = time.monotonic() + seconds
    left = seconds
    while left > 0 and not cancellation.requested:
        yield min(left, _NAP)
        left = end - time.monotonic()


async def _awaited(function: Callable[[], Any], operation: Call) -> Outcome:
    """What comes of it within the time given. A thread could not be interrupted; what is awaited can."""
    outcome = attempt(function)
    if not (isinstance(outcome, Returned) and inspect.isawaitable(outcome.value)):
        return outcome
    limit = asyncio.timeout(operation.timeout)
    try:
        async with limit:
            try:
                return Returned(await outcome.value)
            except Exception as error:
                return Raised(error)
    except TimeoutError:
        if not limit.expired():
            raise
        label = operation.step and operation.step.label
        return Raised(TimeoutError(f"step {label!r} was not finished within {operation.timeout:g} s"))


def _is_kept(operation: Call) -> bool:
    """Whether the result is to be stored, so that it matters in which transaction it is made."""
    return operation.step is not None and operation.step.key is not None


def _deferred(operation: Deferred) -> Result[Any] | None:
    found = deferral(operation.busy, operation.key)
    return found.result if found and found.is_here() else None


def _stored(cache: Cache, entries: Sequence[Entry]) -> list[Standing]:
    """Store them. A time limit or Ctrl-C that strikes here does not undo what has run."""
    try:
        return cache.store(entries)
    except Exception as error:
        if is_interrupt(error):
            _once_more(cache, entries)
        raise
    except BaseException:
        _once_more(cache, entries)
        raise


def _once_more(cache: Cache, entries: Sequence[Entry]) -> None:
    try:
        cache.store(entries)
    except Exception as error:
        logger.error("%d results could not be stored before the end: %s", len(entries), error)


async def _astored(cache: Cache, entries: Sequence[Entry]) -> list[Standing]:
    """Store them. A cancellation waits until that is done."""
    storing = asyncio.ensure_future(cache.astore(entries))
    try:
        return await asyncio.shield(storing)
    except asyncio.CancelledError:
        await asyncio.wait([storing])
        if not storing.cancelled() and (error := storing.exception()):
            logger.error("%d results could not be stored before the end: %s", len(entries), error)
        raise


def _taken(queue: asyncio.Queue[int | None]) -> list[int | None]:
    return [queue.get_nowait() for _ in range(queue.qsize())]


def _nothing(index: int) -> None:
    """Done with."""


def _report(listener: Listener, event: Event, error: Exception) -> None:
    if is_interrupt(error):
        raise error
    logger.error("The listener %r failed on %s", listener, event.type, exc_info=error)


async def _cancelled(tasks: Sequence[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
