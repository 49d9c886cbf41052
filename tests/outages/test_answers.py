"""Answers of the cache that arrive late, in part, or when nobody waits for them any more."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from functools import partial

import pytest

from stepflows import CacheUnavailable, Ok, create_workflow
from stepflows.caches.names import Name, lease_key
from tests.calls import Calls
from tests.contract.test_steps import stepping
from tests.outages.conftest import BACKENDS
from tests.outages.single import await_until
from tests.proxies import Proxy
from tests.voices import Voice, async_body

#: Seconds until an answer is late: enough for a prompt one on a busy machine.
LATE = 1.0


@pytest.fixture(params=BACKENDS)
def patient(request: pytest.FixtureRequest, proxy: Proxy, add_alias: Callable[..., str]) -> str:
    """Both ways to a Redis server in turn, for tests in which some answers must not be late."""
    return add_alias(request.param, proxy.url, timeout=LATE)


@pytest.mark.parametrize("after", [0, 1, 5, 1000, 200_000])
def test_a_hit_whose_answer_breaks_off(voice: Voice, alias: str, proxy: Proxy, after: int):
    """It is no miss: the step does not run."""
    value = random.Random(7).randbytes(300_000)
    flow = create_workflow("shop", cache=alias)
    flow.cache.set("order:7", Ok(value))
    work = Calls("again")
    proxy.cut_reply(b"order:7", after)

    result = voice.run(flow, stepping("charge", work, key="order:7"))

    assert proxy.replies_cut == 1
    assert work.count == 0
    assert result == Ok(value) or isinstance(result.error, CacheUnavailable)


def test_a_late_answer_is_nobody_elses(voice: Voice, patient: str, proxy: Proxy):
    """What arrives after its time limit is not taken for the answer to the next question."""
    flow = create_workflow("shop", cache=patient)
    for name in "abc":
        flow.cache.set(name, Ok(f"value of {name}"))

    def body(step, deps):
        first = yield step("load", str, key="a")
        proxy.delay(LATE * 0.75)
        with pytest.raises(CacheUnavailable):
            yield step("load", str, key="b")
        proxy.heal()
        third = yield step("load", str, key="c")
        second = yield step("load", str, key="b")
        return first, third, second

    assert voice.run(flow, body) == Ok(("value of a", "value of c", "value of b"))


def test_a_cancelled_question_leaves_no_answer_behind(patient: str, proxy: Proxy):
    """Tasks that are cancelled at any moment spoil nothing for those that go on, on the same loop."""
    flow = create_workflow("shop", cache=patient)
    for number in range(20):
        flow.cache.set(str(number), Ok(f"value of {number}"))
    chance = random.Random(20)

    async def load(number):
        return await flow.arun(async_body(stepping("load", str, key=str(number))))

    async def main():
        proxy.delay(0.01)
        for _ in range(10):
            tasks = [asyncio.ensure_future(load(number)) for number in range(20)]
            await asyncio.sleep(chance.uniform(0, 0.05))
            for task in chance.sample(tasks, 10):
                task.cancel()
            for number, result in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
                assert isinstance(result, asyncio.CancelledError) or result == Ok(f"value of {number}")
        return len(proxy)

    before = len(proxy)
    assert asyncio.run(main()) >= before
    await_until(lambda: len(proxy) <= before + 1)


def test_a_cancelled_claim_keeps_nobody_waiting(alias: str, proxy: Proxy):
    """Whether the lease was got or not, the next one has it within its time."""
    flow = create_workflow("shop", cache=alias, lease=1)
    work = Calls("charged")
    body = async_body(stepping("charge", work, key="order:7"))

    async def main():
        claiming = asyncio.Event()
        proxy.when(
            lease_key(Name("shop", "order:7")).encode(),
            partial(asyncio.get_running_loop().call_soon_threadsafe, claiming.set),
        )
        proxy.delay(0.05)
        task = asyncio.ensure_future(flow.arun(body))
        await asyncio.wait_for(claiming.wait(), 10)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        proxy.heal()
        started = time.monotonic()
        assert await flow.arun(body) == Ok("charged")
        return time.monotonic() - started

    assert asyncio.run(main()) < 1 + 1
    assert work.count == 1
