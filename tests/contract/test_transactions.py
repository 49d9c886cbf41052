"""What becomes of steps that run inside a transaction of the database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import tenacity
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.core.cache import caches
from django.db import connection, connections, transaction

from stepflows import Err, Event, Ok, Retry, StepCache, create_workflow
from tests.calls import Calls
from tests.conftest import prepared
from tests.contract.test_steps import stepping
from tests.maplikes import AsyncMap, SyncMap
from tests.voices import Async, Voice, async_body

pytestmark = pytest.mark.django_db(transaction=True)

MAPS: dict[str, Any] = {"dict": dict, "maplike": SyncMap, "async maplike": AsyncMap}


class Rollback(Exception):
    """Leaves a block."""


@pytest.fixture(params=[*MAPS, "locmem", "django_redis"])
def cache(request: pytest.FixtureRequest) -> Any:
    """One of each kind that stores and leases in its own way, but for that which lies in the database itself."""
    if request.param in MAPS:
        return MAPS[request.param]()
    return prepared(request.param, request)


def is_stored(cache: Any, key: str) -> bool:
    """Whether the cache itself has it, whoever knows it besides."""
    if isinstance(cache, str):
        return StepCache(cache, namespace="shop").has(key)
    if isinstance(cache, AsyncMap):
        return cache.inner.has(key)
    return key in cache if isinstance(cache, Mapping) else cache.has(key)


def saving(value: Any = 1, *, raises: bool = False) -> Calls:
    """A step's function that writes to the database before it returns or raises."""

    def save(*_: Any) -> Any:
        Group.objects.create(name=f"group {Group.objects.count()}")
        if raises:
            raise value
        return value

    return Calls(save)


def here(voice: Voice, function: Callable[[], Any]) -> Any:
    """To be yielded by a body: has it called in the thread that has the transaction."""
    return sync_to_async(function)() if voice.is_async else function()


def leave(block: Any, *, commits: bool) -> None:
    block.__exit__(*((None, None, None) if commits else (Rollback, Rollback(), None)))


# --- stored with the commit


def test_a_step_that_used_the_transaction_is_stored_with_its_commit(voice: Voice, cache: Any):
    """Not before it: nobody else may count on what could still be undone."""
    work = saving()
    flow = create_workflow("shop", cache=cache)
    body = stepping("save", work, key="save")
    with transaction.atomic():
        assert voice.run(flow, body) == Ok(1)
        assert not is_stored(cache, "save")
    assert is_stored(cache, "save")
    assert voice.run(flow, body) == Ok(1)
    assert work.count == 1


def test_a_step_that_used_the_transaction_is_forgotten_with_its_rollback(voice: Voice, cache: Any):
    """What it wrote is gone, so it runs again."""
    work = saving()
    flow = create_workflow("shop", cache=cache)
    body = stepping("save", work, key="save")
    with pytest.raises(Rollback), transaction.atomic():
        assert voice.run(flow, body) == Ok(1)
        raise Rollback
    assert not is_stored(cache, "save")
    assert Group.objects.count() == 0
    assert voice.run(flow, body) == Ok(1)
    assert is_stored(cache, "save")
    assert work.count == 2
    assert Group.objects.count() == 1


def test_a_step_that_did_not_touch_the_database_is_stored_at_once(voice: Voice, cache: Any):
    """A card that was charged stays charged."""
    work = Calls("charged")
    flow = create_workflow("shop", cache=cache)
    body = stepping("charge", work, key="charge")
    with pytest.raises(Rollback), transaction.atomic():
        assert voice.run(flow, body) == Ok("charged")
        assert is_stored(cache, "charge")
        raise Rollback
    assert voice.run(flow, body) == Ok("charged")
    assert work.count == 1


