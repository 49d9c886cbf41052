"""The plans alone: what they ask for, in which order, with every answer given by hand."""

from __future__ import annotations

import pytest

from stepflows.caches.mapping import MappingCache
from stepflows.engine import plan
from stepflows.engine.cache import MISSING, Damaged
from stepflows.engine.context import RunContext
from stepflows.engine.drivers import AsyncDriver, Driver
from stepflows.engine.operations import (
    Call,
    Claim,
    Emit,
    Gathering,
    Keys,
    Load,
    LoadMany,
    Pause,
    Raised,
    Returned,
    Store,
    Together,
)
from stepflows.engine.policy import Policy, Retry
from stepflows.engine.steps import Step
from stepflows.engine.threads import Threads
from stepflows.errors import CacheUnavailable, CannotList
from stepflows.results import Err, Ok, Stamp
from tests.engine.plays import begin, echo, end, gathered, granted, kinds, play, request, stored, told


def test_a_hit_asks_once():
    """One look, and nothing else."""
    found = stored(1)
    asked, result = play(plan.step(RunContext("w"), request(), echo(2)), found)
    assert asked == [Load("k")]
    assert result is found


def test_a_miss_looks_claims_calls_and_stores():
    """In this order, and the result that stands in the cache is the one that counts."""
    theirs = stored("theirs")
    leases = granted("k")
    asked, result = play(plan.step(RunContext("w"), request(), echo(2)), MISSING, leases, Returned("ours"), [theirs])
    assert kinds(asked) == [Load, Claim, Call, Store]
    assert asked[1] == Claim(["k"], 30.0, refresh=False)
    assert asked[2].lease is leases[0]
    [entry] = asked[3].entries
    assert (entry.key, entry.result, entry.replace) == ("k", Ok("ours"), False)
    assert entry.lease is leases[0]
    assert result is theirs


def test_without_a_key_or_a_cache_it_is_only_called():
    """Nothing is looked up, and nobody is asked for the right to run."""
    for run, key in ((RunContext("w"), None), (RunContext("w", caching=False), "k")):
        asked, result = play(plan.step(run, request(key), echo(2)), Returned(2))
        assert kinds(asked) == [Call]
        assert result == Ok(2)


def test_the_error_of_whoever_was_first_is_replayed():
    """To everybody else it is out of the cache."""
    theirs = Err("NO", stamp=Stamp("label"))
    answers = (MISSING, granted("k"), Returned(1), [theirs])
    _, result = play(plan.step(RunContext("w"), request(), echo(2)), *answers)
    assert result == Err("NO")
    assert result.step.replayed


def test_what_is_damaged_is_told_and_counts_as_missing():
    """The cache itself puts the new result in its place."""
    run = RunContext("w", listening=True)
    asked = begin(plan.step(run, request(), echo(1)), Damaged("odd"), None, None)
    assert told(asked) == ["step_cache_corrupt", "step_cache_miss"]
    assert asked[1].event.error == "odd"
    assert asked[-1] == Claim(["k"], 30.0, refresh=False)


def test_a_refresh_does_not_look_and_replaces():
    """Else what stands there would stay the first result stored."""
    steps = plan.step(RunContext("w"), request(refresh=True), echo(1))
    asked, _ = play(steps, granted("k"), Returned(1), [stored(1)])
    assert asked[0] == Claim(["k"], 30.0, refresh=True)
    assert asked[-1].entries[0].replace


def test_a_refresh_says_that_it_misses():
    """Whoever counts misses and starts sees as many of both."""
    run = RunContext("w", listening=True)
    asked = begin(plan.step(run, request(refresh=True), echo(1)), None)
    assert told(asked) == ["step_cache_miss"]
    assert isinstance(asked[-1], Claim)


def test_a_retry_pauses_between_attempts():
    """As long as the policy says; the same idempotency key and the same lease each time."""
    policy = Policy(retry=Retry(3, wait=1.5))
    leases = granted("k")
    asked, result = play(
        plan.step(RunContext("w"), request(policy=policy), echo(1)),
        MISSING,
        leases,
        Raised(ValueError()),
        None,
        Returned(1),
        [Ok(1)],
    )
    assert kinds(asked) == [Load, Claim, Call, Pause, Call, Store]
    assert asked[3] == Pause(1.5)
    assert [operation.step.attempt for operation in asked if isinstance(operation, Call)] == [1, 2]
    assert asked[2].step.idempotency_key == asked[4].step.idempotency_key
    assert asked[2].lease is asked[4].lease is leases[0]
    assert result == Ok(1)


def test_nobody_listening_costs_nothing():
    """No event is made unless somebody listens."""
    for listening, expected in ((False, [Load]), (True, [Load, Emit])):
        run = RunContext("w", listening=listening)
        asked, _ = play(plan.step(run, request(), echo(1)), stored(1), None)
        assert kinds(asked) == expected


def test_a_map_looks_all_items_up_together():
    """And claims and executes only the missing ones."""
    steps = plan.each(RunContext("w"), [(request(str(number)), echo(number)) for number in range(3)], 5)
    asked = begin(steps, [MISSING, stored(1), MISSING], granted("0", "2"))
    assert asked[:2] == [LoadMany(["0", "1", "2"]), Claim(["0", "2"], 30.0, refresh=False)]
    together = asked[2]
    assert isinstance(together, Together)
    assert (len(together.plans), together.limit) == (2, 5)
    gathering = gathered(together, [Returned(0)], [Returned(2)])
    assert gathering.results == [Ok(0), Ok(2)]
    stores, _ = play(together.then([0, 1]), [stored(0), stored(2)])
    assert [entry.key for entry in stores[0].entries] == ["0", "2"]
    assert end(steps, gathering) == Ok([0, 1, 2])


