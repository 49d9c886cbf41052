"""Whoever asks first for a missing key runs its step, and everybody else gets the same result."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.db import connections

from stepflows import Err, Event, InvalidOption, InvalidUse, Ok, create_workflow
from tests.calls import Calls
from tests.contract.test_steps import stepping
from tests.maplikes import AsyncMap, SyncMap
from tests.memcached import MEMCACHED
from tests.voices import Async, Sync, Voice

PATIENCE = 20
SHARED = [
    pytest.param("database", marks=pytest.mark.django_db(transaction=True)),
    "file",
    "redis",
    "django_redis",
    *MEMCACHED,
]


@contextmanager
def crowd(size: int):
    """Threads that have been started; what they are given begins at the same moment."""
    ready = threading.Barrier(size)

    def begin(function: Callable[[], Any]) -> Any:
        ready.wait(PATIENCE)
        try:
            return function()
        finally:
            connections.close_all()
            caches.close_all()

    with ThreadPoolExecutor(size) as pool:
        yield lambda functions: [each.result(PATIENCE) for each in [pool.submit(begin, one) for one in functions]]


class Slow:
    """Takes its time, and gives every caller something else."""

    def __init__(self, seconds: float = 0.1) -> None:
        self.seconds = seconds
        self.lock = threading.Lock()
        self.count = 0

    def __call__(self, *_: Any) -> int:
        with self.lock:
            self.count += 1
            number = self.count
        time.sleep(self.seconds)
        return number


def test_threads_get_one_result(voice: Voice, cache: Any):
    """Of eight at once one runs the step."""
    work = Slow()
    flow = create_workflow("shop", cache=cache)
    with crowd(8) as together:
        results = together([lambda: voice.run(flow, stepping("a", work, key="a"))] * 8)
    assert results == [Ok(1)] * 8
    assert work.count == 1


def test_threads_and_event_loops_get_one_result(cache: Any):
    """In any mix."""
    work = Slow()
    flow = create_workflow("shop", cache=cache)
    with crowd(6) as together:
        results = together([lambda v=v: v.run(flow, stepping("a", work, key="a")) for v in [Sync(), Async()] * 3])
    assert results == [Ok(1)] * 6
    assert work.count == 1


async def test_tasks_get_one_result(cache: Any):
    """Of fifty on one loop one runs the step, sync or async."""
    flow = create_workflow("shop", cache=cache)
    count = 0

    async def work():
        nonlocal count
        count += 1
        await asyncio.sleep(0.05)
        return count

    async def body(step, deps):
        return await step("a", work, key="a")

    assert await asyncio.gather(*(flow.arun(body) for _ in range(50))) == [Ok(1)] * 50
    assert count == 1


@pytest.mark.parametrize("cache_alias", SHARED, indirect=True)
def test_processes_get_one_result(cache_alias: str, tmp_path: Path):
    """Whatever starts at the same moment in four of them, one runs."""
    script = (
        "import django, os, sys, time; django.setup();"
        "from stepflows import create_workflow;"
        "flow = create_workflow('shop', cache=sys.argv[1]);"
        "work = lambda: (time.sleep(0.3), os.getpid(), open(sys.argv[2], 'a').write('ran\\n'))[1];"
        "print('ready', flush=True); sys.stdin.readline();"
        "print(flow.run(lambda step, deps: step('a', work, key='a')).unwrap(), flush=True)"
    )
    ran = tmp_path / "ran"
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    command = [sys.executable, "-c", script, cache_alias, str(ran)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    root = Path(__file__).parents[2]
    processes = [subprocess.Popen(command, env=environ, cwd=root, **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = {process.communicate(timeout=PATIENCE)[0] for process in processes}
    assert len(answers) == 1
    assert ran.read_text() == "ran\n"


@pytest.mark.parametrize("error", [ValueError("no"), Err("NO")], ids=["raised", "returned"])
def test_an_error_is_everybodys_error(voice: Voice, cache: Any, error: Any):
    """Those who waited for it get it from the cache, as a replay."""

    def work():
        time.sleep(0.1)
        ran.append(1)
        if isinstance(error, Err):
            return error
        raise error

    ran: list[int] = []
    flow = create_workflow("shop", cache=cache)
    with crowd(4) as together:
        results = together([lambda: voice.run(flow, stepping("a", work, key="a"))] * 4)
    assert ran == [1]
    assert {repr(result.error) for result in results} == {repr(error.error if isinstance(error, Err) else error)}
    assert sorted(result.step.replayed for result in results) == [False, True, True, True]


def test_an_error_that_is_not_kept_is_tried_by_each(voice: Voice, cache: Any):
    """One after the other: each waits for the lease of the one before."""
    running: list[int] = []
    overlaps: list[int] = []

    def work():
        running.append(1)
        overlaps.append(len(running))
        time.sleep(0.02)
        running.pop()
        raise ValueError

    flow = create_workflow("shop", cache=cache, cache_errors=False)
    with crowd(4) as together:
        results = together([lambda: voice.run(flow, stepping("a", work, key="a"))] * 4)
    assert all(isinstance(result.error, ValueError) for result in results)
    assert overlaps == [1, 1, 1, 1]


def test_without_single_flight_both_run(voice: Voice, cache: Any):
    """And the first result stored is what both return."""
    both = threading.Barrier(2)
    count: list[int] = []

    def work():
        both.wait(PATIENCE)
        count.append(1)
        return len(count)

    flow = create_workflow("shop", cache=cache, single_flight=False)
    with crowd(2) as together:
        results = together([lambda: voice.run(flow, stepping("a", work, key="a"))] * 2)
    assert len(count) == 2
    if not isinstance(cache, SyncMap | AsyncMap):
        # Those have no way to store only what is the first.
        assert results[0] == results[1]


def test_a_step_may_take_longer_than_its_lease(every_cache: dict[str, Any]):
    """It is renewed for as long as the step runs."""
    voices = {"sync": Sync(), "async": Async()}
    work = {(name, alias): Slow(5) for name in voices for alias in every_cache}

    def call(name: str, alias: str) -> Any:
        flow = create_workflow("shop", cache=every_cache[alias], lease=2)
        return voices[name].run(flow, stepping("a", work[name, alias], key=name))

    with crowd(2 * len(work)) as together:
        results = together([partial(call, *each) for each in work] * 2)
    assert results == [Ok(1)] * 2 * len(work)
    assert {each: slow.count for each, slow in work.items()} == dict.fromkeys(work, 1)


def test_who_waits_tells_so(voice: Voice, cache: Any, events: list[Event]):
    """A miss, a wait and then a hit; whoever runs it does not wait."""
    began = threading.Event()

    def work():
        began.set()
        time.sleep(0.1)
        return 1

    def second():
        assert began.wait(PATIENCE)
        return voice.run(create_workflow("shop", cache=cache, on_event=events.append), stepping("a", work, key="a"))

    with crowd(2) as together:
        first = create_workflow("shop", cache=cache)
        assert together([lambda: voice.run(first, stepping("a", work, key="a")), second]) == [Ok(1), Ok(1)]
    kinds = [event.type for event in events]
    assert kinds == ["workflow_start", "step_cache_miss", "step_wait", "step_cache_hit", "workflow_success"]


def test_a_long_wait_is_in_the_log(voice: Voice, caplog: pytest.LogCaptureFixture):
    """Once, after a lease's time: the holder is alive, but somebody may want to know."""
    flow = create_workflow("shop", cache={}, lease=0.1)
    work = Slow(0.4)
    with caplog.at_level(logging.WARNING, "stepflows"), crowd(2) as together:
        together([lambda: voice.run(flow, stepping("a", work, key="a"))] * 2)
    assert caplog.text.count("has waited for") == 1
    assert "key 'a'" in caplog.text


