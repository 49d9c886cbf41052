"""Many callers at once, in one process."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from stepflows import Ok, create_workflow
from stepflows.definitions import Workflow
from tests.calls import Calls
from tests.contract.test_steps import stepping
from tests.outages.conftest import BACKENDS
from tests.outages.single import Single, await_until
from tests.voices import Voice, async_body


@pytest.fixture(params=BACKENDS)
def crowded(request: pytest.FixtureRequest, single: Single, add_alias) -> str:
    """Both ways to a server that nobody else uses; many at once have to wait for their turn, so there is time."""
    alias: str = add_alias(request.param, single.url, timeout=20)
    return alias


def slow(takes: float) -> Calls:
    def charge(*args):
        time.sleep(takes)
        return object.__repr__(threading.current_thread())

    return Calls(charge)


def test_threads_on_one_cold_key(voice: Voice, crowded: str):
    """Sixty-four of them: one execution, its value for all, and no thread is left but the one that renews leases."""
    work = slow(0.1)
    flow = create_workflow("shop", cache=crowded)
    barrier = threading.Barrier(64)
    before = threading.active_count()

    def call(_: int):
        barrier.wait(20)
        return voice.run(flow, stepping("charge", work, key="order:7"))

    with ThreadPoolExecutor(64) as pool:
        results = list(pool.map(call, range(64)))

    assert work.count == 1
    assert results == [results[0]] * 64
    assert results[0].ok
    await_until(lambda: threading.active_count() <= before + 1)


def test_a_thousand_hits_on_one_loop(crowded: str):
    """Each gets its value, however few connections there may be."""
    flow = create_workflow("shop", cache=crowded)
    flow.cache.set("order:7", Ok("charged"))
    work = Calls("again")

    async def crowd():
        body = async_body(stepping("charge", work, key="order:7"))
        return await asyncio.gather(*(flow.arun(body) for _ in range(1000)))

    assert asyncio.run(crowd()) == [Ok("charged")] * 1000
    assert work.count == 0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_callers_of_one_cold_key_on_one_loop(crowded: str, kind: str):
    """Three hundred of them, whatever the function is: one execution, its value for all."""
    begun = []

    async def charge():
        begun.append(1)
        await asyncio.sleep(0.1)
        return "charged"

    work = slow(0.1) if kind == "sync" else charge
    flow = create_workflow("shop", cache=crowded)

    async def crowd():
        body = async_body(stepping("charge", work, key="order:7"))
        return await asyncio.gather(*(flow.arun(body) for _ in range(300)))

    results = asyncio.run(crowd())
    assert results == [results[0]] * 300
    assert results[0].ok
    assert (work.count if kind == "sync" else len(begun)) == 1


def test_a_thousand_keys_on_one_loop(crowded: str):
    """Misses as well: each runs once."""
    work = Calls(str)
    flow = create_workflow("shop", cache=crowded)

    async def crowd():
        bodies = [async_body(stepping("charge", lambda n=n: work(n), key=f"order:{n}")) for n in range(1000)]
        return await asyncio.gather(*(flow.arun(body) for body in bodies))

    assert asyncio.run(crowd()) == [Ok(str(n)) for n in range(1000)]
    assert work.count == 1000


def run_on_loops(flow: Workflow, times: int) -> None:
    """Each on a loop of its own: a miss, a hit and a map."""

    async def body(step, deps, number):
        await step("charge", lambda: number, key=f"order:{number}")
        return await step.map("charge", range(10), str, key=lambda item: f"order:{number}:{item}", limit=5)

    for number in range(times):
        for _ in range(2):
            assert asyncio.run(flow.arun(body, number)).ok


def test_no_connection_outlives_its_loop(crowded: str, single: Single):
    """The server counts no more clients after many loops than after one."""
    flow = create_workflow("shop", cache=crowded)
    before = len(single.connections())
    run_on_loops(flow, 1)
    once = len(single.connections())
    run_on_loops(flow, 10)

    # What belongs to this thread and to the one that renews leases may stay.
    await_until(lambda: len(single.connections()) <= max(once, before + 2))


def test_loops_in_threads_leave_no_connection(crowded: str, single: Single):
    """Each thread its own loop, all at once."""
    flow = create_workflow("shop", cache=crowded)
    run_on_loops(flow, 1)
    before = len(single.connections())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: run_on_loops(flow, 2), range(8)))

    await_until(lambda: len(single.connections()) <= before + 2)
