"""A cache that crashes after a number of steps, and the workflow that resumes after it."""

import asyncio
import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import transaction
from django.test import TestCase

from stepflows import Err, InvalidOption, Ok, create_workflow
from stepflows.models import Run
from stepflows.testing import Crash, CrashingCache
from tests.calls import Calls

ITEMS = [1, 2, 3, 4, 5]


class Ticks:
    """Counts how often each thing was done."""

    def __init__(self):
        self.done = []
        self.lock = threading.Lock()

    def __call__(self, what):
        with self.lock:
            self.done.append(what)
        return what

    async def later(self, what):
        await asyncio.sleep(0)
        return self(what)


def three_steps(step, deps, tick):
    return [step(label, lambda label=label: tick(label), key=label) for label in "abc"]


def groups(step, deps, tick):
    """Both kinds of groups: one entry for all, and one for each item."""
    both = step.all("all", {"x": lambda: tick("x"), "y": lambda: tick("y")}, key="all")
    return both, step.map("map", ITEMS, tick, key="item:{}".format, limit=2)


async def three_async_steps(step, deps, tick):
    return [await step(label, lambda label=label: tick.later(label), key=label) for label in "abc"]


async def async_groups(step, deps, tick):
    both = await step.all("all", {"x": lambda: tick.later("x"), "y": lambda: tick.later("y")}, key="all")
    return both, await step.map("map", ITEMS, tick.later, key="item:{}".format, limit=2)


async def mixed_groups(step, deps, tick):
    """An async body whose functions run in threads."""
    both = await step.all("all", {"x": lambda: tick("x"), "y": lambda: tick("y")}, key="all")
    return both, await step.map("map", ITEMS, tick, key="item:{}".format, limit=2)


def run(flow, body, tick):
    return flow.run(body, tick)


def run_on_a_loop(flow, body, tick):
    return asyncio.run(flow.arun(body, tick))


STEPS = (list("abc"), 3)
GROUPS = (({"x": "x", "y": "y"}, ITEMS), 6)
BODIES = [
    pytest.param(run, three_steps, STEPS, id="sync steps"),
    pytest.param(run, groups, GROUPS, id="sync groups"),
    pytest.param(run_on_a_loop, three_steps, STEPS, id="sync steps under a loop"),
    pytest.param(run_on_a_loop, groups, GROUPS, id="sync groups under a loop"),
    pytest.param(run_on_a_loop, three_async_steps, STEPS, id="async steps"),
    pytest.param(run_on_a_loop, async_groups, GROUPS, id="async groups"),
    pytest.param(run_on_a_loop, mixed_groups, GROUPS, id="async groups in threads"),
]


@pytest.mark.parametrize(("run", "body", "expected"), BODIES)
def test_a_workflow_resumes_after_each_crash(run, body, expected):
    """Wherever it strikes, what was stored is not done again, and the end is the same."""
    value, stored = expected
    for after in range(stored):
        cache, tick = CrashingCache(after=after), Ticks()
        flow = create_workflow("crashing", cache=cache)

        with pytest.raises(Crash) as caught:
            run(flow, body, tick)

        assert len(cache.stored) == after
        before = [key.removeprefix("item:") for key in cache.stored]
        tick.done.clear()
        cache.restart()
        assert run(flow, body, tick) == Ok(value)
        assert not set(before) & set(map(str, tick.done))
        assert len(cache.stored) == stored
        # Until here it has kept what the crashed run held.
        del caught


@pytest.mark.parametrize(("run", "body", "expected"), BODIES)
def test_a_cache_whose_time_does_not_come_does_not_crash(run, body, expected):
    """As many steps as it takes may be stored."""
    value, stored = expected
    cache = CrashingCache(after=stored)

    assert run(create_workflow("crashing", cache=cache), body, Ticks()) == Ok(value)


async def test_a_crash_passes_through_the_loop_of_an_async_test():
    """Also from the tasks of a group: the event loop of the test goes on."""
    cache, tick = CrashingCache(after=3), Ticks()
    flow = create_workflow("crashing", cache=cache)

    with pytest.raises(Crash):
        await flow.arun(async_groups, tick)

    cache.restart()
    assert await flow.arun(async_groups, tick) == Ok(GROUPS[0])


def test_the_dead_stay_dead():
    """Until it is restarted, every run crashes, and nothing is executed."""
    cache, tick = CrashingCache(after=1), Ticks()
    flow = create_workflow("crashing", cache=cache)

    for _ in range(3):
        with pytest.raises(Crash, match=r"Call restart\(\), then run the workflow again"):
            flow.run(three_steps, tick)

    assert tick.done == ["a"]
    assert repr(cache) == "CrashingCache(crashed, 1 stored)"


def test_it_may_crash_again_after_a_restart():
    """So a test can go from crash to crash."""
    cache, tick = CrashingCache(after=1), Ticks()
    flow = create_workflow("crashing", cache=cache)

    for _ in range(2):
        with pytest.raises(Crash):
            flow.run(three_steps, tick)
        cache.restart(after=1)
    with pytest.raises(Crash):
        flow.run(lambda step, deps: [step(label, lambda: tick(label), key=label) for label in "abcd"])
    cache.restart()

    assert flow.run(three_steps, tick) == Ok(list("abc"))
    assert tick.done == ["a", "b", "c"]
    assert repr(cache) == "CrashingCache(alive, 3 stored)"


def test_what_is_stored_can_be_looked_at():
    """Also while it is down, and without changing anything."""
    cache = CrashingCache(after=1)
    with pytest.raises(Crash):
        create_workflow("crashing", cache=cache).run(three_steps, Ticks())

    cache.stored.clear()

    assert cache.stored == {"a": Ok("a")}