def test_a_step_that_waits_for_itself_is_told_so(voice: Voice, cache: Any):
    """It would wait for ever."""
    flow = create_workflow("shop", cache=cache)

    def outer():
        return Sync().run(flow, stepping("a", lambda: 1, key="a"))

    if voice.is_async:

        async def outer():
            async def body(step, deps):
                return await step("a", lambda: 1, key="a")

            return await flow.arun(body)

    with pytest.raises(InvalidUse, match="waits for itself"):
        voice.run(flow, stepping("a", outer, key="a"))
    assert voice.run(flow, stepping("a", lambda: 2, key="a")) == Ok(2)


def test_steps_inside_steps_are_steps(voice: Voice, cache: Any):
    """With keys of their own they do not get in each other's way, nor do those of one map."""
    flow = create_workflow("shop", cache=cache)

    def inner(item):
        if item:
            return item + Sync().run(flow, stepping("sum", lambda: inner(item - 1), key=f"sum:{item - 1}")).unwrap()
        return 0

    body = stepping("sum", [3, 2, 1, 0], inner, key=lambda item: f"sum:{item}", method="map", limit=1)
    assert voice.run(flow, body) == Ok([6, 3, 1, 0])


def test_maps_share_their_work(voice: Voice, cache: Any):
    """In opposite orders, without waiting for each other for ever, and each item once."""
    lock = threading.Lock()
    done: list[int] = []

    def work(item):
        with lock:
            done.append(item)
        time.sleep(0.005)
        return item

    flow = create_workflow("shop", cache=cache)
    bodies = [stepping("work", items, work, key=str, method="map") for items in (range(30), range(29, -1, -1))]
    with crowd(2) as together:
        results = together([lambda body=body: voice.run(flow, body) for body in bodies])
    assert results == [Ok(list(range(30))), Ok(list(range(29, -1, -1)))]
    assert sorted(done) == list(range(30))


