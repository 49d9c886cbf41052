"""Threads and event loops that wait for each other, in whatever order they are stacked."""

from __future__ import annotations

import asyncio
import signal
import threading
from functools import partial
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from celery.exceptions import SoftTimeLimitExceeded

from stepflows import Ok, create_workflow, workflow
from stepflows.registry import registry
from tests.maplikes import AsyncMap

ONE, FOUR = Ok(1), Ok([0, 1, 2, 3])


class ThreadedMap(AsyncMap):
    """An async Map-like that is sync underneath, as Django's own async cache methods are."""

    async def get(self, key: str) -> Any:
        return await sync_to_async(self.inner.get)(key)

    async def set(self, key: str, result: Any) -> None:
        await sync_to_async(self.inner.set)(key, result)


def one(step, deps):
    return step("one", lambda: 1, key="one")


def four(step, deps):
    return step.map("four", range(4), lambda item: item, key=lambda item: f"four:{item}")


async def under_asgi(function):
    """As a sync view is called by an async server."""
    async with ThreadSensitiveContext():
        return await sync_to_async(function)()


async def in_thread(function):
    return await sync_to_async(function)()


async def on_the_loop(function):
    return function()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", [AsyncMap, ThreadedMap])
@pytest.mark.parametrize("start", [lambda main: asyncio.run(main()), lambda main: async_to_sync(main)()])
@pytest.mark.parametrize("place", [under_asgi, in_thread, on_the_loop])
@pytest.mark.parametrize(("body", "expected"), [(one, ONE), (four, FOUR)])
def test_run_works_in_every_place(kind, start, place, body, expected):
    """With an async cache, whose coroutines need a loop that is not blocked and a thread that is free."""

    async def main():
        return await place(lambda: create_workflow("shop", cache=kind()).run(body))

    assert start(main) == expected


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", [AsyncMap, ThreadedMap])
@pytest.mark.parametrize(("body", "expected"), [(one, ONE), (four, FOUR)])
def test_arun_of_a_sync_body_works_from_everywhere(kind, body, expected):
    """On a loop, and from a thread of one."""
    flow = create_workflow("shop", cache=kind())
    assert asyncio.run(flow.arun(body)) == expected
    assert asyncio.run(in_thread(lambda: async_to_sync(create_workflow("w", cache=kind()).arun)(body))) == expected


@pytest.mark.timeout(30)
def test_a_run_on_the_loop_inside_an_async_body():
    """Its threads must not wait for the loop that it blocks."""
    inner = create_workflow("inner", cache=AsyncMap())

    async def body(step, deps):
        await step("sync", lambda: 1)
        return inner.run(four)

    assert asyncio.run(create_workflow("outer").arun(body)) == FOUR


@pytest.fixture
def limit():
    """A soft time limit as Celery's prefork workers have it: a signal that raises."""

    def strike(*args):
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGALRM, strike)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.timeout(30)
def test_a_time_limit_ends_the_async_function_that_sync_code_waits_for(limit):
    """It arrives as itself, nothing is stored, and nothing goes on behind one's back."""
    ended = threading.Event()
    done = []

    async def slow():
        try:
            await asyncio.sleep(3600)
            done.append("charged")
        finally:
            ended.set()

    flow = create_workflow("shop", cache={})
    limit(0.1)
    result = flow.run(lambda step, deps: step("slow", slow, key="a"))
    assert isinstance(result.error, SoftTimeLimitExceeded)
    assert ended.wait(20)
    assert (done, flow.cache) == ([], {})


@pytest.mark.timeout(30)
def test_what_comes_after_a_time_limit_does_not_wait_for_the_loop_that_it_ended(limit):
    """That loop is still clearing up, and would never get to it."""
    loops, released = [], threading.Event()

    async def slow():
        loops.append(asyncio.get_running_loop())
        await sync_to_async(lambda: None)()
        try:
            await asyncio.sleep(3600)
        finally:
            await loops[0].run_in_executor(None, released.wait, 20)

    async def which():
        return asyncio.get_running_loop()

    limit(0.1)
    result = create_workflow("shop").run(lambda step, deps: step("slow", slow))
    assert isinstance(result.error, SoftTimeLimitExceeded)
    assert async_to_sync(which)() is not loops[0]
    released.set()


@pytest.mark.timeout(30)
def test_a_time_limit_ends_an_async_body_on_a_worker(limit):
    """No later step runs."""
    ended = threading.Event()
    later = []

    @workflow("limited", cache={})
    async def limited(step, deps):
        try:
            await step("slow", lambda: asyncio.sleep(3600), key="a")
        finally:
            ended.set()
        await step("later", lambda: later.append(1), key="b")

    try:
        limit(0.1)
        with pytest.raises(SoftTimeLimitExceeded):
            limited.execute((), {}, run_id="1")
        assert ended.wait(20)
        assert later == []
    finally:
        registry.remove("limited")


@pytest.mark.timeout(30)
def test_a_sync_body_ends_at_its_next_step_once_it_is_cancelled():
    """Its thread cannot be interrupted; what would come next does not come."""
    released, ended = threading.Event(), threading.Event()
    later = []

    def body(step, deps, started):
        def first():
            started()
            released.wait(20)

        try:
            step("first", first, key="a")
            step("later", lambda: later.append(1), key="b")
        finally:
            ended.set()

    async def main():
        loop, started = asyncio.get_running_loop(), asyncio.Event()
        start = partial(loop.call_soon_threadsafe, started.set)
        run = asyncio.ensure_future(create_workflow("shop", cache={}).arun(body, start))
        await started.wait()
        run.cancel()
        # Not of the loop, which may end before.
        threading.Timer(0.05, released.set).start()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(main())
    assert ended.wait(20)
    assert later == []


@pytest.mark.timeout(30)
def test_async_functions_do_not_wait_for_a_busy_thread():
    """A group of async functions asks nothing of the thread that another task keeps busy."""

    async def quick():
        return 1

    async def body(step, deps):
        return await step.all("quick", {"a": quick, "b": quick})

    async def main():
        released = threading.Event()
        busy = asyncio.ensure_future(sync_to_async(released.wait)(20))
        await asyncio.sleep(0)
        result = await create_workflow("shop").arun(body)
        released.set()
        return result, await busy

    # The thread saw the event, so it was still waiting when the run had ended.
    assert asyncio.run(main()) == (Ok({"a": 1, "b": 1}), True)
