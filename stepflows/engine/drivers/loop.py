"""Act on the running event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

from stepflows.engine.cache import Cache, Entry, Standing
from stepflows.engine.calls import attempt, is_async, running_step
from stepflows.engine.cancellation import Cancellation
from stepflows.engine.context import logger
from stepflows.engine.deferrals import result_here
from stepflows.engine.drivers.thread import Driver
from stepflows.engine.events import Listener
from stepflows.engine.listeners import report
from stepflows.engine.loops import discard, is_under_a_thread, running_loop
from stepflows.engine.operations import (
    LAST,
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
from stepflows.engine.threads import Attended, Hop, Pool, Threads, hop, in_thread, watched
from stepflows.engine.transactions import Watch
from stepflows.results import Result

__all__ = ["AsyncDriver"]

Then: TypeAlias = Callable[[Sequence[int]], Plan]


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
            self._perform[Release] = lambda operation: _released(cache, operation)
            # Transactions belong to the thread that Django's own async methods use.
            self._perform[Defer] = lambda operation: in_thread(partial(self._sync().defer, operation))
            self._perform[Deferred] = lambda operation: in_thread(partial(result_here, operation.busy, operation.key))

    async def drive(self, plan: Plan) -> Result[Any]:
        """Perform what the plan asks for until it returns its result."""
        perform, cancellation = self._perform, self.cancellation
        try:
            operation = next(plan)
            while True:
                try:
                    if cancellation.requested and not isinstance(operation, LAST):
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
        if not operation.is_kept:
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
        wanted = operation.is_kept and is_under_a_thread()
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
        for nap in self.cancellation.naps(operation.seconds):
            await asyncio.sleep(nap)

    async def _emit(self, operation: Emit) -> None:
        for listener in self.listeners:
            try:
                answer = listener(operation.event)
                if inspect.isawaitable(answer):
                    await answer
            except Exception as error:
                report(listener, operation.event, error)

    async def _together(self, operation: Together) -> Gathering:
        gathering = Gathering(len(operation.plans))
        width = operation.width(len(operation.plans))
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


async def _released(cache: Cache, release: Release) -> None:
    if release.soon:
        cache.abandon(release.leases)
    else:
        await cache.arelease(release.leases)


def _taken(queue: asyncio.Queue[int | None]) -> list[int | None]:
    return [queue.get_nowait() for _ in range(queue.qsize())]


async def _cancelled(tasks: Sequence[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
