"""What step, step.run, step.all and step.map do."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import warnings
from datetime import timedelta
from typing import Any

import pytest
import tenacity
from django.db import connection, transaction

from stepflows import (
    Err,
    InvalidOption,
    InvalidStepKey,
    InvalidUse,
    Ok,
    Retry,
    StepFailed,
    StepNotDeferred,
    create_workflow,
    current_step,
)
from tests.calls import Calls
from tests.voices import Voice, async_body

VALUES = [None, 0, False, "", [], 1.5, {"a": (1, 2)}, "text"]


def stepping(label: str, *args: Any, method: str = "__call__", **options: Any):
    """A body of one step."""

    def body(step, deps):
        return (yield getattr(step, method)(label, *args, **options))

    return body


# --- one step


@pytest.mark.parametrize("method", ["__call__", "run"])
def test_a_step_runs_once_per_key(voice: Voice, cache: Any, method: str):
    """A later run gets the stored value."""
    work = Calls({"id": 1})
    flow = create_workflow("shop", cache=cache)
    for _ in range(3):
        assert voice.run(flow, stepping("fetch", work, key="user:1", method=method)) == Ok({"id": 1})
    assert work.count == 1
    assert voice.run(flow, stepping("fetch", work, key="user:2", method=method)) == Ok({"id": 1})
    assert work.count == 2


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_every_value_is_a_value(voice: Voice, cache: Any, value: Any):
    """None, 0, False, "" and [] are stored and replayed like any other, type for type."""
    work = Calls(value)
    flow = create_workflow("shop", cache=cache)
    first = voice.run(flow, stepping("fetch", work, key="k"))
    replay = voice.run(flow, stepping("fetch", work, key="k"))
    assert first == replay == Ok(value)
    assert type(first.unwrap()) is type(replay.unwrap()) is type(value)
    assert work.count == 1


def test_without_a_key_nothing_is_cached(voice: Voice, cache: Any):
    """step, step.run, step.all and step.map run every time."""
    flow = create_workflow("shop", cache=cache)
    work = Calls(1)

    def body(step, deps):
        yield step("a", work)
        yield step.run("a", work)
        yield step.all("b", {"x": work})
        yield step.map("c", [1], work)

    for _ in range(2):
        assert voice.run(flow, body) == Ok(None)
    assert work.count == 8


def test_without_a_cache_keys_are_ignored(voice: Voice):
    """No cache, no caching, in all four calls."""
    flow = create_workflow("shop")
    work = Calls(1)

    def body(step, deps):
        yield step("a", work, key="a")
        yield step.all("b", {"x": work}, key="b")
        yield step.map("c", [1], work, key="c")
        yield step.map("d", [1], work, key=lambda item: f"d:{item}")

    for _ in range(2):
        assert voice.run(flow, body) == Ok(None)
    assert work.count == 8


def test_a_step_may_return_ok(voice: Voice, cache: Any):
    """Its value is what the step returns."""
    flow = create_workflow("shop", cache=cache)
    for _ in range(2):
        assert voice.run(flow, stepping("a", lambda: Ok(3), key="a")) == Ok(3)


def test_a_step_is_seen_at_once_in_the_same_run(voice: Voice, cache: Any):
    """The same label and key twice: one execution."""
    work = Calls(1)

    def body(step, deps):
        first = yield step("a", work, key="a")
        second = yield step("a", work, key="a")
        return first, second

    assert voice.run(create_workflow("shop", cache=cache), body) == Ok((1, 1))
    assert work.count == 1


# --- not deferred


def test_a_plain_value_in_place_of_the_function_warns_and_stores_nothing(voice: Voice):
    """The warning says how to write it."""
    flow = create_workflow("shop", cache={})

    with pytest.warns(StepNotDeferred, match="lambda"):
        assert voice.run(flow, stepping("fetch", 5, key="user:1")) == Ok(5)
    assert flow.cache == {}


def test_plain_values_in_step_all_warn_too(voice: Voice):
    """The rest runs as ever."""
    flow = create_workflow("shop", cache={})
    with pytest.warns(StepNotDeferred):
        assert voice.run(flow, stepping("both", {"a": 5, "b": lambda: 6}, method="all")) == Ok({"a": 5, "b": 6})


def test_the_warning_points_at_the_line_of_the_call():
    """However deep inside the library it is found out."""

    def body(step, deps):
        step("fetch", 5)
        step.run("fetch", 5)
        step.all("both", {"a": 5})

    async def abody(step, deps):
        await step("fetch", 5)
        await step.run("fetch", 5)
        await step.all("both", {"a": 5})

    flow = create_workflow("shop")
    with pytest.warns(StepNotDeferred) as caught:
        flow.run(body)
        asyncio.run(flow.arun(abody))
    first, second = body.__code__.co_firstlineno, abody.__code__.co_firstlineno
    expected = [first + 1, first + 2, first + 3, second + 1, second + 2, second + 3]
    assert [(warning.filename, warning.lineno) for warning in caught] == [(__file__, line) for line in expected]


def test_an_err_that_is_already_there_is_a_failure(voice: Voice):
    """As if the function had returned it."""
    with pytest.warns(StepNotDeferred):
        assert voice.run(create_workflow("shop", cache={}), stepping("fetch", Err("NO"), key="a")) == Err("NO")


def test_an_awaitable_is_accepted_in_async_bodies():
    """It is awaited on a miss, and closed on a hit without having started."""
    started = []

    async def fetch():
        started.append(1)
        return 7

    async def body(step, deps):
        return await step.run("fetch", fetch(), key="a"), await step.all("all", {"x": fetch()}, key="b")

    flow = create_workflow("shop", cache={}, retry=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert asyncio.run(flow.arun(body)) == Ok((7, {"x": 7}))
    assert len(started) == 2


@pytest.mark.parametrize("own", [True, False])
def test_awaitables_in_a_group_cannot_be_tried_again(own: bool):
    """A workflow's retry is left out, a step's own is refused."""

    async def boom():
        raise ValueError("real")

    flow = create_workflow("shop", cache={}, retry=None if own else Retry(3, wait=0))
    options = {"retry": 2} if own else {}
    body = async_body(stepping("a", {"x": boom()}, key="a", method="all", **options))
    if own:
        with pytest.raises(InvalidUse, match="retry"):
            asyncio.run(flow.arun(body))
    else:
        assert str(asyncio.run(flow.arun(body)).error) == "real"


def test_a_future_is_accepted_and_cancelled_on_a_hit():
    """Nobody else will wait for it."""

    async def main():
        flow = create_workflow("shop", cache={"a": Ok(1)})
        task = asyncio.ensure_future(asyncio.sleep(3600))
        assert await flow.arun(async_body(stepping("a", task, key="a"))) == Ok(1)
        await asyncio.wait([task])
        assert task.cancelled()
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        done.set_result(5)
        assert await flow.arun(async_body(stepping("a", done, key="b"))) == Ok(5)

    asyncio.run(main())


def test_an_awaitable_of_another_kind_is_left_alone_on_a_hit():
    """Whatever it is, it was not awaited."""

    class Lazy:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return 3

    flow = create_workflow("shop", cache={})
    for _ in range(2):
        assert asyncio.run(flow.arun(async_body(stepping("a", Lazy(), key="a")))) == Ok(3)


def test_an_awaitable_cannot_be_tried_again():
    """With retry on the step, a function is needed."""

    async def fetch(): ...

    with pytest.raises(InvalidUse, match="retry"):
        asyncio.run(create_workflow("shop").arun(async_body(stepping("a", fetch(), retry=2))))


@pytest.mark.parametrize("method", ["__call__", "all"])
def test_an_awaitable_in_a_sync_body_is_refused(method):
    """And closed, all of them, so that nothing complains of it later."""

    async def fetch(): ...

    given = fetch() if method == "__call__" else {"x": fetch(), "y": fetch()}
    with pytest.raises(InvalidUse, match="sync body"):
        create_workflow("shop").run(lambda step, deps: getattr(step, method)("a", given))


# --- step.all


def test_step_all_returns_a_dict_in_the_order_given(voice: Voice, cache: Any):
    """One entry for the group under its key."""
    work = Calls(lambda: threading.get_ident() and 1)
    flow = create_workflow("shop", cache=cache)
    for _ in range(2):
        result = voice.run(flow, stepping("both", {"b": lambda: work() + 1, "a": work}, key="both", method="all"))
        assert result == Ok({"b": 2, "a": 1})
        assert list(result.unwrap()) == ["b", "a"]
    assert work.count == 2


def test_names_of_a_group_may_be_alike(voice: Voice):
    """1 is not "1"."""
    result = voice.run(create_workflow("shop"), stepping("a", {1: lambda: "int", "1": lambda: "str"}, method="all"))
    assert result == Ok({1: "int", "1": "str"})


def test_step_all_of_nothing_is_an_empty_dict(voice: Voice, cache: Any):
    """And step.map of nothing an empty list."""
    flow = create_workflow("shop", cache=cache)
    assert voice.run(flow, stepping("none", {}, method="all", key="a")) == Ok({})
    assert voice.run(flow, stepping("none", [], str, method="map", key="b")) == Ok([])
    assert voice.run(flow, stepping("none", [], str, method="map", key=str)) == Ok([])


@pytest.mark.parametrize("limit", [None, 2])
def test_step_all_runs_the_functions_at_the_same_time(voice: Voice, limit: int | None):
    """Two functions that wait for each other come through."""
    meet = threading.Barrier(2, timeout=20)
    functions = {"a": meet.wait, "b": meet.wait}
    result = voice.run(create_workflow("shop"), stepping("meet", functions, method="all", limit=limit))
    assert sorted(result.unwrap().values()) == [0, 1]


def test_async_functions_run_at_the_same_time():
    """As tasks of one loop."""

    async def main():
        first, second = asyncio.Event(), asyncio.Event()

        async def one():
            first.set()
            await second.wait()
            return 1

        async def two():
            second.set()
            await first.wait()
            return 2

        body = async_body(stepping("meet", {"a": one, "b": two}, method="all"))
        return await asyncio.wait_for(create_workflow("shop").arun(body), 20)

    assert asyncio.run(main()) == Ok({"a": 1, "b": 2})


def test_limit_bounds_how_many_run_at_once(voice: Voice):
    """Never more than the limit."""
    running, most, lock = [0], [0], threading.Lock()

    def work(item):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.001)
        with lock:
            running[0] -= 1
        return item

    body = stepping("work", range(30), work, method="map", limit=3)
    assert voice.run(create_workflow("shop"), body) == Ok(list(range(30)))
    assert most[0] <= 3


@pytest.mark.parametrize("limit", [1, 3])
def test_the_first_failure_stops_what_has_not_started(voice: Voice, limit: int):
    """What was done before it stays stored; the failure is the step's."""
    started = []

    def work(item):
        started.append(item)
        if item == 3:
            raise ValueError(item)
        return item

    flow = create_workflow("shop", cache={})
    body = stepping("work", range(1000), work, method="map", key=lambda item: f"item:{item}", limit=limit)
    result = voice.run(flow, body)
    assert isinstance(result.error, ValueError)
    assert result.step.key == "item:3"
    assert len(started) < 1000
    for item in set(started) - {3}:
        assert flow.cache[f"item:{item}"] == Ok(item)


