"""Calling a run off from outside."""

import asyncio
import time

import pytest

from stepflows import Ok, Retry
from stepflows.caches.mapping import MappingCache
from stepflows.engine import plan
from stepflows.engine.cancellation import Cancellation
from stepflows.engine.context import RunContext
from stepflows.engine.drivers import AsyncDriver, Driver
from stepflows.engine.steps import AsyncStep, Step


class Sync:
    """A run in this thread."""

    def __init__(self, cache, cancellation):
        self._driver = Driver(MappingCache(cache), cancellation=cancellation)

    def run(self, body):
        run = RunContext("checkout")
        return self._driver.drive(plan.workflow(run, lambda: body(Step(run, self._driver))))


class Async:
    """The same body of one awaited call, on an event loop."""

    def __init__(self, cache, cancellation):
        self._driver = AsyncDriver(MappingCache(cache), cancellation=cancellation)

    def run(self, body):
        run = RunContext("checkout")

        async def awaited():
            # Each of the bodies here hands on what its last step gives.
            return await body(AsyncStep(run, self._driver))

        return asyncio.run(self._driver.drive(plan.workflow(run, awaited)))


@pytest.fixture
def cache():
    return {}


@pytest.fixture
def cancellation():
    return Cancellation()


@pytest.fixture(params=[Sync, Async])
def voice(request, cache, cancellation):
    return request.param(cache, cancellation)


def test_a_run_that_is_called_off_ends_before_its_next_step(voice, cache, cancellation):
    """A step that is under way is finished, and stored."""

    def first():
        cancellation.request()
        return 1

    with pytest.raises(asyncio.CancelledError):
        voice.run(lambda step: step("first", first, key="first"))
        voice.run(lambda step: step("second", lambda: 2, key="second"))

    assert cache == {"first": Ok(1)}


def test_a_run_that_was_called_off_before_does_nothing(voice, cache, cancellation):
    """Not even look."""
    cancellation.request()

    with pytest.raises(asyncio.CancelledError):
        voice.run(lambda step: step("first", lambda: 1, key="first"))

    assert cache == {}


def test_a_pause_is_cut_short(voice, cancellation):
    """Whoever waits for the next attempt in an hour does not wait for it."""

    def fails():
        cancellation.request()
        raise ValueError

    start = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        voice.run(lambda step: step("fails", fails, key="k", retry=Retry(2, wait=3600)))

    assert time.monotonic() - start < 60


def test_items_of_a_map_that_have_begun_are_stored(voice, cache, cancellation):
    """The others are not begun."""

    def item(number):
        cancellation.request()
        return number

    with pytest.raises(asyncio.CancelledError):
        voice.run(lambda step: step.map("item", [1, 2, 3], item, key=lambda number: f"item:{number}", limit=1))

    assert cache == {"item:1": Ok(1)}


def test_leases_are_given_back(voice, cancellation):
    """Others need not wait until they end by themselves."""
    cache = {}

    def fails():
        cancellation.request()
        raise ValueError

    voice = type(voice)(cache, cancellation)
    with pytest.raises(asyncio.CancelledError):
        voice.run(lambda step: step("fails", fails, key="k", retry=Retry(2, wait=3600)))

    assert type(voice)(cache, Cancellation()).run(lambda step: step("works", lambda: 1, key="k")) == Ok(1)