def test_an_error_counts_as_a_step():
    """It is stored like a result, and replayed after the restart."""
    cache, charge = CrashingCache(after=1), Calls(Err("DECLINED"))
    flow = create_workflow("crashing", cache=cache)

    def body(step, deps):
        return step("charge", charge, key="charge")

    assert flow.run(body) == Err("DECLINED")
    with pytest.raises(Crash):
        flow.run(body)
    cache.restart()
    assert flow.run(body) == Err("DECLINED")
    assert charge.count == 1


def test_what_is_found_does_not_count():
    """Only what is stored anew brings the crash nearer."""
    cache = CrashingCache(after=4)
    flow = create_workflow("crashing", cache=cache)

    for _ in range(3):
        assert flow.run(three_steps, Ticks()) == Ok(list("abc"))

    assert len(cache.stored) == 3


def test_what_is_refreshed_counts():
    """It is stored, though under a key that was there."""
    cache = CrashingCache(after=2)
    flow = create_workflow("crashing", cache=cache)

    def body(step, deps):
        return step("rate", lambda: 1, key="rate", refresh=True)

    assert [flow.run(body), flow.run(body)] == [Ok(1), Ok(1)]
    with pytest.raises(Crash):
        flow.run(body)


def test_a_crash_is_no_failure_that_is_tried_again():
    """A retry is for failures; who is dead tries nothing."""
    cache, inner = CrashingCache(after=0), Calls()
    flow = create_workflow("crashing", cache=cache)

    def outer():
        inner()
        return flow.run(lambda step, deps: step("inner", lambda: 1, key="inner")).unwrap()

    uncached = create_workflow("outer")
    with pytest.raises(Crash):
        uncached.run(lambda step, deps: step("outer", outer, retry=5))

    assert inner.count == 1


def test_a_crash_is_caught_by_no_body():
    """A body that lives with any failure does not live through this one."""

    def body(step, deps):
        try:
            step("a", lambda: 1, key="a")
        except Exception:
            return "fine"

    with pytest.raises(Crash):
        create_workflow("crashing", cache=CrashingCache(after=0)).run(body)


def test_a_step_that_has_run_but_is_not_stored_runs_again():
    """As after a real death between the one and the other."""
    cache, tick = CrashingCache(after=5), Ticks()
    flow = create_workflow("crashing", cache=cache)

    def body(step, deps, tick):
        return step.map("map", ITEMS, tick, key="item:{}".format, limit=1)

    def die(item):
        if item == 3:
            cache.restart(after=0)
        return tick(item)

    with pytest.raises(Crash):
        flow.run(body, die)
    cache.restart()

    assert flow.run(body, tick) == Ok(ITEMS)
    assert tick.done.count(3) == 2


def test_who_holds_a_lease_from_before_the_restart_is_dead():
    """A thread of the crashed process, still at a step, brings nothing into the new one."""
    cache, tick = CrashingCache(after=9), Ticks()
    flow = create_workflow("crashing", cache=cache)
    begun, go = threading.Event(), threading.Event()

    def slow():
        begun.set()
        assert go.wait(60)
        return tick("slow")

    with ThreadPoolExecutor(1) as pool:
        dead = pool.submit(flow.run, lambda step, deps: step("a", slow, key="a"))
        assert begun.wait(60)
        cache.restart()
        assert flow.run(lambda step, deps: step("a", lambda: tick("new"), key="a")) == Ok("new")
        go.set()
        with pytest.raises(Crash):
            dead.result()

    assert cache.stored == {"a": Ok("new")}


def test_it_can_be_listed_and_deleted_from_like_any_cache():
    """Prefetch and retry ask for that."""
    cache, tick = CrashingCache(after=3), Ticks()
    flow = create_workflow("crashing", cache=cache)
    flow.run(three_steps, tick)

    with pytest.raises(Crash):
        cache.keys()
    with pytest.raises(Crash):
        cache.delete("a")
    cache.restart()

    assert cache.keys("b") == ["b"]
    assert [cache.delete("a"), cache.delete("a")] == [True, False]
    assert flow.run(three_steps, tick, prefetch=["b", "c"]) == Ok(list("abc"))
    assert tick.done == ["a", "b", "c", "a"]


@pytest.mark.django_db(transaction=True)
def test_a_step_that_used_the_database_is_lost_with_its_transaction():
    """A crash before the commit rolls it back, and nobody waits for what is never stored."""
    cache, count = CrashingCache(after=1), Calls(Run.objects.count)
    flow = create_workflow("crashing", cache=cache)

    def body(step, deps):
        return [step("count", count, key="count"), step("b", lambda: 1, key="b"), step("c", lambda: 2, key="c")]

    with pytest.raises(Crash), transaction.atomic():
        flow.run(body)
    assert list(cache.stored) == ["b"]
    cache.restart()

    assert flow.run(body) == Ok([0, 1, 2])
    assert count.count == 2


class CrashTests(TestCase):
    def test_it_works_in_djangos_test_case(self):
        """Whose transaction keeps groups in the thread of the test."""
        cache, tick = CrashingCache(after=2), Ticks()
        flow = create_workflow("crashing", cache=cache)

        with pytest.raises(Crash):
            flow.run(groups, tick)
        cache.restart()

        assert flow.run(groups, tick) == Ok(GROUPS[0])


@pytest.mark.parametrize("after", [-1, 1.5, True, None])
def test_an_impossible_number_is_refused(after):
    """The error says what it may be."""
    with pytest.raises(InvalidOption, match="give a number of steps, 0 or more"):
        CrashingCache(after=after)


def test_a_crash_can_be_copied():
    """As test runners do with what a test raised."""
    crash = copy.copy(Crash("gone"))

    assert isinstance(crash, Crash)
    assert crash.message == "gone"