def test_what_was_done_before_a_crash_stays_stored(voice: Voice, cache: Any):
    """Each item is stored when it is done, so a run that goes on later starts where this one ended."""

    def work(item):
        if item == 3 and not crashed:
            crashed.append(item)
            raise SystemExit
        done.append(item)
        return item

    crashed: list[int] = []
    done: list[int] = []
    flow = create_workflow("shop", cache=cache)
    body = stepping("work", range(6), work, method="map", key=lambda item: f"item:{item}", limit=1)
    with pytest.raises(SystemExit):
        voice.run(flow, body)
    assert voice.run(flow, body) == Ok([0, 1, 2, 3, 4, 5])
    assert done == [0, 1, 2, 3, 4, 5]


def test_a_group_that_failed_fails_again_from_the_cache(voice: Voice, cache: Any):
    """One key, one entry, errors included."""
    work = Calls(ValueError("no"), raises=True)
    flow = create_workflow("shop", cache=cache)
    for replayed in (False, True):
        result = voice.run(flow, stepping("both", {"a": work}, key="both", method="all"))
        assert str(result.error) == "no"
        assert result.step.replayed is replayed
    assert work.count == 1


def test_wrong_use_inside_a_group_is_let_through(voice: Voice):
    """From whichever thread or task it comes."""

    def body(step, deps):
        yield step.all("a", {"x": Calls(InvalidUse("inner"), raises=True), "y": lambda: 1, "z": lambda: 1})

    with pytest.raises(InvalidUse, match="inner"):
        voice.run(create_workflow("shop"), body)


