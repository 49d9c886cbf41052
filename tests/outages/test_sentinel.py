"""django-redis behind a Sentinel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django_redis.pool import ConnectionFactory

from stepflows import Ok, create_workflow
from tests.calls import Calls
from tests.contract.test_steps import stepping
from tests.outages.conftest import BACKENDS
from tests.sentinels import SERVICE, Watched, running_sentinel
from tests.servers import counted_commands
from tests.voices import Async, Sync, Voice


@pytest.fixture(scope="module")
def _watched(_folder: Path) -> Iterator[Watched]:
    with running_sentinel(_folder / "watched") as watched:
        yield watched


@pytest.fixture
def watched(_watched: Watched) -> Watched:
    """A primary, a replica and a Sentinel; empty."""
    _watched.primary.flushall()
    _watched.await_calm()
    return _watched


@pytest.fixture
def alias(watched: Watched, settings: Any) -> Iterator[str]:
    """django-redis's own way to a Sentinel."""
    options = {
        "CLIENT_CLASS": "django_redis.client.SentinelClient",
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
        "SENTINELS": watched.sentinels,
    }
    alias = {"BACKEND": BACKENDS["django_redis"], "LOCATION": f"redis://{SERVICE}/0", "OPTIONS": options}
    settings.CACHES = {**settings.CACHES, "watched": alias}
    yield "watched"
    for url in [url for url in ConnectionFactory._pools if SERVICE in url]:
        ConnectionFactory._pools.pop(url).disconnect()


def test_misses_and_hits(voice: Voice, alias: str, watched: Watched):
    """A step runs once; a hit is one GET to the primary and nothing to the replica, which may lag."""
    work = Calls("charged")
    flow = create_workflow("shop", cache=alias)
    body = stepping("charge", work, key="order:7")
    assert voice.run(flow, body) == Ok("charged")
    watched.await_calm()

    with counted_commands(watched.primary) as asked, counted_commands(watched.replica) as spared:
        assert voice.run(flow, body) == Ok("charged")

    assert work.count == 1
    assert asked["get"] == 1
    assert spared["get"] == 0


def test_one_at_a_time(voice: Voice, alias: str):
    """Sixteen callers of one cold key, in both voices: one execution."""

    def charge():
        time.sleep(0.05)
        return "charged"

    work = Calls(charge)
    flow = create_workflow("shop", cache=alias)
    voices = [voice, Sync(), Async()]

    def call(index: int) -> Any:
        return voices[index % len(voices)].run(flow, stepping("charge", work, key="order:7"))

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(call, range(16))) == [Ok("charged")] * 16
    assert work.count == 1


def test_after_a_failover(voice: Voice, alias: str, watched: Watched):
    """What was completed is replayed from the new primary, and new steps are stored there."""
    done, work = Calls("fetched"), Calls("charged")
    flow = create_workflow("shop", cache=alias)
    assert voice.run(flow, stepping("fetch", done, key="user:1")) == Ok("fetched")

    watched.fail_over()

    assert voice.run(flow, stepping("fetch", done, key="user:1")) == Ok("fetched")
    assert voice.run(flow, stepping("charge", work, key="order:7")) == Ok("charged")
    assert voice.run(flow, stepping("charge", work, key="order:7")) == Ok("charged")
    assert (done.count, work.count) == (1, 1)


def test_a_failover_in_the_middle_of_a_step(voice: Voice, alias: str, watched: Watched):
    """Its result is stored on the new primary, and the step ran once."""

    def charge():
        watched.fail_over()
        return "charged"

    work = Calls(charge)
    flow = create_workflow("shop", cache=alias)
    body = stepping("charge", work, key="order:7")
    assert [voice.run(flow, body), voice.run(flow, body)] == [Ok("charged")] * 2
    assert work.count == 1