def test_a_map_runs_the_first_of_equal_keys():
    """And has its result in each of their places."""
    steps = plan.each(RunContext("w"), [(request("a"), echo(1)), (request("a"), echo(2))], None)
    asked, result = play(steps, [MISSING], granted("a"), Returned(1), [stored(1)])
    assert kinds(asked) == [LoadMany, Claim, Call, Store]
    assert asked[2].function() == 1
    assert result == Ok([1, 1])


def test_a_map_that_finds_an_error_asks_for_no_lease():
    """It fails with what it found."""
    steps = plan.each(RunContext("w"), [(request("a"), echo(1)), (request("b"), echo(2))], None)
    asked, result = play(steps, [MISSING, Err("NO", stamp=Stamp("label"))])
    assert kinds(asked) == [LoadMany]
    assert result == Err("NO")


def test_a_map_without_a_cache_only_calls():
    """Each item, all together."""
    steps = plan.each(RunContext("w", caching=False), [(request("a"), echo(1)), (request("b"), echo(2))], 3)
    [together] = begin(steps)
    assert together.limit == 3
    assert end(steps, gathered(together, [Returned(1)], [Returned(2)])) == Ok([1, 2])


def test_a_map_without_a_cache_server_runs_nothing():
    """The first item's error is that of the map."""
    steps = [(request("a"), echo(1)), (request("b"), echo(2))]
    asked, result = play(plan.each(RunContext("w"), steps, None), CacheUnavailable("away"))
    assert kinds(asked) == [LoadMany]
    assert isinstance(result.error, CacheUnavailable)
    assert result.step.key == "a"


def test_a_map_without_a_cache_server_runs_uncached_where_it_is_told_to():
    """Its items' results are kept for the run."""
    run = RunContext("w")
    policy = Policy(on_cache_down="run")
    steps = plan.each(run, [(request(key, policy=policy), echo(key)) for key in "ab"], 2)
    asked = begin(steps, CacheUnavailable("away"))
    assert kinds(asked) == [LoadMany, Together]
    assert end(steps, gathered(asked[1], [Returned("a")], [Returned("b")])) == Ok(["a", "b"])
    assert run.kept == {"a": Ok("a"), "b": Ok("b")}


def test_what_is_kept_or_read_ahead_is_not_asked_for_again():
    """A map looks up and claims the rest alone."""
    run = RunContext("w")
    run.kept["a"] = Ok("kept")
    run.ahead["b"] = stored("ahead")
    steps = plan.each(run, [(request(key), echo(key)) for key in "abc"], None)
    asked, result = play(steps, [MISSING], granted("c"), Returned("c"), [stored("c")])
    assert asked[0] == LoadMany(["c"])
    assert result == Ok(["kept", "ahead", "c"])
    assert play(plan.step(run, request("a"), echo(1))) == ([], Ok("kept"))
    # Once only, because the body may have changed the value.
    run.ahead["b"] = stored("ahead")
    assert play(plan.step(run, request("b"), echo(1))) == ([], Ok("ahead"))
    assert begin(plan.step(run, request("b"), echo(1))) == [Load("b")]


def test_a_run_reads_ahead_before_its_body():
    """The keys given, or those with a prefix; only results count as found."""
    run = RunContext("w")
    asked = begin(plan.workflow(run, dict, ["a", "b"]), [stored(1), MISSING])
    assert asked[0] == LoadMany(["a", "b"])
    assert isinstance(asked[1], Call)
    assert run.ahead == {"a": Ok(1)}
    asked = begin(plan.workflow(RunContext("w"), dict, "user:"), ["user:1"], [stored(1)])
    assert asked[:2] == [Keys("user:"), LoadMany(["user:1"])]


@pytest.mark.parametrize("error", [CacheUnavailable("away"), CannotList("no list")])
def test_a_run_that_cannot_read_ahead_goes_on(error, caplog):
    """Its steps look for themselves."""
    asked = begin(plan.workflow(RunContext("w"), dict, "user:"), error)
    assert kinds(asked) == [Keys, Call]
    assert "nothing could be read ahead" in caplog.text


def test_a_driver_alone_runs_steps():
    """Without Django's part: threads with nothing to look after."""
    run = RunContext("w")
    step = Step(run, Driver(MappingCache({}), threads=Threads()))
    assert step.map("double", range(20), lambda item: 2 * item, key=str) == list(range(0, 40, 2))
    assert step("a", lambda: 1) == 1


async def test_an_async_driver_alone_runs_plans():
    """Without a cache, on any loop."""
    assert await AsyncDriver(None).drive(plan.step(RunContext("w", caching=False), request(), echo(5))) == Ok(5)


def test_the_first_failure_closes_a_gathering():
    """What has not started will not, and the first failure is the one that counts."""
    gathering = Gathering(3)
    gathering.take(2, Err("first"))
    gathering.take(1, Err("second"))
    assert not gathering.open
    assert gathering.failed == Err("first")