def test_threads_and_tasks_carry_context_variables(voice: Voice):
    """What the caller has set is seen inside."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    def body(step, deps):
        variable.set("seen")
        return (yield step.all("a", {"x": variable.get, "y": variable.get}))

    assert voice.run(create_workflow("shop"), body) == Ok({"x": "seen", "y": "seen"})


@pytest.mark.django_db(transaction=True)
def test_threads_close_their_database_connections(voice: Voice):
    """Nothing is left open in a thread that has done its work."""
    seen = []

    def work():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        seen.append(connection.connection)
        return threading.get_ident()

    result = voice.run(create_workflow("shop"), stepping("a", {"x": work, "y": work}, method="all"))
    assert threading.get_ident() not in result.unwrap().values()
    for raw in seen:
        with pytest.raises(Exception, match="closed"):
            raw.execute("SELECT 1")


@pytest.mark.django_db(transaction=True)
def test_inside_a_transaction_everything_stays_in_its_thread(voice: Voice):
    """Another thread would not see what the transaction has written."""
    with transaction.atomic():
        work = {"x": threading.get_ident, "y": threading.get_ident}
        result = voice.run(create_workflow("shop"), stepping("a", work, method="all"))
    assert set(result.unwrap().values()) == {threading.get_ident()}


def test_with_limit_one_everything_stays_in_its_thread(voice: Voice):
    """One after the other, where the body runs."""
    result = voice.run(
        create_workflow("shop"), stepping("a", range(3), lambda _: threading.get_ident(), method="map", limit=1)
    )
    assert set(result.unwrap()) == {threading.get_ident()}


# --- step.map


def test_step_map_returns_a_list_in_order(voice: Voice, cache: Any):
    """One entry under one key."""
    work = Calls(lambda item: 2 * item)
    flow = create_workflow("shop", cache=cache)
    for _ in range(2):
        assert voice.run(flow, stepping("double", iter([3, 1, 2]), work, key="k", method="map")) == Ok([6, 2, 4])
    assert work.count == 3


def test_step_map_with_a_key_per_item_stores_each_item(voice: Voice, cache: Any):
    """Only the missing ones run; the order is the items'."""
    work = Calls(lambda item: 2 * item)
    flow = create_workflow("shop", cache=cache)

    def body(step, deps, items):
        return (yield step.map("double", items, work, key=lambda item: f"n:{item}"))

    assert voice.run(flow, body, [1, 2]) == Ok([2, 4])
    assert voice.run(flow, body, [3, 2, 1]) == Ok([6, 4, 2])
    assert work.count == 3


