"""Single flight, answer by answer: leases granted, busy, lost, given back and refused."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
from typing import Any

import pytest

from stepflows.caches.mapping import MappingCache
from stepflows.engine import deferrals, flight, plan
from stepflows.engine.cache import LOST, MISSING, Busy, Entry, Lease
from stepflows.engine.calls import running_step
from stepflows.engine.context import RunContext
from stepflows.engine.execution import Request, Work
from stepflows.engine.operations import (
    Call,
    Claim,
    Deferred,
    Emit,
    Load,
    Pause,
    Plan,
    Raised,
    Release,
    Returned,
    Store,
    Together,
)
from stepflows.engine.policy import Policy, Retry
from stepflows.errors import CacheUnavailable, InvalidUse
from stepflows.results import Err, Ok, Stamp
from tests.engine.plays import (
    begin,
    echo,
    end,
    gathered,
    granted,
    kinds,
    lease,
    play,
    released,
    request,
    stored,
    told,
)

BUSY = [Busy("theirs")]
AWAY = CacheUnavailable("away")


def single_step(run: RunContext | None = None, **options: Any) -> Plan:
    return plan.step(run or RunContext("w"), request(**options), echo(1))


def items(*keys: str, **options: Any) -> list[tuple[Request, Work]]:
    return [(request(key, **options), echo(key)) for key in keys]


# Waiting for somebody else.


def test_what_was_stored_meanwhile_is_a_hit():
    """It is told as one, and nothing is called."""
    asked, result = play(single_step(RunContext("w", listening=True)), MISSING, None, [stored("theirs")], None)
    assert told(asked) == ["step_cache_miss", "step_cache_hit"]
    assert result == Ok("theirs")


def test_whoever_waits_is_told_of_it_once():
    """However often it looks."""
    looks = [answer for _ in range(10) for answer in (BUSY, None)]
    run = RunContext("w", listening=True)
    asked, result = play(single_step(run), MISSING, None, BUSY, None, None, *looks, [stored("theirs")], None)
    assert told(asked) == ["step_cache_miss", "step_wait", "step_cache_hit"]
    assert result == Ok("theirs")


def test_pauses_begin_at_two_milliseconds_and_stay_below_fifty():
    """So a step that is ready is not slept through; and they grow, so a long one is not asked about all the time."""
    asked = begin(single_step(), MISSING, *[answer for _ in range(40) for answer in (BUSY, None)])
    pauses = [operation.seconds for operation in asked if isinstance(operation, Pause)]
    assert kinds(asked) == [Load, *[Claim, Pause] * 40, Claim]
    assert 0.001 <= pauses[0] <= 0.003
    assert all(later > 1.5 * sooner for sooner, later in itertools.pairwise(pauses[:9:4]))
    assert max(pauses) < 0.05


def test_pauses_begin_anew_after_some_of_a_map_ran():
    """It has been busy itself, and may have missed the others' end."""
    steps = plan.each(RunContext("w"), items("a", "b"), None)
    both, one = [Busy("theirs")] * 2, [lease("a"), Busy("theirs")]
    asked = begin(steps, [MISSING] * 2, *[both, None] * 20, one, Returned("a"), [stored("a")], BUSY)
    assert kinds(asked)[-4:] == [Call, Store, Claim, Pause]
    assert asked[-2] == Claim(["b"], 30.0, refresh=False)
    assert asked[-1].seconds <= 0.003


def test_a_long_wait_is_logged_once(monkeypatch, caplog):
    """When it has taken longer than a lease lasts, because somebody renews it."""
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(flight.time, "monotonic", lambda: next(clock))
    begin(single_step(), MISSING, *[BUSY, None] * 5)
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "has waited for 40 s" in warnings[0]


def test_a_lease_that_comes_free_is_taken():
    """Whoever had it may have died."""
    asked, result = play(single_step(), MISSING, BUSY, None, granted("k"), Returned(1), [stored(1)])
    assert kinds(asked) == [Load, Claim, Pause, Claim, Call, Store]
    assert result == Ok(1)


# Leases that were lost.


def lost(*answers: Any, run: RunContext | None = None, **options: Any) -> tuple[list[Any], Any]:
    """A step that failed under a lease that somebody else has by now."""
    return play(single_step(run, **options), MISSING, granted("k"), Returned(Err("OURS")), [LOST], *answers)


def test_whoever_lost_the_lease_takes_the_result_of_the_other():
    """It does not run again, and its own error is forgotten."""
    asked, result = lost(BUSY, None, [stored("theirs")])
    assert kinds(asked) == [Load, Claim, Call, Store, Claim, Pause, Claim]
    assert result == Ok("theirs")


