"""What becomes of results: stored, refused, kept for the run, or put off until a commit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stepflows.engine import plan, policy, storing
from stepflows.engine.cache import LOST, MISSING
from stepflows.engine.context import RunContext
from stepflows.engine.execution import Executed
from stepflows.engine.operations import Call, Claim, Defer, Load, Pause, Raised, Release, Returned, Store
from stepflows.engine.policy import Policy, Retry
from stepflows.errors import CacheUnavailable, NotCacheable
from stepflows.results import Err, Ok, Stamp
from tests.engine.plays import begin, echo, end, gathered, granted, kinds, lease, play, released, request, stored, told

AWAY = CacheUnavailable("away")


def ran(key: str = "k", result: Any = None, **options: Any) -> Executed:
    """A step that ran under a lease."""
    transactions = options.pop("transactions", ())
    return Executed(request(key, **options), result or Ok(key), 0.5, transactions, lease(key))


# The cache is away when it is to be stored.


def test_a_failing_store_is_tried_again():
    """After a short pause, and the run does not notice."""
    asked, [result] = play(storing.keep(RunContext("w"), [ran()]), AWAY, None, AWAY, None, [stored("k")])
    assert kinds(asked) == [Store, Pause, Store, Pause, Store]
    assert asked[0] == asked[2] == asked[4]
    assert result == Ok("k")


def test_a_store_that_keeps_failing_is_given_up():
    """Within three seconds, so that whoever asked has an answer; the result counts for the run."""
    run = RunContext("w", listening=True)
    asked, [result] = play(storing.keep(run, [ran()]), *[AWAY, None] * 5, AWAY, None, None)
    assert sum(isinstance(operation, Store) for operation in asked) == 6
    assert 1 < sum(operation.seconds for operation in asked if isinstance(operation, Pause)) <= 3
    assert result == Ok("k")
    assert run.kept == {"k": Ok("k")}
    assert told(asked) == ["step_cache_write_failed"]
    assert asked[-2].event.error is AWAY


def test_a_result_that_cannot_be_stored_gives_its_lease_back_without_waiting():
    """Nobody may go on renewing it, or others would wait for a step that nobody runs."""
    executed = [ran("a"), ran("b")]
    asked, _ = play(storing.keep(RunContext("w"), executed), *[AWAY, None] * 5, AWAY, None)
    assert asked[-1] == Release([each.lease for each in executed], soon=True)


def test_a_store_that_fails_slowly_is_given_up_sooner(monkeypatch):
    """A server that does not answer takes its time each time; but it is tried again once, however long that was."""
    clock = iter([0.0, 20.0, 20.0])
    monkeypatch.setattr(storing, "time", SimpleNamespace(monotonic=lambda: next(clock), time=lambda: 0.0))
    asked, [result] = play(storing.keep(RunContext("w"), [ran()]), AWAY, None, AWAY, None)
    assert kinds(asked) == [Store, Pause, Store, Release]
    assert result == Ok("k")


def test_a_result_that_cannot_be_stored_is_an_error_in_the_log(caplog):
    """It names the step and says that it ran."""
    play(storing.keep(RunContext("w"), [ran()]), *[AWAY, None] * 5, AWAY, None)
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert "step 'label' (key 'k'): ran, but its result could not be stored: away" in record.getMessage()


def test_a_result_that_cannot_be_stored_is_kept_without_anybody_listening():
    """The next step of this key asks nothing."""
    run = RunContext("w")
    answers = (MISSING, granted("k"), Returned(1), *[AWAY, None] * 5, AWAY, None)
    _, first = play(plan.step(run, request(), echo(1)), *answers)
    asked, second = play(plan.step(run, request(), echo(2)))
    assert (first, asked, second) == (Ok(1), [], Ok(1))


def test_what_is_stored_in_the_end_is_not_kept_beside_it():
    """A refresh asks again, and its result is the cache's."""
    run = RunContext("w")
    run.kept["k"], run.ahead["k"] = Ok("kept"), stored("ahead")
    play(storing.keep(run, [ran(refresh=True)]), [stored("k")])
    assert run.kept == run.ahead == {}


# What is not to be stored.


def test_a_value_that_cannot_be_cached_fails_its_step_alone():
    """The others of the batch are stored; its own lease is given back."""
    run = RunContext("w", listening=True)
    refused = NotCacheable("an open file", "[0]", "Return its name.")
    asked, results = play(
        storing.keep(run, [ran("a"), ran("b"), ran("c")]), [stored("a"), refused, stored("c")], None, None
    )
    assert [entry.key for entry in asked[0].entries] == ["a", "b", "c"]
    assert told(asked) == ["step_cache_write_failed"]
    assert [each.key for each in released(asked)] == ["b"]
    assert (results[0], results[2]) == (Ok("a"), Ok("c"))
    assert "workflow 'w', step 'label' (key 'b') returned a value that cannot be cached" in str(results[1].error)
    assert results[1].step.key == "b"
    assert run.kept == {}


def test_an_error_that_cannot_be_cached_is_the_cause_of_its_refusal():
    """Else nobody would ever see it."""
    error = ValueError("with an open file")
    executed = ran(result=Err(error))
    _, [result] = play(storing.keep(RunContext("w"), [executed]), [NotCacheable("an open file")], None)
    assert isinstance(result.error, NotCacheable)
    assert result.cause is result.error.__cause__ is error
    _, [result] = play(storing.keep(RunContext("w"), [ran(result=Err("NO"))]), [NotCacheable("no")], None)
    assert result.cause == "NO"
    assert result.error.__cause__ is None


