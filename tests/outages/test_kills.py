"""Processes that are killed while they run a step."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from django.core.cache import caches
from redis import Redis

from stepflows import Ok, Result, create_workflow
from stepflows.caches.names import Name, lease_key
from stepflows.definitions import Workflow
from tests.calls import Calls
from tests.contract.test_steps import stepping
from tests.outages.forker import Forker, Order, notes, running_forker
from tests.outages.single import await_until
from tests.servers import Valkey
from tests.voices import Voice

#: Seconds.
LEASE = 1.0
#: Beside the rest of the lease: what a busy machine may need to get an answer to each of twenty callers.
MARGIN = 5.0
KILLS = 20


class Point(NamedTuple):
    """When a process is killed."""

    #: The note after which it is.
    note: str
    #: Seconds that its step takes.
    takes: float
    #: Seconds after the note, at random between these.
    between: tuple[float, float]


POINTS = [
    Point("born", 60, (0, 0.01)),
    Point("begun", 60, (0, 0.1)),
    Point("begun", 60, (1.5 * LEASE, 1.5 * LEASE)),
    Point("begun", 0.05, (0.045, 0.06)),
]


@pytest.fixture
def alias(voice: Voice, valkey: Valkey) -> str:
    """To the server it makes no difference which one."""
    return "django_redis" if voice.is_async else "redis"


@pytest.fixture(scope="module")
def _forker(_valkey_server: Valkey) -> Iterator[Forker]:
    with running_forker() as forker:
        yield forker


@pytest.fixture
def forker(_forker: Forker) -> Iterator[Forker]:
    """A process that starts children to be killed."""
    yield _forker
    _forker.kill_all()


@pytest.fixture
def book() -> Iterator[Redis]:
    """What the processes noted."""
    with notes() as book:
        book.flushdb()
        yield book


def test_the_key_is_free_within_the_lease(voice: Voice, alias: str, valkey: Valkey, forker: Forker, book: Redis):
    """Killed twenty times at random: the next caller gets an answer in time, and there is one value for each key."""
    flow = create_workflow("shop", cache=alias, lease=LEASE)

    def kill(index: int) -> tuple[str, Result, float]:
        point, chance = POINTS[index % len(POINTS)], random.Random(index)
        key = f"order:{index}"
        child = forker.fork(Order(alias, key, LEASE, point.takes, voice.is_async))
        await_until(lambda: book.exists(f"{point.note}:{key}"))
        time.sleep(chance.uniform(*point.between))
        forker.kill(child)
        # Milliseconds; -2 if there is no lease, -1 if it never ended.
        left = valkey.client.pttl(caches[alias].make_key(lease_key(Name("shop", key))))
        assert left == -2 or 0 <= left <= LEASE * 1000
        return key, *next_caller(voice, flow, key, book)

    with ThreadPoolExecutor(KILLS) as pool:
        answers = list(pool.map(kill, range(KILLS)))

    for key, result, seconds in answers:
        assert seconds < LEASE + MARGIN
        assert flow.cache.get(key) == result
        assert {Ok(value) for value in book.lrange(f"answers:{key}", 0, -1)} <= {result}
        assert int(book.get(f"begun:{key}")) <= 2
    assert valkey.client.keys("*lease:*") == []


def next_caller(voice: Voice, flow: Workflow, key: str, book: Redis) -> tuple[Result, float]:
    """What it gets, and after how many seconds."""

    def charge():
        book.incr(f"begun:{key}")
        return "by the next caller"

    started = time.monotonic()
    result = voice.run(flow, stepping("charge", charge, key=key))
    return result, time.monotonic() - started


def test_a_living_holder_keeps_its_lease(voice: Voice, alias: str, forker: Forker, book: Redis):
    """However long its step takes, nobody else runs it, and everybody gets its value."""
    child = forker.fork(Order(alias, "order:7", 0.4, 1.2, voice.is_async))
    await_until(lambda: book.exists("begun:order:7"))
    work = Calls("by somebody else")
    flow = create_workflow("shop", cache=alias, lease=0.4)

    assert voice.run(flow, stepping("charge", work, key="order:7")) == Ok(f"by {child}")

    assert work.count == 0
    assert book.get("begun:order:7") == "1"