def test_steps_of_one_transaction_are_told_apart(voice: Voice, cache: Any):
    """Of a run, what used the database is forgotten and the rest stays."""
    save, charge = saving("saved"), Calls("charged")

    def body(step, deps):
        saved = yield step("save", save, key="save")
        charged = yield step("charge", charge, key="charge")
        return saved, charged

    flow = create_workflow("shop", cache=cache)
    with pytest.raises(Rollback), transaction.atomic():
        assert voice.run(flow, body) == Ok(("saved", "charged"))
        raise Rollback
    assert voice.run(flow, body) == Ok(("saved", "charged"))
    assert (save.count, charge.count) == (2, 1)


def test_a_transaction_of_its_own_is_committed_when_the_step_returns(voice: Voice, cache: Any):
    """There is nothing to wait for."""
    work = saving()
    flow = create_workflow("shop", cache=cache)
    assert voice.run(flow, stepping("save", transaction.atomic(work.__call__), key="save")) == Ok(1)
    assert is_stored(cache, "save")


@pytest.mark.parametrize("error", [ValueError("no"), Err("NO")], ids=["exception", "Err"])
@pytest.mark.parametrize("commits", [True, False])
def test_errors_are_treated_alike(voice: Voice, cache: Any, error: Any, commits: bool):
    """They are results too."""
    work = saving(error, raises=isinstance(error, Exception))
    flow = create_workflow("shop", cache=cache)
    body = stepping("save", work, key="save")
    with transaction.atomic():
        first = voice.run(flow, body)
        assert isinstance(first, Err)
        assert not is_stored(cache, "save")
        transaction.set_rollback(not commits)
    assert is_stored(cache, "save") is commits
    second = voice.run(flow, body)
    assert repr(second.error) == repr(first.error)
    assert second.step.replayed is commits
    assert work.count == (1 if commits else 2)


def test_an_attempt_that_failed_counts(voice: Voice, cache: Any):
    """It used the transaction, whatever the last one did."""
    attempts = iter([saving(ValueError("again"), raises=True), Calls(1)])
    retry = Retry(2, wait=tenacity.wait_none())
    flow = create_workflow("shop", cache=cache)
    with transaction.atomic():
        assert voice.run(flow, stepping("save", lambda: next(attempts)(), key="save", retry=retry)) == Ok(1)
        assert not is_stored(cache, "save")
    assert is_stored(cache, "save")


def test_a_step_inside_a_step_counts_for_both(voice: Voice, cache: Any):
    """The outer one did it through the inner one."""
    inner, outer = create_workflow("shop", cache=cache), create_workflow("shop", cache=cache)
    work = saving()
    around = Calls(lambda: inner.run(lambda step, deps: step("inner", work, key="inner")).unwrap())
    body = stepping("outer", around, key="outer")
    with pytest.raises(Rollback), transaction.atomic():
        assert voice.run(outer, body) == Ok(1)
        assert not is_stored(cache, "inner")
        assert not is_stored(cache, "outer")
        raise Rollback
    assert voice.run(outer, body) == Ok(1)
    assert is_stored(cache, "inner")
    assert is_stored(cache, "outer")
    assert (work.count, around.count) == (2, 2)


def test_callbacks_of_the_project_find_the_result(voice: Voice, cache: Any):
    """One that sends a task to a worker may come before the step."""
    seen: list[bool] = []
    flow = create_workflow("shop", cache=cache)
    with transaction.atomic():
        transaction.on_commit(lambda: seen.append(is_stored(cache, "save")))
        voice.run(flow, stepping("save", saving(), key="save"))
    assert seen == [True]


def test_a_cache_that_cannot_store_does_not_spoil_the_commit(voice: Voice):
    """The transaction is the project's."""

    class Full(SyncMap):
        def set(self, key: str, result: Any) -> None:
            raise ConnectionError("no route to the cache")

    work = saving()
    with transaction.atomic():
        assert voice.run(create_workflow("shop", cache=Full()), stepping("save", work, key="save")) == Ok(1)
    assert Group.objects.count() == 1


def test_a_cache_in_the_same_database_goes_back_with_it(voice: Voice):
    """Whatever the step did: its entry was part of the transaction."""
    caches["database"].clear()
    work = Calls("charged")
    flow = create_workflow("shop", cache="database")
    body = stepping("charge", work, key="charge")
    with pytest.raises(Rollback), transaction.atomic():
        assert voice.run(flow, body) == Ok("charged")
        assert is_stored("database", "charge")
        raise Rollback
    assert not is_stored("database", "charge")
    assert voice.run(flow, body) == Ok("charged")
    assert work.count == 2