def test_an_item_that_comes_twice_runs_once(voice: Voice, cache: Any):
    """Both places get its value."""
    work = Calls(lambda item: 2 * item)
    body = stepping("double", [1, 2, 1], work, key=lambda item: f"n:{item}", method="map")
    assert voice.run(create_workflow("shop", cache=cache), body) == Ok([2, 4, 2])
    assert work.count == 2


def test_of_items_with_one_key_the_first_one_runs(voice: Voice, cache: Any):
    """As it would be if they came one after the other."""
    body = stepping("double", [1, 2, 11], lambda item: 2 * item, key=lambda item: f"n:{item % 10}", method="map")
    assert voice.run(create_workflow("shop", cache=cache), body) == Ok([2, 4, 2])


def test_without_a_cache_every_item_runs(voice: Voice):
    """Keys are ignored, equal ones too; a failure is that of its item."""
    work = Calls(lambda item: 2 * item)
    flow = create_workflow("shop")
    assert voice.run(flow, stepping("double", [1, 1], work, key=str, method="map")) == Ok([2, 2])
    assert work.count == 2
    result = voice.run(flow, stepping("double", [1, "x"], lambda item: item / 1, key=str, method="map", limit=1))
    assert (type(result.error), result.step.key) == (TypeError, "x")


def test_a_stored_error_of_an_item_fails_the_map_before_anything_runs(voice: Voice, cache: Any):
    """What has not started, does not."""
    flow = create_workflow("shop", cache=cache)
    voice.run(flow, stepping("double", [2], Calls(ValueError("no"), raises=True), key=str, method="map"))
    work = Calls(1)
    result = voice.run(flow, stepping("double", [1, 2], work, key=str, method="map"))
    assert (str(result.error), result.step.key, result.step.replayed) == ("no", "2", True)
    assert work.count == 0