@pytest.mark.parametrize(
    ("options", "result"),
    [
        (Policy(cache_errors=False), Err("NO")),
        (Policy(cache_errors=(KeyError,)), Err(ValueError())),
        (Policy(), Err(CacheUnavailable("another cache"))),
        (Policy(), Err(NotCacheable("another step"))),
        (Policy(ttl=0), Ok(1)),
    ],
)
def test_what_is_not_to_be_stored_gives_the_lease_back(options, result):
    """So that the next one runs at once."""
    asked, kept = play(storing.keep(RunContext("w"), [ran(result=result, policy=options)]), None)
    assert kinds(asked) == [Release]
    assert kept == [result]


class TimeIsUp(BaseException):
    """A worker's time limit."""


def test_a_time_limit_is_not_stored(monkeypatch):
    """It struck from outside, and says nothing about the step."""
    monkeypatch.setattr(policy, "_interrupts", (TimeIsUp,))
    asked, _ = play(storing.keep(RunContext("w"), [ran(result=Err(TimeIsUp()))]), None)
    assert kinds(asked) == [Release]


def test_a_refresh_without_a_time_to_live_still_ends_what_was_there():
    """It is stored as already past."""
    asked = begin(storing.keep(RunContext("w"), [ran(policy=Policy(ttl=0), refresh=True)]))
    [entry] = asked[0].entries
    assert entry.replace
    assert entry.result.stamp.expired(entry.result.stamp.stored_at)


def test_what_is_stored_carries_its_stamp():
    """Label, time, duration, run and end; not the step at which it failed."""
    run = RunContext("w")
    executed = ran(result=Err("NO"), policy=Policy(ttl=60))
    [entry] = begin(storing.keep(run, [executed]))[0].entries
    stamp = entry.result.stamp
    assert (stamp.label, stamp.duration, stamp.run_id) == ("label", 0.5, run.run_id)
    assert stamp.expires_at == stamp.stored_at + 60


# What counts.


def test_the_first_stored_counts():
    """Whoever stored it, under whatever label; that is worth a line in the log if it is another."""
    theirs = Err("THEIRS", stamp=Stamp("another"))
    _, [result] = play(storing.keep(RunContext("w"), [ran()]), [theirs])
    assert result == Err("THEIRS")
    assert (result.step.label, result.step.replayed) == ("label", True)


def test_ones_own_result_is_no_replay():
    """It comes back as the very entry that was given."""
    steps = storing.keep(RunContext("w"), [ran(result=Err("NO"))])
    [entry] = begin(steps)[0].entries
    [result] = end(steps, [entry.result])
    assert result == Err("NO")
    assert result.step is None


def test_a_result_that_was_lost_is_none():
    """The others of its batch count."""
    _, results = play(storing.keep(RunContext("w"), [ran("a"), ran("b")]), [LOST, stored("b")])
    assert results == [LOST, Ok("b")]


# Transactions.


def deferring(run: RunContext, **options: Any) -> tuple[Any, Any]:
    """A step that used an open transaction: what is put off, and its result."""
    steps = plan.step(run, request(**options), echo(1))
    asked = begin(steps, MISSING, granted("k"), Returned(1, transaction="open"))
    assert kinds(asked) == [Load, Claim, Call, Defer]
    return asked[-1], end(steps)


def test_what_used_an_open_transaction_is_put_off():
    """It counts in its run at once, under its lease."""
    run = RunContext("w")
    operation, result = deferring(run)
    assert list(operation.transactions) == ["open"]
    assert operation.entry.lease is not None
    assert result == Ok(1)
    assert play(plan.step(run, request(), echo(2))) == ([], Ok(1))


def test_a_commit_stores_it():
    """Then it is the cache's, and no more the run's."""
    run = RunContext("w")
    operation, _ = deferring(run)
    asked, result = play(operation.committed(operation.entry), [operation.entry.result])
    assert asked == [Store([operation.entry])]
    assert result == Ok(1)
    assert run.kept == {}


def test_a_commit_that_cannot_be_stored_keeps_it_for_the_run():
    """As if there had been no transaction."""
    run = RunContext("w")
    operation, _ = deferring(run)
    asked, result = play(operation.committed(operation.entry), *[AWAY, None] * 5, AWAY, None)
    assert kinds(asked)[-1] is Release
    assert result == Ok(1)
    assert run.kept == {"k": Ok(1)}


def test_a_commit_after_the_lease_was_lost_changes_nothing():
    """It has been the run's result all along."""
    operation, _ = deferring(RunContext("w"))
    assert play(operation.committed(operation.entry), [LOST])[1] == Ok(1)


def test_a_rollback_forgets_it():
    """The next step of this key looks again."""
    run = RunContext("w")
    operation, _ = deferring(run)
    operation.forgotten()
    assert run.kept == {}


def test_a_retried_step_waits_for_all_its_transactions():
    """Those of failed attempts too: what they wrote may be what counts."""
    steps = plan.step(RunContext("w"), request(policy=Policy(retry=Retry(2, wait=0))), echo(1))
    answers = (MISSING, granted("k"), Raised(ValueError(), transaction="first"), None, Returned(1, transaction="last"))
    asked = begin(steps, *answers)
    assert list(asked[-1].transactions) == ["first", "last"]


def test_of_a_map_only_what_used_a_transaction_is_put_off():
    """The rest is stored at once."""
    steps = plan.each(RunContext("w"), [(request(key), echo(key)) for key in "ab"], None)
    together = begin(steps, [MISSING] * 2, granted("a", "b"))[-1]
    gathered(together, [Returned("a", transaction="open")], [Returned("b")])
    asked, _ = play(together.then([0, 1]), None, [stored("b")])
    assert kinds(asked) == [Defer, Store]
    assert (asked[0].entry.key, asked[1].entries[0].key) == ("a", "b")