# --- inner blocks


def test_an_inner_block_that_is_released_waits_for_the_outer_one(voice: Voice, cache: Any):
    """Only then is it committed."""
    flow = create_workflow("shop", cache=cache)
    with transaction.atomic():
        with transaction.atomic():
            voice.run(flow, stepping("save", saving(), key="save"))
        assert not is_stored(cache, "save")
    assert is_stored(cache, "save")


def test_an_inner_block_that_is_rolled_back_is_forgotten_alone(voice: Voice, cache: Any):
    """What ran in the outer one is stored when that commits."""
    first, second = saving(1), saving(2)
    flow = create_workflow("shop", cache=cache)
    with transaction.atomic():
        voice.run(flow, stepping("first", first, key="first"))
        with pytest.raises(Rollback), transaction.atomic():
            voice.run(flow, stepping("second", second, key="second"))
            raise Rollback
        assert voice.run(flow, stepping("first", first, key="first")) == Ok(1)
        assert voice.run(flow, stepping("second", second, key="second")) == Ok(2)
    assert is_stored(cache, "first")
    assert is_stored(cache, "second")
    assert (first.count, second.count) == (1, 2)
    assert Group.objects.count() == 2


# --- in the transaction


def test_a_second_run_in_the_transaction_gets_the_result(voice: Voice, cache: Any):
    """It is in the same transaction, and does not wait for it."""
    events: list[Event] = []
    work = saving()
    with transaction.atomic():
        for _ in range(2):
            flow = create_workflow("shop", cache=cache, on_event=events.append)
            assert voice.run(flow, stepping("save", work, key="save")) == Ok(1)
    assert work.count == 1
    assert "step_wait" not in [event.type for event in events]


@pytest.mark.parametrize("commits", [True, False])
def test_the_same_run_gets_the_result_as_long_as_it_holds(voice: Voice, cache: Any, commits: bool):
    """At once, and after a commit; after a rollback the step runs again."""
    work = saving()

    def body(step, deps):
        block = transaction.atomic()
        yield here(voice, block.__enter__)
        first = yield step("save", work, key="save")
        second = yield step("save", work, key="save")
        assert work.count == 1
        yield here(voice, partial(leave, block, commits=commits))
        third = yield step("save", work, key="save")
        return first, second, third

    flow = create_workflow("shop", cache=cache)
    assert voice.run(flow, body) == Ok((1, 1, 1))
    assert work.count == (1 if commits else 2)
    assert is_stored(cache, "save")
    assert Group.objects.count() == 1


@pytest.mark.parametrize("commits", [True, False])
def test_another_thread_waits_for_the_end(voice: Voice, cache: Any, commits: bool):
    """Then it gets the result, or runs the step itself."""
    waits = threading.Event()
    work = saving()
    results: list[Any] = []

    def listen(event: Event) -> None:
        if event.type == "step_wait":
            waits.set()

    flow = create_workflow("shop", cache=cache, on_event=listen)
    body = stepping("save", work, key="save")

    def run() -> None:
        results.append(voice.run(flow, body))
        connections.close_all()

    thread = threading.Thread(target=run)
    with transaction.atomic():
        voice.run(flow, body)
        thread.start()
        assert waits.wait(20)
        assert results == []
        transaction.set_rollback(not commits)
    thread.join(20)
    assert results == [Ok(1)]
    assert work.count == (1 if commits else 2)
    assert Group.objects.count() == 1