def test_step_map_takes_async_functions():
    """In an async body."""

    async def double(item):
        await asyncio.sleep(0)
        return 2 * item

    body = async_body(stepping("double", [1, 2], double, key=str, method="map"))
    assert asyncio.run(create_workflow("shop", cache={}).arun(body)) == Ok([2, 4])


def test_cancelling_the_run_cancels_what_runs():
    """No task and no thread is waited for; nothing is stored."""

    async def main():
        started = asyncio.Event()
        cancelled = []

        async def work(item):
            started.set()
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(item)
                raise

        flow = create_workflow("shop", cache={})
        run = asyncio.ensure_future(flow.arun(async_body(stepping("a", [1, 2], work, key=str, method="map"))))
        await started.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert sorted(cancelled) == [1, 2]
        assert flow.cache == {}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "arguments", "options", "error"),
    [
        ("all", [[1]], {}, InvalidUse),
        ("map", [[1], 5], {}, InvalidUse),
        ("map", [5, str], {}, InvalidUse),
        ("map", [[1], str], {"limit": 0}, InvalidOption),
        ("all", [{}], {"limit": True}, InvalidOption),
        ("map", [[1], str], {"key": 5}, InvalidStepKey),
        ("map", [[1], str], {"key": lambda item: None}, InvalidStepKey),
        ("__call__", [str], {"ttl": -1}, InvalidOption),
        ("__call__", [str], {"ttl": "soon"}, InvalidUse),
        ("__call__", [str], {"tll": 1}, InvalidUse),
        ("__call__", [str], {"whatever": 1}, InvalidUse),
        ("__call__", [str], {"cache_errors": int}, InvalidUse),
        ("__call__", [str], {"retry": "often"}, InvalidUse),
        ("__call__", [str], {"retry": True}, InvalidUse),
        ("__call__", [str], {"timeout": -1}, InvalidOption),
    ],
)
def test_wrong_use_names_workflow_and_step(voice: Voice, method: str, arguments: list[Any], options: Any, error: Any):
    """It is raised at once, and nothing runs."""
    with pytest.raises(error, match=r"'shop', step 'charge'"):
        voice.run(create_workflow("shop"), stepping("charge", *arguments, method=method, **options))


# --- options


def test_ttl_bounds_the_life_of_an_entry(voice: Voice, cache: Any):
    """Seconds or timedelta; afterwards the step runs again."""
    work = Calls(1)
    flow = create_workflow("shop", cache=cache)
    for ttl in (0.05, timedelta(milliseconds=50)):
        body = stepping("a", work, key=f"key:{ttl}", ttl=ttl)
        before = work.count
        voice.run(flow, body)
        deadline = time.time() + 20
        while work.count == before + 1 and time.time() < deadline:
            voice.run(flow, body)
        assert work.count == before + 2


def test_a_ttl_of_nothing_stores_nothing(voice: Voice):
    """It would be past at once."""
    flow = create_workflow("shop", cache={}, ttl=0)
    voice.run(flow, stepping("a", lambda: 1, key="a"))
    assert flow.cache == {}


def test_entries_do_not_expire_unless_a_ttl_says_so(voice: Voice, cache_alias: str):
    """The alias's own 300 seconds never apply; the step's ttl goes before the workflow's, and None is for ever."""
    flow = create_workflow("shop", cache=cache_alias, ttl=900)
    voice.run(flow, stepping("a", lambda: 1, key="a"))
    voice.run(flow, stepping("b", lambda: 1, key="b", ttl=None))
    voice.run(flow.using(ttl=None), stepping("c", lambda: 1, key="c"))
    assert 890 < flow.cache.get("a").stamp.expires_at - time.time() <= 900
    assert flow.cache.get("b").stamp.expires_at is None
    assert flow.cache.get("c").stamp.expires_at is None