def test_a_late_error_is_stored_when_the_lease_comes_free():
    """Under the new lease, and without another run."""
    again = lease(token="again")
    asked, result = lost(BUSY, None, [again], [Err("OURS", stamp=Stamp("label"))])
    assert kinds(asked) == [Load, Claim, Call, Store, Claim, Pause, Claim, Store]
    assert asked[-1].entries[0].result == Err("OURS")
    assert asked[-1].entries[0].lease is again
    assert result == Err("OURS")


def test_a_late_result_may_be_late_again():
    """However often, until something stands."""
    asked, result = lost([lease(token="again")], [LOST], BUSY, None, [stored("theirs")])
    assert sum(isinstance(operation, Call) for operation in asked) == 1
    assert result == Ok("theirs")


def test_a_late_result_counts_in_its_run_when_the_cache_goes_away():
    """It ran, and that is better than an error about the cache."""
    run = RunContext("w")
    _, result = lost(AWAY, run=run)
    assert result == Err("OURS")
    assert run.kept == {"k": Err("OURS")}


def test_a_lost_lease_is_logged(caplog):
    """With the name of the step."""
    lost([stored("theirs")])
    assert "step 'label' (key 'k'): its lease was lost while it ran" in caplog.text


# Refreshing, and flying alone.


def test_a_refresh_waits_for_whoever_is_at_it_and_then_runs_all_the_same():
    """The result of another is not its own."""
    answers = (BUSY, None, granted("k"), Returned(2), [stored(2)])
    asked, result = play(single_step(refresh=True), *answers)
    assert kinds(asked) == [Claim, Pause, Claim, Call, Store]
    assert all(operation.refresh for operation in asked if isinstance(operation, Claim))
    assert asked[-1].entries[0].replace
    assert result == Ok(2)


def test_without_single_flight_no_lease_is_asked_for():
    """The first result stored wins all the same."""
    policy = Policy(single_flight=False)
    asked, result = play(single_step(policy=policy), MISSING, Returned("ours"), [stored("theirs")])
    assert kinds(asked) == [Load, Call, Store]
    assert asked[1].lease is None
    assert asked[2].entries[0].lease is None
    assert result == Ok("theirs")


def test_a_lease_lasts_as_long_as_the_policy_says():
    """In seconds."""
    asked = begin(single_step(policy=Policy(lease=7.5)), MISSING)
    assert asked[-1].seconds == 7.5


# Leaving before the end.

#: The answers up to each point at which a lease is held: in between, it may be struck.
HELD = [
    pytest.param({}, [MISSING, "lease"], Call, id="while it runs"),
    pytest.param({}, [MISSING, "lease", Returned(1)], Store, id="while it stores"),
    pytest.param({}, [MISSING, "lease", Returned(1), AWAY], Pause, id="before it stores again"),
    pytest.param(
        {"policy": Policy(retry=Retry(2, wait=1))},
        [MISSING, "lease", Raised(ValueError())],
        Pause,
        id="between attempts",
    ),
    pytest.param({"listening": True}, [MISSING, None, "lease"], Emit, id="while its start is told"),
    pytest.param({"listening": True}, [MISSING, None, "lease", None, Returned(1)], Emit, id="while its end is told"),
]


def held_up(options: dict[str, Any], answers: list[Any]) -> tuple[Plan, Any, list[Any]]:
    options = dict(options)
    run = RunContext("w", listening=options.pop("listening", False))
    own = lease()
    steps = single_step(run, **options)
    return steps, own, begin(steps, *[[own] if answer == "lease" else answer for answer in answers])


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(("options", "answers", "point"), HELD)
def test_whoever_is_struck_gives_the_lease_back(options, answers, point, error):
    """And goes on with what struck it."""
    steps, own, asked = held_up(options, answers)
    assert isinstance(asked[-1], point)
    operation = steps.throw(error())
    while isinstance(operation, Emit):
        assert operation.event.type == "step_error"
        operation = steps.send(None)
    assert isinstance(operation, Release)
    assert list(operation.leases) == [own]
    with pytest.raises(error):
        steps.send(None)


@pytest.mark.parametrize(("options", "answers", "point"), HELD)
def test_a_plan_that_is_dropped_asks_for_nothing(options, answers, point):
    """It may not, and its lease ends by itself."""
    steps, _, _ = held_up(options, answers)
    steps.close()


def test_a_wrong_use_inside_the_function_gives_the_lease_back():
    """It leaves the run as itself, and is nobody else's affair."""
    steps = single_step()
    begin(steps, MISSING, granted("k"))
    assert isinstance(steps.send(Raised(InvalidUse("wrong"))), Release)
    with pytest.raises(InvalidUse):
        steps.send(None)


