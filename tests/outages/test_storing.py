"""A cache that goes away while a step's function runs, or while its result is stored."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from stepflows import Event, Ok, create_workflow
from stepflows.caches.names import Name, lease_key
from tests.calls import Calls
from tests.contract.test_steps import stepping
from tests.outages.conftest import TIMEOUT
from tests.outages.single import Single, await_until
from tests.outages.test_down import TROUBLES
from tests.proxies import Proxy
from tests.voices import Voice

#: What the result holds, and no other request.
VALUE = "charged 4711"
#: Seconds for which a result is stored again, and again.
STORING = 3
#: In every request that claims the key or gives it back, or stores it, and in none that looks it up.
LEASE = lease_key(Name("shop", "order:7")).encode()


def charging(during: Callable[[], object]) -> Calls:
    """The function of a step, during which something happens."""

    def charge(*args: Any) -> str:
        during()
        return VALUE

    return Calls(charge)


def kinds(events: list[Event]) -> list[str]:
    return [event.type for event in events]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.fixture
def later() -> Iterator[Callable[[float, Callable[[], object]], None]]:
    """Call it with seconds and what is to happen then, whatever the test is waiting for."""
    timers = []

    def start(seconds: float, action: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, action)
        timers.append(timer)
        timer.start()

    yield start
    for timer in timers:
        timer.join()


def test_a_result_that_cannot_be_stored(voice: Voice, alias: str, proxy: Proxy, events: list[Event], caplog):
    """It is the run's, which does not run its key again, and it is reported; a later run executes the step."""
    work = charging(proxy.refuse)

    def body(step, deps):
        first = yield step("charge", work, key="order:7")
        second = yield step("charge", work, key="order:7")
        return first, second

    flow = create_workflow("shop", cache=alias, on_event=events.append, lease=1)
    assert voice.run(flow, body) == Ok((VALUE, VALUE))

    assert work.count == 1
    [failed] = [event for event in events if event.type == "step_cache_write_failed"]
    assert (failed.label, failed.key) == ("charge", "order:7")
    assert failed.error is not None
    [told] = errors(caplog)
    assert "order:7" in told
    assert "workflow_success" in kinds(events)

    proxy.heal()
    work.outcome = "again"
    started = time.monotonic()
    assert voice.run(flow, body) == Ok(("again", "again"))
    assert work.count == 2
    # What is left of the lease at most.
    assert time.monotonic() - started < 1 + 1