def test_refresh_with_a_ttl_of_nothing_removes_what_is_stored(voice: Voice, cache: Any):
    """What is there now is out of date."""
    flow = create_workflow("shop", cache=cache)
    voice.run(flow, stepping("a", lambda: 1, key="a"))
    voice.run(flow, stepping("a", lambda: 2, key="a", refresh=True, ttl=0))
    assert voice.run(flow, stepping("a", lambda: 3, key="a")) == Ok(3)


def test_refresh_runs_anyway_and_replaces_what_is_stored(voice: Voice, cache: Any):
    """And its ttl begins anew."""
    work = Calls(lambda: work.count)
    flow = create_workflow("shop", cache=cache)
    assert voice.run(flow, stepping("a", work, key="a", ttl=900)) == Ok(1)
    assert voice.run(flow, stepping("a", work, key="a", refresh=True)) == Ok(2)
    assert voice.run(flow, stepping("a", work, key="a")) == Ok(2)
    body = stepping("m", [1, 2], lambda item: work(), key=str, method="map", refresh=True)
    voice.run(flow, body)
    before = work.count
    voice.run(flow, body)
    assert work.count == before + 2


def test_retry_tries_again_and_only_the_last_outcome_counts(voice: Voice, cache: Any):
    """A number is a number of attempts."""

    def flaky():
        if work.count < 3:
            raise ConnectionError(work.count)
        return "done"

    work = Calls(flaky)
    flow = create_workflow("shop", cache=cache)
    for _ in range(2):
        assert voice.run(flow, stepping("a", work, key="a", retry=Retry(3, wait=0))) == Ok("done")
    assert work.count == 3
    failing = Calls(ValueError("no"), raises=True)
    result = voice.run(flow, stepping("b", failing, key="b", retry=Retry(2, wait=timedelta(0))))
    assert (str(result.error), failing.count) == ("no", 2)


def test_retry_is_an_option_of_workflows_too(voice: Voice):
    """A step's own goes before it."""
    work = Calls(ValueError(), raises=True)
    flow = create_workflow("shop", retry=Retry(3, wait=0))
    voice.run(flow, stepping("a", work))
    assert work.count == 3
    voice.run(flow, stepping("a", work, retry=None))
    assert work.count == 4
    voice.run(flow, stepping("a", [1], work, method="map", retry=2))
    assert work.count == 6


@pytest.mark.parametrize(
    ("on", "error", "attempts"),
    [
        (None, Err("NO"), 3),
        (ValueError, ValueError("x"), 3),
        ((ValueError, KeyError), TypeError("x"), 1),
        (ValueError, Err("NO"), 1),
        (StepFailed, Err("NO"), 3),
        (lambda error: error == "NO", Err("NO"), 3),
        (lambda error: False, ValueError("x"), 1),
        ([ValueError, KeyError], ValueError("x"), 3),
    ],
)
def test_retry_says_which_errors_are_tried_again(voice: Voice, on: Any, error: Any, attempts: int):
    """Classes for exceptions, or a function of any error; by default all of them."""
    work = Calls(error, raises=isinstance(error, Exception))
    voice.run(create_workflow("shop"), stepping("a", work, retry=Retry(3, wait=0, on=on)))
    assert work.count == attempts


def test_retry_waits_as_tenacity_says(voice: Voice):
    """Any of its wait strategies, told the number of the attempt."""
    waited = []

    class Wait(tenacity.wait.wait_base):
        def __call__(self, retry_state):
            waited.append(retry_state.attempt_number)
            return 0

    voice.run(create_workflow("shop"), stepping("a", Calls(ValueError(), raises=True), retry=Retry(3, wait=Wait())))
    assert waited == [1, 2]
    assert 0 < Retry().pause(1) <= 0.3


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 1.5}, {"attempts": True}, {"attempts": 0}, {"wait": -1}, {"wait": "x"}, {"on": "x"}, {"on": ("x",)}],
)
def test_a_wrong_retry_is_refused(wrong: Any):
    """When it is made."""
    with pytest.raises(InvalidUse, match="Retry"):
        Retry(**wrong)


def test_timeout_ends_an_attempt_in_async_bodies():
    """With TimeoutError, a failure like others."""

    async def slow():
        await asyncio.sleep(3600)

    async def body(step, deps):
        return await step("slow", slow, key="a", timeout=timedelta(milliseconds=10))

    result = asyncio.run(create_workflow("shop", cache={}).arun(body))
    assert isinstance(result.error, TimeoutError)
    assert result.step.key == "a"


