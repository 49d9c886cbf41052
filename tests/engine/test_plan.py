"""The plans alone: what they ask for, in which order, with every answer given by hand."""

from __future__ import annotations

from typing import Any

import pytest

from stepflows.caches.mapping import MappingCache
from stepflows.engine import plan
from stepflows.engine.cache import MISSING, Damaged
from stepflows.engine.context import RunContext
from stepflows.engine.drivers import AsyncDriver, Driver
from stepflows.engine.operations import (
    Call,
    Emit,
    Gathering,
    Load,
    LoadMany,
    Pause,
    Plan,
    Raised,
    Returned,
    Store,
    Together,
)
from stepflows.engine.policy import Policy, Retry
from stepflows.engine.steps import Step
from stepflows.engine.threads import Threads
from stepflows.errors import CacheUnavailable
from stepflows.results import Err, Ok, Stamp


def request(key: str | None = "k", **options: Any) -> plan.Request:
    policy = options.pop("policy", Policy())
    return plan.Request("label", key, policy, **options)


def play(steps: Plan, *answers: Any) -> tuple[list[Any], Any]:
    """What a plan asks for when it is given these answers, and what it returns."""
    asked = []
    given = iter(answers)
    try:
        asked.append(next(steps))
        while True:
            answer = next(given)
            asked.append(steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer))
    except StopIteration as stop:
        return asked, stop.value


def kinds(asked: list[Any]) -> list[type]:
    return [type(operation) for operation in asked]


def echo(value: Any) -> Any:
    return plan.single(lambda: value)


def test_a_hit_asks_once():
    """One look, and nothing else."""
    stored = Ok(1, stamp=Stamp("label"))
    asked, result = play(plan.step(RunContext("w"), request(), echo(2)), stored)
    assert asked == [Load("k")]
    assert result is stored


def test_a_miss_looks_calls_and_stores():
    """In this order, and the result that stands in the cache is the one that counts."""
    theirs = Ok("theirs", stamp=Stamp("label"))
    asked, result = play(plan.step(RunContext("w"), request(), echo(2)), MISSING, Returned("ours"), theirs)
    assert kinds(asked) == [Load, Call, Store]
    assert asked[2].result == Ok("ours")
    assert not asked[2].replace
    assert result is theirs


def test_the_error_of_whoever_was_first_is_replayed():
    """To everybody else it is out of the cache."""
    theirs = Err("NO", stamp=Stamp("label"))
    _, result = play(plan.step(RunContext("w"), request(), echo(2)), MISSING, Returned(1), theirs)
    assert result == Err("NO")
    assert result.step.replayed


@pytest.mark.parametrize("found", [Damaged("odd"), None])
def test_what_is_damaged_or_refreshed_is_replaced(found):
    """Else it would stand there as the first result stored."""
    options = {"refresh": True} if found is None else {}
    answers = [Returned(1), Ok(1)] if found is None else [found, Returned(1), Ok(1)]
    asked, _ = play(plan.step(RunContext("w"), request(**options), echo(1)), *answers)
    assert asked[-1].replace


def test_a_retry_pauses_between_attempts():
    """As long as the policy says; the same idempotency key each time."""
    policy = Policy(retry=Retry(3, wait=1.5))
    asked, result = play(
        plan.step(RunContext("w"), request(policy=policy), echo(1)),
        MISSING,
        Raised(ValueError()),
        None,
        Returned(1),
        Ok(1),
    )
    assert kinds(asked) == [Load, Call, Pause, Call, Store]
    assert asked[2] == Pause(1.5)
    assert [operation.step.attempt for operation in asked if isinstance(operation, Call)] == [1, 2]
    assert asked[1].step.idempotency_key == asked[3].step.idempotency_key
    assert result == Ok(1)


def test_nobody_listening_costs_nothing():
    """No event is made unless somebody listens."""
    for listening, expected in ((False, [Load]), (True, [Load, Emit])):
        run = RunContext("w", listening=listening)
        asked, _ = play(plan.step(run, request(), echo(1)), Ok(1, stamp=Stamp("label")), None)
        assert kinds(asked) == expected


def test_a_map_looks_all_items_up_together():
    """And executes only the missing ones."""
    steps = [(request(str(number)), echo(number)) for number in range(3)]
    gathering = Gathering(2)
    gathering.take(0, Ok(0))
    gathering.take(1, Ok(2))
    asked, result = play(
        plan.each(RunContext("w"), steps, 5), [MISSING, Ok(1, stamp=Stamp("label")), MISSING], gathering
    )
    assert asked[0] == LoadMany(["0", "1", "2"])
    assert isinstance(asked[1], Together)
    assert (len(asked[1].plans), asked[1].limit) == (2, 5)
    assert result == Ok([0, 1, 2])


def test_a_map_without_a_cache_server_runs_nothing():
    """Each item says so by itself."""
    steps = [(request("a"), echo(1))]
    gathering = Gathering(1)
    gathering.take(0, Err("what the item said"))
    asked, result = play(plan.each(RunContext("w"), steps, None), CacheUnavailable("away"), gathering)
    assert result == Err("what the item said")
    asked, result = play(asked[1].plans[0])
    assert asked == []
    assert isinstance(result.error, CacheUnavailable)


def test_a_result_that_cannot_be_stored_is_kept_without_anybody_listening():
    """The next step of this key asks nothing."""
    run = RunContext("w")
    _, first = play(plan.step(run, request(), echo(1)), MISSING, Returned(1), CacheUnavailable("away"))
    asked, second = play(plan.step(run, request(), echo(2)))
    assert (first, asked, second) == (Ok(1), [], Ok(1))


def test_a_driver_alone_runs_steps():
    """Without Django's part: threads with nothing to look after."""
    run = RunContext("w")
    step = Step(run, Driver(MappingCache({}), threads=Threads()))
    assert step.map("double", range(20), lambda item: 2 * item, key=str) == list(range(0, 40, 2))
    assert step("a", lambda: 1) == 1


async def test_an_async_driver_alone_runs_plans():
    """Without a cache, on any loop."""
    assert await AsyncDriver(None).drive(plan.step(RunContext("w", caching=False), request(), echo(5))) == Ok(5)