# --- many at once


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("method", ["all", "map"])
def test_a_group_under_one_key_is_one_step(voice: Voice, cache: Any, method: str, commits: bool):
    """It used the transaction if one of its functions did."""
    work = Calls(lambda item: Group.objects.create(name="group").name if item == 1 else "none")
    args = ([0, 1], work) if method == "map" else ({str(item): partial(work, item) for item in (0, 1)},)
    flow = create_workflow("shop", cache=cache)
    body = stepping("many", *args, key="many", method=method)
    with transaction.atomic():
        first = voice.run(flow, body)
        assert not is_stored(cache, "many")
        transaction.set_rollback(not commits)
    assert is_stored(cache, "many") is commits
    assert voice.run(flow, body) == first
    assert work.count == (2 if commits else 4)


def test_items_of_a_map_are_told_apart(voice: Voice, cache: Any):
    """Those that used the transaction are forgotten, and the others stay."""
    save = saving("saved")
    work = Calls(lambda item: save() if item == 1 else f"charged {item}")
    body = stepping("many", range(3), work, key=str, method="map")
    flow = create_workflow("shop", cache=cache)
    expected = Ok(["charged 0", "saved", "charged 2"])
    with pytest.raises(Rollback), transaction.atomic():
        assert voice.run(flow, body) == expected
        assert [is_stored(cache, key) for key in "012"] == [True, False, True]
        assert voice.run(flow, body) == expected
        assert work.count == 3
        raise Rollback
    assert voice.run(flow, body) == expected
    assert work.count == 4
    assert save.count == 2
    assert all(is_stored(cache, key) for key in "012")


def test_items_of_a_map_are_stored_with_the_commit(voice: Voice, cache: Any):
    """All of them."""
    work = saving()
    flow = create_workflow("shop", cache=cache)
    with transaction.atomic():
        voice.run(flow, stepping("many", range(20), work, key=str, method="map"))
        assert not any(is_stored(cache, str(item)) for item in range(20))
    assert all(is_stored(cache, str(item)) for item in range(20))


@pytest.mark.parametrize("commits", [True, False])
def test_async_functions_are_told_apart(cache: Any, commits: bool):
    """They run at the same time on one connection, that of the thread which waits for them."""

    async def work(item: int) -> str:
        if item == 1:
            return (await Group.objects.acreate(name="group")).name
        return f"charged {item}"

    flow = create_workflow("shop", cache=cache)
    with transaction.atomic():
        result = Async().run(flow, stepping("many", range(3), work, key=str, method="map"))
        assert result == Ok(["charged 0", "group", "charged 2"])
        assert [is_stored(cache, key) for key in "012"] == [True, False, True]
        transaction.set_rollback(not commits)
    assert [is_stored(cache, key) for key in "012"] == [True, commits, True]
    assert connection.execute_wrappers == []


async def test_a_body_on_a_loop_of_its_own_is_in_no_transaction(cache: Any):
    """Django's async methods commit by themselves."""

    def body(step, deps):
        return (yield step("count", Group.objects.acount, key="count"))

    flow = create_workflow("shop", cache=cache)
    assert await flow.arun(async_body(body)) == Ok(0)
    assert await sync_to_async(is_stored)(cache, "count")
    await sync_to_async(connections.close_all)()


# --- in a test case


@pytest.mark.django_db
def test_the_blocks_of_a_test_case_do_not_count(voice: Voice, cache: Any):
    """A test sees what production would."""
    flow = create_workflow("shop", cache=cache)
    assert voice.run(flow, stepping("save", saving(), key="save")) == Ok(1)
    assert is_stored(cache, "save")


@pytest.mark.django_db
@pytest.mark.parametrize("commits", [True, False])
def test_in_a_test_case_the_blocks_of_the_test_count(voice: Voice, cache: Any, commits: bool):
    """Its outermost one ends as a transaction does elsewhere."""
    work = saving()
    flow = create_workflow("shop", cache=cache)
    body = stepping("save", work, key="save")
    with transaction.atomic():
        with transaction.atomic():
            assert voice.run(flow, body) == Ok(1)
        assert voice.run(flow, body) == Ok(1)
        assert not is_stored(cache, "save")
        transaction.set_rollback(not commits)
    assert is_stored(cache, "save") is commits
    assert voice.run(flow, body) == Ok(1)
    assert work.count == (1 if commits else 2)
