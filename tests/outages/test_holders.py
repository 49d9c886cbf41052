"""A holder of a lease that is cut off from the cache, and those who wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from stepflows import CacheUnavailable, Ok, Result, create_workflow
from tests.calls import Calls
from tests.contract.test_steps import stepping
from tests.outages.conftest import TIMEOUT
from tests.outages.single import PATIENCE, Single
from tests.outages.test_servers import ACCIDENTS
from tests.proxies import Proxy
from tests.voices import Voice


@pytest.fixture
def direct(single: Single, add_alias: Callable[..., str]) -> str:
    """An alias of the same server that is spared what befalls the proxy: somebody else's machine."""
    return add_alias("redis", single.url, name="direct")


@pytest.fixture
def waiter() -> Iterator[Callable[..., Future[Result]]]:
    """Call it with a voice, an alias, options and a function: a thread that waits for somebody else's step."""
    with ThreadPoolExecutor(1) as pool:

        def wait(voice: Voice, alias: str, work: Callable[[], Any], **options: Any) -> Future[Result]:
            waiting = threading.Event()

            def listen(event: Any) -> None:
                if event.type == "step_wait":
                    waiting.set()

            flow = create_workflow("shop", cache=alias, on_event=listen, **options)
            future = pool.submit(voice.run, flow, stepping("charge", work, key="order:7"))
            assert waiting.wait(PATIENCE)
            return future

        yield wait


def test_cut_off_for_longer_than_the_lease(voice: Voice, alias: str, direct: str, proxy: Proxy):
    """Somebody else runs the step and stores first; who comes late gets that result."""
    other = create_workflow("shop", cache=direct, lease=0.4)

    def charge():
        proxy.refuse()
        with ThreadPoolExecutor(1) as pool:
            theirs = pool.submit(other.run, stepping_now("charge", lambda: "by somebody else"))
        assert theirs.result() == Ok("by somebody else")
        proxy.heal()
        return "late"

    work = Calls(charge)
    flow = create_workflow("shop", cache=alias, lease=0.4)
    for _ in range(2):
        assert voice.run(flow, stepping("charge", work, key="order:7")) == Ok("by somebody else")
    assert work.count == 1


def stepping_now(label: str, work: Callable[[], Any]) -> Callable[..., Any]:
    """A sync body of one step."""
    return lambda step, deps: step(label, work, key="order:7")


@pytest.mark.parametrize("trouble", ["refuse", "swallow"])
def test_cut_off_for_a_moment(
    voice: Voice, add_alias: Callable[..., str], proxy: Proxy, direct: str, waiter: Callable, trouble: str
):
    """The lease is renewed as soon as that works again: nobody else runs the step, however long it takes."""
    alias = add_alias("redis", proxy.url)
    other = Calls("by somebody else")
    futures = []

    def charge():
        futures.append(waiter(voice, direct, other, lease=3))
        getattr(proxy, trouble)()
        time.sleep(1.2)
        proxy.heal()
        time.sleep(2.2)
        return "by the holder"

    flow = create_workflow("shop", cache=alias, lease=3)
    assert voice.run(flow, stepping("charge", charge, key="order:7")) == Ok("by the holder")
    assert futures[0].result(PATIENCE) == Ok("by the holder")
    assert other.count == 0


@pytest.mark.parametrize("trouble", ["refuse", "swallow"])
def test_who_waits_learns_of_an_outage(
    voice: Voice, alias: str, direct: str, proxy: Proxy, waiter: Callable[..., Future[Result]], trouble: str
):
    """Instead of waiting on or running the step: Err(CacheUnavailable), soon."""
    work = Calls("by the waiter")

    def charge():
        waiting = waiter(voice, alias, work)
        started = time.monotonic()
        getattr(proxy, trouble)()
        result = waiting.result(PATIENCE)
        assert time.monotonic() - started < 4 * TIMEOUT + 1
        assert isinstance(result.error, CacheUnavailable)
        return "by the holder"

    flow = create_workflow("shop", cache=direct)
    assert flow.run(stepping_now("charge", charge)) == Ok("by the holder")
    assert work.count == 0


@pytest.mark.parametrize("accident", ["forgets scripts", "closes connections", "is emptied"])
def test_who_waits_while_the_server_forgets(
    voice: Voice, alias: str, single: Single, waiter: Callable[..., Future[Result]], accident: str
):
    """There is one value, which both get, unless the waiter learns that its question was lost."""
    work = Calls("by the waiter")
    futures = []

    def charge():
        futures.append(waiter(voice, alias, work))
        ACCIDENTS[accident](single)
        time.sleep(0.1)
        return "by the holder"

    flow = create_workflow("shop", cache=alias)
    result = voice.run(flow, stepping("charge", charge, key="order:7"))
    other = futures[0].result(PATIENCE)

    assert result.ok
    assert other == result or (accident == "closes connections" and isinstance(other.error, CacheUnavailable))
    if accident != "is emptied":
        assert work.count == 0
    assert flow.cache.get("order:7") == result