def test_a_refresh_waits_its_turn(voice: Voice, cache: Any):
    """It runs in any case, but not beside another one, and what it gives is what is stored."""
    work = Slow(0.05)
    flow = create_workflow("shop", cache=cache)
    with crowd(3) as together:
        results = together([lambda: voice.run(flow, stepping("a", work, key="a", refresh=True))] * 3)
    assert sorted(result.unwrap() for result in results) == [1, 2, 3]
    assert voice.run(flow, stepping("a", work, key="a")) == Ok(3)


def test_a_cancelled_step_lets_the_next_one_run(cache: Any):
    """Its lease ends with it, and not only when its time is up."""

    async def hang():
        began.set()
        await asyncio.sleep(PATIENCE)

    async def cancelled():
        task = asyncio.ensure_future(flow.arun(abody, hang))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await flow.arun(abody, lambda: 2)

    async def abody(step, deps, work):
        return await step("a", work, key="a")

    began = asyncio.Event()
    flow = create_workflow("shop", cache=cache, lease=PATIENCE)
    started = time.monotonic()
    assert asyncio.run(cancelled()) == Ok(2)
    assert time.monotonic() - started < PATIENCE / 2


@pytest.mark.parametrize("lease", [0, -1, float("inf")])
def test_a_lease_has_a_length(lease: Any):
    """Of more than nothing and less than for ever."""
    with pytest.raises(InvalidOption, match="lease"):
        create_workflow("shop", lease=lease)


@pytest.mark.parametrize("options", [{"lease": "30"}, {"single_flight": 1}, {"lease": None}])
def test_the_options_are_checked(options: Any):
    """When the workflow is made."""
    with pytest.raises(InvalidUse, match=next(iter(options))):
        create_workflow("shop", **options)


def test_the_lease_may_come_from_the_settings(settings: Any, cache: Any):
    """Or be a timedelta."""
    settings.STEPFLOWS = {"LEASE": 0.2}
    work = Calls(1)
    for options in ({}, {"lease": timedelta(seconds=5)}):
        flow = create_workflow("shop", cache=cache, **options)
        assert flow.run(lambda step, deps: step("a", work, key="a")) == Ok(1)
    assert work.count == 1