@pytest.fixture
def _uncollected() -> Iterator[None]:
    """A process that only waits makes no garbage, and so has none collected."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_uncollected")
def test_the_lease_of_a_result_that_could_not_be_stored_ends(
    voice: Voice, alias: str, single: Single, events: list[Event]
):
    """Nobody renews it any more, even if something still refers to it, as an error with its traceback does."""
    work = charging(single.demote)
    # It outlasts the trouble, which is over when storing is given up.
    flow = create_workflow("shop", cache=alias, lease=STORING + 2, on_event=events.append)
    body = stepping("charge", work, key="order:7")
    assert voice.run(flow, body) == Ok(VALUE)
    assert "step_cache_write_failed" in kinds(events)
    work.outcome = "again"
    single.mend()
    started = time.monotonic()

    assert voice.run(flow, body) == Ok("again")

    # Else it would be renewed for ever.
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("trouble", ["loses replies", "is full"])
def test_storing_is_given_up(voice: Voice, proxy: Proxy, single: Single, add_alias: Callable[..., str], trouble: str):
    """Soon, whatever keeps the result from being stored."""
    work = charging(lambda: TROUBLES[trouble](proxy, single))
    flow = create_workflow("shop", cache=add_alias("redis", proxy.url))
    started = time.monotonic()

    assert voice.run(flow, stepping("charge", work, key="order:7")) == Ok(VALUE)

    # Look-up and claim are answered at once. It is stored again and again, and the last try has its time limit, too.
    assert time.monotonic() - started < STORING + 3 * TIMEOUT + 1


@pytest.mark.parametrize("trouble", [trouble for trouble in TROUBLES if trouble != "is too slow"])
def test_a_cache_that_is_back_within_a_second(
    voice: Voice, alias: str, proxy: Proxy, single: Single, trouble: str, later: Callable[..., None]
):
    """The result is stored by a retry, and no run executes the step again."""

    def heal() -> None:
        proxy.heal()
        single.mend()

    def during() -> None:
        TROUBLES[trouble](proxy, single)
        later(0.3, heal)

    work = charging(during)
    flow = create_workflow("shop", cache=alias)
    body = stepping("charge", work, key="order:7")

    assert voice.run(flow, body) == Ok(VALUE)

    await_until(lambda: flow.cache.has("order:7"), STORING)
    assert voice.run(flow, body) == Ok(VALUE)
    assert work.count == 1


@pytest.mark.parametrize("after", [0, 2])
def test_a_store_whose_answer_is_lost(voice: Voice, alias: str, proxy: Proxy, events: list[Event], caplog, after: int):
    """It was stored, and counts as stored: nothing is reported, and later runs hit."""
    proxy.cut_reply(VALUE.encode(), after)
    work = charging(lambda: None)
    flow = create_workflow("shop", cache=alias, on_event=events.append)
    body = stepping("charge", work, key="order:7")

    assert [voice.run(flow, body), voice.run(flow, body)] == [Ok(VALUE)] * 2

    assert proxy.replies_cut == 1
    assert work.count == 1
    assert kinds(events).count("step_cache_hit") == 1
    assert "step_cache_write_failed" not in kinds(events)
    assert errors(caplog) == []


def test_a_store_that_is_lost(voice: Voice, alias: str, proxy: Proxy, events: list[Event]):
    """The connection breaks as the result is sent; it is sent again."""
    proxy.when(VALUE.encode(), proxy.cut)
    work = charging(lambda: None)
    flow = create_workflow("shop", cache=alias, on_event=events.append)
    body = stepping("charge", work, key="order:7")

    assert [voice.run(flow, body), voice.run(flow, body)] == [Ok(VALUE)] * 2

    assert work.count == 1
    assert "step_cache_write_failed" not in kinds(events)


@pytest.mark.parametrize("trouble", ["request lost", "answer lost", "answer late"])
def test_a_claim_that_goes_wrong(voice: Voice, alias: str, proxy: Proxy, trouble: str):
    """Whether the lease was got or not: the step runs once, in this run or in a later one, and none waits for long."""
    if trouble == "request lost":
        proxy.when(LEASE, proxy.cut)
    elif trouble == "answer lost":
        proxy.cut_reply(LEASE)
    else:
        proxy.when(LEASE, partial(proxy.swallow, requests=False))
    work = charging(lambda: None)
    flow = create_workflow("shop", cache=alias, lease=1)
    body = stepping("charge", work, key="order:7")
    started = time.monotonic()
    first = voice.run(flow, body)
    assert time.monotonic() - started < 6 * TIMEOUT + 1
    assert work.count == int(first.ok)
    proxy.heal()
    started = time.monotonic()

    assert voice.run(flow, body) == Ok(VALUE)

    assert work.count == 1
    # A lease that nobody knows of ends by itself.
    assert time.monotonic() - started < 1 + 1


def test_a_map_stores_what_it_can(voice: Voice, alias: str, proxy: Proxy, later: Callable[..., None]):
    """A cache that is away for a moment in the middle of a map costs no execution."""

    def work(item):
        if item == 5:
            proxy.refuse()
            later(0.3, proxy.heal)
        return item

    counted = Calls(work)
    flow = create_workflow("shop", cache=alias)
    body = stepping("charge", range(10), counted, key=str, method="map", limit=2)

    assert voice.run(flow, body) == Ok(list(range(10)))
    await_until(lambda: all(flow.cache.has(str(item)) for item in range(10)), STORING)
    assert voice.run(flow, body) == Ok(list(range(10)))
    assert counted.count == 10