def test_timeout_says_what_was_not_finished():
    """In seconds."""

    async def body(step, deps):
        return await step("slow", asyncio.Event().wait, timeout=0.01)

    assert "0.01 s" in str(asyncio.run(create_workflow("shop").arun(body)).error)


def test_timeout_never_throws_the_value_of_a_sync_function_away():
    """A thread cannot be interrupted, and what it has done is done."""

    def charge():
        time.sleep(0.05)
        return "receipt"

    async def body(step, deps):
        return await step("charge", charge, key="a", timeout=0.001)

    flow = create_workflow("shop", cache={})
    assert asyncio.run(flow.arun(body)) == Ok("receipt")
    assert flow.cache == {"a": Ok("receipt")}


def test_a_cancellation_from_outside_is_no_timeout():
    """It leaves the run as what it is."""

    async def main():
        run = asyncio.ensure_future(
            create_workflow("shop").arun(async_body(stepping("a", asyncio.Event().wait, timeout=60)))
        )
        for _ in range(5):
            await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(main())


def test_timeout_leaves_other_errors_alone():
    """A TimeoutError of the function's own included."""

    async def body(step, deps):
        return await step("slow", Calls(TimeoutError("mine"), raises=True), timeout=60)

    assert str(asyncio.run(create_workflow("shop").arun(body)).error) == "mine"


def test_timeout_in_a_sync_body_is_refused():
    """A thread cannot be interrupted, and nobody is to believe that it could."""
    with pytest.raises(InvalidUse, match="timeout"):
        create_workflow("shop").run(lambda step, deps: step("a", lambda: 1, timeout=1))


# --- current_step


def test_current_step_tells_label_key_and_attempt(voice: Voice):
    """Inside a step's function, in whatever thread it runs."""
    seen = []

    def work():
        info = current_step()
        seen.append((info.label, info.key, info.attempt))
        if info.attempt < 2:
            raise ValueError

    voice.run(create_workflow("shop", cache={}), stepping("a", work, key="k", retry=Retry(2, wait=0)))
    assert seen == [("a", "k", 1), ("a", "k", 2)]


def test_the_idempotency_key_is_stable_for_a_step_of_a_workflow(voice: Voice):
    """In every run and attempt; another for another key, workflow, or part of a group."""

    def token():
        return current_step().idempotency_key

    def run(name: str, body: Any, **options: Any) -> Any:
        return voice.run(create_workflow(name, cache={}, **options), body).unwrap()

    first = run("shop", stepping("charge", token, key="order:7"))
    assert run("shop", stepping("charge", token, key="order:7")) == first
    assert run("shop", stepping("charge", token, key="order:7"), version=2) == first
    assert run("shop", stepping("charge", token, key="order:8")) != first
    assert run("other", stepping("charge", token, key="order:7")) != first
    parts = run("shop", stepping("charge", {"a": token, "b": token}, key="order:7", method="all"))
    assert len({first, *parts.values()}) == 3
    assert run("shop", stepping("charge", {"a": token, "b": token}, key="order:7", method="all")) == parts
    assert len(first) == 32


def test_without_a_key_the_idempotency_key_is_one_calls_own(voice: Voice):
    """Two steps of one label must not be taken for one."""
    seen = []

    def work():
        seen.append(current_step().idempotency_key)
        raise ValueError

    def body(step, deps):
        for _ in range(2):
            try:
                yield step("a", work, retry=Retry(2, wait=0))
            except ValueError:
                continue

    voice.run(create_workflow("shop"), body)
    assert seen[0] == seen[1] != seen[2] == seen[3]


def test_current_step_outside_of_a_step_is_refused(voice: Voice):
    """A body is no step, even that of a workflow inside one."""
    with pytest.raises(InvalidUse, match="outside"):
        current_step()

    def body(step, deps):
        yield step("a", lambda: 1)
        current_step()

    with pytest.raises(InvalidUse, match="outside"):
        voice.run(create_workflow("shop"), body)


def test_a_step_tells_the_run_it_belongs_to(voice: Voice):
    """For logs of one's own."""

    def body(step, deps):
        yield step("a", lambda: 1)
        return step.run_id

    first, second = (voice.run(create_workflow("shop"), body).unwrap() for _ in range(2))
    assert first != second