def test_a_lease_that_cannot_be_given_back_is_logged(caplog):
    """What struck it is what counts."""
    steps = single_step()
    begin(steps, MISSING, granted("k"), asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        steps.throw(CacheUnavailable("away"))
    assert "could not be given back" in caplog.text


@pytest.mark.parametrize("answers", [[MISSING], [MISSING, BUSY]])
def test_whoever_holds_nothing_gives_nothing_back(answers):
    """It was struck before it had a lease, or while it waited."""
    steps = single_step()
    begin(steps, *answers)
    with pytest.raises(asyncio.CancelledError):
        steps.throw(asyncio.CancelledError())


def test_a_map_that_is_struck_gives_all_back():
    """Those that run, and those that have not begun; not those that are stored."""
    steps = plan.each(RunContext("w"), items("a", "b", "c"), None)
    together = begin(steps, [MISSING] * 3, granted("a", "b", "c"))[-1]
    gathered(together, [Returned("a")])
    play(together.then([0]), [stored("a")])
    operation = steps.throw(asyncio.CancelledError())
    assert [each.key for each in released([operation])] == ["b", "c"]
    with pytest.raises(asyncio.CancelledError):
        steps.send(None)


# The cache is away.


def test_without_a_lease_nothing_runs():
    """The default: nothing is charged twice."""
    run = RunContext("w", listening=True)
    asked, result = play(single_step(run), MISSING, None, AWAY, None)
    assert told(asked) == ["step_cache_miss", "step_error"]
    assert result.error is AWAY
    assert result.step.key == "k"


def test_without_a_lease_it_runs_uncached_where_it_is_told_to():
    """It is not stored, and counts for the rest of the run."""
    run = RunContext("w")
    steps = single_step(run, policy=Policy(on_cache_down="run"))
    asked = begin(steps, MISSING, AWAY)
    assert kinds(asked) == [Load, Claim, Together]
    assert end(steps, gathered(asked[-1], [Returned(5)])) == Ok(5)
    assert play(single_step(run)) == ([], Ok(5))


def test_a_map_that_loses_the_cache_half_way_keeps_what_it_has():
    """The others fail, and their error is that of the map."""
    steps = plan.each(RunContext("w"), items("a", "b"), None)
    asked, result = play(
        steps, [MISSING] * 2, [lease("a"), Busy("theirs")], Returned("a"), [stored("a")], CacheUnavailable("away")
    )
    assert kinds(asked)[-2:] == [Store, Claim]
    assert isinstance(result.error, CacheUnavailable)
    assert result.step.key == "b"


# Maps.


def test_leases_are_asked_for_five_hundred_at_a_time():
    """Each batch runs before the next is asked for, so that others have their share."""
    steps = plan.each(RunContext("w"), items(*map(str, range(1200))), None)
    claim = begin(steps, [MISSING] * 1200)[-1]
    for size in (500, 500, 200):
        assert isinstance(claim, Claim)
        assert len(claim.keys) == size
        together = steps.send(granted(*claim.keys))
        gathered(together, *[[Returned(None)]] * size)
        play(together.then(range(size)), [stored(None)] * size)
        claim = next(steps, None)
    assert claim is None


def test_a_map_that_finds_an_error_runs_nothing_more():
    """What it was granted beside it is given back, and the next batch is not asked for."""
    keys = [str(number) for number in range(501)]
    steps = plan.each(RunContext("w"), items(*keys), None)
    answers = [*granted(*keys[:499]), Err("NO", stamp=Stamp("label"))]
    asked, result = play(steps, [MISSING] * 501, answers, None)
    assert kinds(asked)[1:] == [Claim, Release]
    assert len(released(asked)) == 499
    assert result == Err("NO")


def test_a_map_gives_back_what_it_does_not_begin():
    """After the first failure."""
    steps = plan.each(RunContext("w"), items("a", "b", "c"), 1)
    together = begin(steps, [MISSING] * 3, granted("a", "b", "c"))[-1]
    gathering = gathered(together, [Returned(Err("NO"))])
    play(together.then([0]), [Err("NO", stamp=Stamp("label"))])
    operation = steps.send(gathering)
    assert [each.key for each in released([operation])] == ["b", "c"]
    assert end(steps) == Err("NO")


def test_a_map_with_nothing_left_runs_the_others_results():
    """Somebody else stored all of it between the look and the claim."""
    steps = plan.each(RunContext("w"), items("a", "b"), None)
    asked, result = play(steps, [MISSING] * 2, [stored(1), stored(2)])
    assert len(asked) == 2
    assert result == Ok([1, 2])


# Steps inside steps.


def test_a_step_that_waits_for_itself_is_a_wrong_use():
    """It would wait for ever; the message says what to do."""
    with (
        running_step(None, lease(token="mine")),
        pytest.raises(InvalidUse, match=r"step 'label' \(key 'k'\): the step waits for itself.*key of its own"),
    ):
        play(single_step(), MISSING, [Busy("mine")])


def test_a_map_that_waits_for_itself_gives_the_rest_back():
    """What it was granted in the same claim is not lost to others."""
    steps = plan.each(RunContext("w"), items("k", "other"), None)
    with running_step(None, lease(token="mine")):
        asked = begin(steps, [MISSING] * 2, [Busy("mine"), lease("other")])
        assert [each.key for each in released(asked)] == ["other"]
        with pytest.raises(InvalidUse):
            steps.send(None)


def test_another_item_of_an_enclosing_map_is_run_at_once():
    """Its turn may come only after the step that asks; so it runs without the lease, and once in this run."""
    run = RunContext("w")
    with running_step(None, lease("outer", token="mine")):
        asked, result = play(single_step(run), MISSING, [Busy("mine")], Returned(1), [stored(1)])
    assert kinds(asked) == [Load, Claim, Call, Store]
    assert asked[2].lease is asked[3].entries[0].lease is None
    assert result == Ok(1)
    assert play(single_step(run)) == ([], Ok(1))


def test_the_item_of_the_enclosing_map_is_not_run_again():
    """What the inner step ran meanwhile is its result."""
    run = RunContext("w")
    steps = plan.each(run, items("a", "b"), 1)
    together = begin(steps, [MISSING] * 2, granted("a", "b"))[-1]
    run.kept["b"] = Ok("inner")
    assert gathered(together, [Returned("a")], []).results == [Ok("a"), Ok("inner")]
    stores, _ = play(together.then([1]), [stored("inner")])
    assert released(stores) == []
    assert stores[0].entries[0].lease.key == "b"


# What waits for a commit.


class OpenTransaction:
    """Never ends."""

    def __init__(self, *, here: bool) -> None:
        self.here = here

    def on_commit(self, action: Any, otherwise: Any) -> None:
        pass

    def is_here(self) -> bool:
        return self.here


@pytest.fixture
def deferred(monkeypatch):
    """A result that waits for the commit of a transaction, under the lease ``theirs``."""
    monkeypatch.setattr(deferrals, "_deferrals", {})
    entry = Entry("k", stored("uncommitted"), lease=lease(token="theirs"))
    deferrals.Deferral([OpenTransaction(here=True)], entry, print, print).begin()


@pytest.mark.usefixtures("deferred")
def test_in_the_same_transaction_a_deferred_result_counts():
    """Nobody waits for a commit that can come only later."""
    asked, result = play(single_step(), MISSING, BUSY, stored("uncommitted"))
    assert kinds(asked) == [Load, Claim, Deferred]
    assert result == Ok("uncommitted")


@pytest.mark.usefixtures("deferred")
def test_in_the_same_transaction_a_refresh_runs_without_the_lease():
    """It would wait for its own commit."""
    asked, _ = play(single_step(refresh=True), BUSY, stored("uncommitted"), Returned(2), [stored(2)])
    assert kinds(asked) == [Claim, Deferred, Call, Store]
    assert asked[-1].entries[0].lease is None


@pytest.mark.usefixtures("deferred")
def test_elsewhere_a_deferred_result_is_waited_for():
    """It may still be rolled back."""
    asked = begin(single_step(RunContext("w", listening=True)), MISSING, None, BUSY, None, None)
    assert kinds(asked) == [Load, Emit, Claim, Deferred, Emit, Pause]
    assert told(asked)[-1] == "step_wait"


def test_nothing_of_it_is_logged_without_a_reason(caplog):
    """A plain miss is no news."""
    with caplog.at_level(logging.DEBUG, "stepflows"):
        play(single_step(), MISSING, granted("k"), Returned(1), [stored(1)])
    assert caplog.records == []


@pytest.fixture
def _no_collector():
    """Nothing is cleared away but what nobody refers to."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("answers", [[], [Returned(1)], [Raised(ValueError())]])
def test_a_plan_that_is_dropped_leaves_its_lease_in_memory_free(answers):
    """At once, and not when the garbage is next collected."""
    cache = MappingCache({})
    steps = single_step(policy=Policy(retry=Retry(2, wait=1)))
    begin(steps, MISSING, cache.claim(["k"], 30), *answers)
    assert isinstance(cache.claim(["k"], 30)[0], Busy)
    del steps
    assert isinstance(cache.claim(["k"], 30)[0], Lease)


@pytest.mark.usefixtures("_no_collector")
def test_a_map_that_is_dropped_leaves_its_leases_in_memory_free():
    """Those of the items that run, too."""
    cache = MappingCache({})
    steps = plan.each(RunContext("w"), items("a", "b"), None)
    together = begin(steps, [MISSING] * 2, cache.claim(["a", "b"], 30))[-1]
    next(together.plans[0])
    del steps, together
    assert all(isinstance(each, Lease) for each in cache.claim(["a", "b"], 30))
