"""Act in the calling thread."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias, cast

from stepflows.engine.cache import Cache, Entry, Standing
from stepflows.engine.calls import attempt, running_step
from stepflows.engine.cancellation import Cancellation
from stepflows.engine.context import logger
from stepflows.engine.deferrals import Deferral, result_here
from stepflows.engine.events import Listener
from stepflows.engine.listeners import report
from stepflows.engine.loops import discard, is_on_a_loop, running_loop, wait_for
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
from stepflows.engine.policy import is_interrupt
from stepflows.engine.threads import Threads, watched
from stepflows.errors import InvalidUse, NotCacheable
from stepflows.results import Result

__all__ = ["Driver"]

#: The position of a plan, the plan, and the context to drive it in.
Job: TypeAlias = tuple[int, Plan, Context | None]
Then: TypeAlias = Callable[[Sequence[int]], Plan]


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
            self._perform[Release] = lambda op: (cache.abandon if op.soon else cache.release)(op.leases)
            self._perform[Defer] = self.defer
            self._perform[Deferred] = lambda operation: result_here(operation.busy, operation.key)

    def drive(self, plan: Plan) -> Result[Any]:
        """Perform what the plan asks for until it returns its result."""
        perform, cancellation = self._perform, self.cancellation
        try:
            operation = next(plan)
            while True:
                try:
                    if cancellation.requested and not isinstance(operation, LAST):
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
            return watched(call, self.threads) if operation.is_kept else call()

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
        for nap in self.cancellation.naps(operation.seconds):
            time.sleep(nap)

    def _emit(self, operation: Emit) -> None:
        for listener in self.listeners:
            try:
                answer = listener(operation.event)
                if inspect.isawaitable(answer):
                    wait_for(answer)
            except Exception as error:
                report(listener, operation.event, error)

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
        width = operation.width(self.threads.max_workers())
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


def _nothing(index: int) -> None:
    """Done with."""


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
