"""A cache that cannot be reached when a step asks for it."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from stepflows import CacheUnavailable, Event, Ok, create_workflow
from tests.calls import Calls
from tests.contract.test_steps import stepping
from tests.outages.conftest import BACKENDS, TIMEOUT
from tests.outages.single import Single
from tests.proxies import Proxy
from tests.voices import Voice

#: What a cache can suffer so that nothing can be asked of it.
SILENT: dict[str, Callable[[Proxy, Single], object]] = {
    "refuses": lambda proxy, single: proxy.refuse(),
    "loses replies": lambda proxy, single: proxy.swallow(requests=False),
    "is too slow": lambda proxy, single: proxy.delay(TIMEOUT),
    "stands still": lambda proxy, single: single.pause(),
    "is gone": lambda proxy, single: single.stop(),
}
#: What it can suffer so that it still answers, and takes nothing.
UNWRITABLE: dict[str, Callable[[Proxy, Single], object]] = {
    "is full": lambda proxy, single: single.fill(),
    "is a replica": lambda proxy, single: single.demote(),
}
TROUBLES = {**SILENT, **UNWRITABLE}


@pytest.fixture(params=TROUBLES)
def strike(request: pytest.FixtureRequest, proxy: Proxy, single: Single) -> Callable[[], object]:
    """Call it, and the cache takes nothing more."""
    return lambda: TROUBLES[request.param](proxy, single)


@pytest.mark.parametrize("connected", [False, True], ids=["cold", "connected"])
def test_by_default_nothing_runs(
    voice: Voice, alias: str, strike: Callable[[], object], events: list[Event], connected: bool
):
    """Err(CacheUnavailable) that names the step and keeps the client's error, and no waiting beyond the time limits."""
    work = Calls("charged")
    times = []

    def body(step, deps):
        if connected:
            yield step("other", lambda: 1, key="other")
        strike()
        times.append(time.monotonic())
        yield step("charge", work, key="order:7")

    result = voice.run(create_workflow("shop", cache=alias, on_event=events.append), body)

    assert isinstance(result.error, CacheUnavailable)
    assert isinstance(result.cause, Exception)
    assert (result.step.label, result.step.key) == ("charge", "order:7")
    assert work.count == 0
    assert "step_start" not in [event.type for event in events if event.label == "charge"]
    # The look-up, the claim, and what may be asked once more; each has the time limit of the alias.
    assert time.monotonic() - times[0] < 6 * TIMEOUT + 1


@pytest.mark.parametrize("trouble", ["refuses", "is full"])
def test_a_map_runs_nothing_either(voice: Voice, alias: str, proxy: Proxy, single: Single, trouble: str):
    """None of its items."""
    TROUBLES[trouble](proxy, single)
    work = Calls("charged")
    result = voice.run(create_workflow("shop", cache=alias), stepping("charge", [1, 2, 3], work, key=str, method="map"))
    assert isinstance(result.error, CacheUnavailable)
    assert work.count == 0


@pytest.mark.parametrize("trouble", ["refuses", "stands still", "is full"])
def test_steps_run_if_so_wished(voice: Voice, alias: str, proxy: Proxy, single: Single, trouble: str, caplog):
    """With on_cache_down="run" they run uncached, once per key and run, and the log says so."""
    TROUBLES[trouble](proxy, single)
    work = Calls("charged")

    def body(step, deps):
        first = yield step("charge", work, key="order:7")
        second = yield step("charge", work, key="order:7")
        return first, second

    flow = create_workflow("shop", cache=alias, on_cache_down="run")
    with caplog.at_level(logging.WARNING, "stepflows"):
        assert voice.run(flow, body) == Ok(("charged", "charged"))
    assert work.count == 1
    assert caplog.records


@pytest.mark.parametrize("trouble", UNWRITABLE)
def test_hits_need_no_writing(voice: Voice, alias: str, proxy: Proxy, single: Single, trouble: str):
    """A cache that is full or read-only still gives what it has."""
    flow = create_workflow("shop", cache=alias)
    body = stepping("charge", Calls("charged"), key="order:7")
    assert voice.run(flow, body) == Ok("charged")
    UNWRITABLE[trouble](proxy, single)

    assert voice.run(flow, body) == Ok("charged")


def test_it_works_again_once_the_cache_is_back(voice: Voice, alias: str, proxy: Proxy, single: Single, strike):
    """Nothing remembers the outage: no lease, no broken connection."""
    flow = create_workflow("shop", cache=alias, lease=1)
    work = Calls("charged")
    body = stepping("charge", work, key="order:7")
    strike()
    assert isinstance(voice.run(flow, body).error, CacheUnavailable)
    proxy.heal()
    single.restore()

    assert [voice.run(flow, body), voice.run(flow, body)] == [Ok("charged")] * 2
    assert work.count == 1


@pytest.mark.parametrize("where", ["OPTIONS", "settings"])
@pytest.mark.parametrize("trouble", ["refuses", "loses replies", "is full"])
def test_ignoring_exceptions_makes_no_miss_of_an_outage(
    voice: Voice, proxy: Proxy, single: Single, add_alias: Callable[..., str], settings: Any, where: str, trouble: str
):
    """django-redis can be told to turn errors into misses; a step that charges must not run on one."""
    options = {"IGNORE_EXCEPTIONS": True} if where == "OPTIONS" else {}
    settings.DJANGO_REDIS_IGNORE_EXCEPTIONS = where == "settings"
    alias = add_alias("django_redis", proxy.url, **options)
    TROUBLES[trouble](proxy, single)
    work = Calls("charged")

    result = voice.run(create_workflow("shop", cache=alias), stepping("charge", work, key="order:7"))

    assert isinstance(result.error, CacheUnavailable)
    assert work.count == 0


@pytest.fixture
def unreachable() -> Iterator[int]:
    """A port that answers no attempt to connect, not even with a refusal: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.1)
            try:
                waiting.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()[1]


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_host_that_does_not_answer(voice: Voice, kind: str, unreachable: int, add_alias: Callable[..., str]):
    """Connecting is given up after socket_connect_timeout."""
    flow = create_workflow("shop", cache=add_alias(kind, f"redis://127.0.0.1:{unreachable}/0"))
    work = Calls("charged")
    started = time.monotonic()

    result = voice.run(flow, stepping("charge", work, key="order:7"))

    assert isinstance(result.error, CacheUnavailable)
    assert work.count == 0
    assert time.monotonic() - started < 6 * TIMEOUT + 1
