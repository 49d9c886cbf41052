"""Threads and tasks that really run at the same time: each function once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import pytest

from stepflows import StepCache
from stepflows.caches.mapping import MappingCache
from stepflows.engine.cache import Cache
from stepflows.engine.context import RunContext
from stepflows.engine.drivers import AsyncDriver, Driver
from stepflows.engine.steps import AsyncStep, Step
from tests.calls import Calls

THREADS = 8
KEYS = [f"key:{number}" for number in range(20)]


@pytest.fixture(params=["mapping", "locmem"])
def cache(request) -> Cache:
    return MappingCache({}) if request.param == "mapping" else StepCache("locmem", namespace="crowds")


class Counting:
    """Functions by key that count how often they were called. Adding to a list is one step."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def __call__(self, key: str) -> str:
        self.called.append(key)
        return f"{key}, call {len(self.called)}"

    def assert_once_each(self) -> None:
        assert Counter(self.called) == Counter(KEYS)


def in_threads(work: Any) -> list[Any]:
    barrier = Barrier(THREADS)

    def begin(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


def test_threads_run_each_step_once(cache):
    """Each goes through all keys, in an order of its own."""
    counting = Counting()

    def work(number: int) -> dict[str, str]:
        step = Step(RunContext("w"), Driver(cache))
        keys = random.Random(number).sample(KEYS, len(KEYS))
        return {key: step("label", partial(counting, key), key=key) for key in keys}

    first, *others = in_threads(work)
    assert all(other == first for other in others)
    counting.assert_once_each()


def test_threads_run_each_item_of_their_maps_once(cache):
    """Each maps all keys, in an order of its own, with threads of its own."""
    counting = Counting()

    def work(number: int) -> dict[str, str]:
        step = Step(RunContext("w"), Driver(cache))
        keys = random.Random(number).sample(KEYS, len(KEYS))
        return dict(zip(keys, step.map("label", keys, counting, key=str, limit=3), strict=True))

    first, *others = in_threads(work)
    assert all(other == first for other in others)
    counting.assert_once_each()


async def test_tasks_of_one_loop_run_a_step_once(cache):
    """Two hundred ask for one cold key while its function waits."""
    asked = 0
    all_have_asked = asyncio.Event()
    calls = Calls("result")

    async def function() -> Any:
        await all_have_asked.wait()
        return calls()

    async def body() -> Any:
        nonlocal asked
        step = AsyncStep(RunContext("w"), AsyncDriver(cache))
        asked += 1
        if asked == 200:
            all_have_asked.set()
        return await step("label", function, key="k")

    assert await asyncio.gather(*(body() for _ in range(200))) == ["result"] * 200
    assert calls.count == 1


async def test_a_task_that_is_cancelled_leaves_the_step_to_the_next(cache):
    """The lease is given back, and nobody waits until it ends by itself."""
    begun = asyncio.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def body(function: Any) -> Any:
        return await AsyncStep(RunContext("w"), AsyncDriver(cache))("label", function, key="k")

    first = asyncio.create_task(body(endless))
    await begun.wait()
    second = asyncio.create_task(body(Calls("result")))
    first.cancel()
    assert await asyncio.wait_for(second, 5) == "result"
    assert first.cancelled()


async def test_tasks_and_threads_run_a_step_once(cache):
    """Of a loop and of several threads, all at once."""
    counting = Counting()

    def in_a_thread() -> list[str]:
        step = Step(RunContext("w"), Driver(cache))
        return [step("label", partial(counting, key), key=key) for key in KEYS]

    async def in_a_task() -> list[str]:
        step = AsyncStep(RunContext("w"), AsyncDriver(cache))

        async def function(key: str) -> str:
            return counting(key)

        return [await step("label", partial(function, key), key=key) for key in KEYS]

    threads = [asyncio.to_thread(in_a_thread) for _ in range(THREADS)]
    first, *others = await asyncio.gather(*threads, *(in_a_task() for _ in range(THREADS)))
    assert all(other == first for other in others)
    counting.assert_once_each()
