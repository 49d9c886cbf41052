"""What has run is stored, whatever strikes meanwhile."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

import stepflows.definitions  # noqa: F401 - says which exceptions are Celery's limits
from stepflows.caches.mapping import MappingCache
from stepflows.engine import plan
from stepflows.engine.cache import Entry, Standing
from stepflows.engine.context import RunContext
from stepflows.engine.drivers import AsyncDriver, Driver
from stepflows.engine.execution import Request, single
from stepflows.engine.operations import Outcome, Raised, Returned
from stepflows.engine.policy import Policy, Retry
from stepflows.engine.threads import Attended, Threads
from stepflows.errors import CacheUnavailable
from stepflows.results import Ok

PATIENCE = 10


class Struck(MappingCache):
    """Storing is struck by these, one after the other, before it works."""

    def __init__(self, *strokes: BaseException) -> None:
        super().__init__({})
        self.strokes = list(strokes)

    def store(self, entries: Sequence[Entry]) -> list[Standing]:
        if self.strokes:
            raise self.strokes.pop(0)
        return super().store(entries)


class Slow(MappingCache):
    """Storing takes until it is let go, and may fail then."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__({})
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.error = error

    async def astore(self, entries: Sequence[Entry]) -> list[Standing]:
        self.begun.set()
        await self.go.wait()
        if self.error:
            raise self.error
        return self.store(entries)


def step(function: Any, **options: Any) -> Any:
    return plan.step(RunContext("w"), Request("label", "k", Policy(**options)), single(function))


@pytest.mark.parametrize("stroke", [SoftTimeLimitExceeded(), KeyboardInterrupt()], ids=repr)
def test_a_stroke_while_storing_does_not_undo_the_step(stroke: BaseException):
    """It is stored before the end, which comes all the same."""
    cache = Struck(stroke)
    with pytest.raises(type(stroke)):
        Driver(cache).drive(step(lambda: 1))
    assert cache.given["k"] == Ok(1)


def test_a_stroke_while_the_cache_is_away_is_told(caplog: pytest.LogCaptureFixture):
    """The result is lost then, which somebody should know."""
    cache = Struck(KeyboardInterrupt(), CacheUnavailable("away"))
    with caplog.at_level(logging.ERROR, "stepflows"), pytest.raises(KeyboardInterrupt):
        Driver(cache).drive(step(lambda: 1))
    assert "could not be stored before the end: away" in caplog.text


@pytest.mark.parametrize("error", [None, CacheUnavailable("away")])
async def test_a_cancellation_waits_for_what_is_being_stored(error: Any, caplog: pytest.LogCaptureFixture):
    """Or tells that it could not be."""
    cache = Slow(error)
    task = asyncio.ensure_future(AsyncDriver(cache).drive(step(_one)))
    await cache.begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    cache.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ("k" in cache.given) is (error is None)
    assert ("could not be stored before the end" in caplog.text) is (error is not None)


async def _one() -> int:
    return 1


def left(outcome: Outcome, *, begun: bool = True) -> list[Outcome]:
    """What is seen to when a function that has come to this is left."""
    seen: list[Outcome] = []
    done = threading.Event()

    class Noting(Threads):
        def finished(self) -> None:
            done.set()

    attended = Attended(lambda: outcome, seen.append, Noting())
    if begun:
        attended()
    assert attended.leave() is begun
    if begun:
        assert done.wait(PATIENCE)
    else:
        assert isinstance(attended(), Raised)
    return seen


def test_an_outcome_that_nobody_took_is_seen_to():
    """In a thread of its own, because whoever leaves may be an event loop."""
    assert left(Returned(1)) == [Returned(1)]


def test_a_function_that_nobody_waits_for_does_not_begin():
    """Its lease is given back instead."""
    assert left(Returned(1), begun=False) == []


class Gate:
    """A function in a thread, let go from outside."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> Any:
        self.begun.set()
        assert self.go.wait(PATIENCE)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome() if callable(self.outcome) else self.outcome


async def cancelled(gate: Gate, cache: MappingCache, **options: Any) -> None:
    """Cancel a step that is in a thread, then let it end; wait until the key is free or stored."""
    task = asyncio.ensure_future(AsyncDriver(cache).drive(step(gate, **options)))
    await asyncio.to_thread(gate.begun.wait, PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.go.set()
    for _ in range(1000):
        (claimed,) = cache.claim(["k"], 30)
        if type(claimed).__name__ != "Busy":
            return
        await asyncio.sleep(0.005)
    raise AssertionError("Somebody still has the lease.")


@pytest.mark.parametrize(
    ("outcome", "options", "stored"),
    [
        (1, {}, True),
        (ValueError("no"), {}, True),
        (ValueError("no"), {"retry": Retry(3, wait=0)}, False),
        (SystemExit(), {}, False),
        (_one, {}, False),
    ],
    ids=["value", "error", "error to be tried again", "exit", "coroutine"],
)
async def test_what_a_left_thread_comes_to(outcome: Any, options: Any, stored: bool):
    """A result is stored; what is none leaves the key to the next one."""
    cache = MappingCache({})
    await cancelled(Gate(outcome), cache, **options)
    assert ("k" in cache.given) is stored


async def test_a_result_of_a_left_thread_that_cannot_be_stored_is_told(caplog: pytest.LogCaptureFixture):
    """There is nobody else to tell."""
    await cancelled(Gate(1), Struck(RuntimeError("odd")))
    assert "could not be stored" in caplog.text
