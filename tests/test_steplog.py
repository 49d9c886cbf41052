"""What a run's row keeps of its steps."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from stepflows.engine.events import Event
from stepflows.steplog import StepLog

NAME = "steplog.checkout"
START = datetime(2030, 1, 1, tzinfo=UTC)


def told(*events):
    """A log that heard of these; each is a type, the seconds since the start, and more."""
    log = StepLog()
    for kind, seconds, more in [("workflow_start", 0, {}), *events]:
        log(Event(kind, NAME, "run", START + timedelta(seconds=seconds), **more))
    return log


def test_the_log_tells_when_a_step_began_and_how_long_it_took():
    """Offsets count from the start of the workflow; on a hit, what the stored execution took is not counted."""
    log = StepLog()

    def tell(kind, seconds, **more):
        log(Event(kind, NAME, "run", START + timedelta(seconds=seconds), **more))

    tell("workflow_start", 0)
    tell("step_cache_hit", 1, label="a", key="a", duration=30.0)
    tell("step_cache_miss", 1.5, label="b")
    tell("step_start", 1.5, label="b")
    tell("step_success", 4, label="b", duration=2.25, attempt=2)
    tell("step_error", 5, label="c", key="c", error="no")
    tell("workflow_error", 5, duration=5.0, error="no")

    assert log.steps == [
        {"label": "a", "key": "a", "outcome": "cached", "offset": 1.0, "duration": 0.0, "attempt": 1},
        {"label": "b", "key": None, "outcome": "executed", "offset": 1.75, "duration": 2.25, "attempt": 2},
        {"label": "c", "key": "c", "outcome": "error", "offset": 5.0, "duration": 0.0, "attempt": 1},
    ]


def test_a_clock_that_is_set_back_gives_no_negative_offset():
    """Wall clocks jump; a timeline begins at its start."""
    log = StepLog()

    log(Event("workflow_start", NAME, "run", START))
    log(Event("step_success", NAME, "run", START - timedelta(seconds=5), "a", duration=1.0))

    assert log.steps[0]["offset"] == 0


def test_a_step_that_is_under_way_is_shown():
    """What has begun and not ended comes last, and is gone from there once it has ended."""
    log = told(("step_start", 1, {"label": "a", "key": "a"}), ("step_start", 2, {"label": "b"}))

    assert [(step["label"], step["outcome"], step["offset"]) for step in log.steps] == [
        ("a", "running", 1.0),
        ("b", "running", 2.0),
    ]
    log(Event("step_success", NAME, "run", START + timedelta(seconds=3), "a", "a", duration=2.0))
    assert [(step["label"], step["outcome"]) for step in log.steps] == [("a", "executed"), ("b", "running")]
    assert log.counts() == {"executed": 1, "cached": 0}


def test_a_step_that_somebody_else_ran_was_waited_for():
    """Its duration is what the wait took, and it counts as one that did not run here."""
    step = {"label": "a", "key": "a"}

    log = told(("step_wait", 1, step), ("step_cache_hit", 4, {**step, "duration": 30.0}))

    [entry] = log.steps
    assert (entry["outcome"], entry["offset"], entry["duration"]) == ("waited", 1.0, 3.0)
    assert log.counts() == {"executed": 0, "cached": 1}


def test_a_step_that_was_waited_for_in_vain_is_executed():
    """Whoever it waited for was lost: the step runs here, and is shown once."""
    step = {"label": "a", "key": "a"}

    log = told(("step_wait", 1, step), ("step_start", 4, step))
    assert [(each["outcome"], each["offset"]) for each in log.steps] == [("running", 4.0)]
    log(Event("step_success", NAME, "run", START + timedelta(seconds=5), "a", "a", duration=1.0))

    assert [(each["outcome"], each["offset"]) for each in log.steps] == [("executed", 4.0)]


def test_an_error_that_was_waited_for_is_a_replayed_one():
    """The other's failure is this run's."""
    step = {"label": "a", "key": "a"}

    log = told(("step_wait", 1, step), ("step_cache_hit", 4, {**step, "ok": False}))

    assert [each["outcome"] for each in log.steps] == ["replayed_error"]


def test_steps_without_a_key_are_told_apart_by_their_number():
    """Of three under one label, as many are under way as have not ended."""
    step = {"label": "a"}

    log = told(*[("step_start", 1, step)] * 3, ("step_success", 2, {**step, "duration": 1.0}))

    assert [each["outcome"] for each in log.steps] == ["executed", "running", "running"]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(), SoftTimeLimitExceeded()], ids=repr)
def test_a_step_that_was_torn_apart_has_not_failed(error):
    """A run that was called off, a process that ended, a time limit: none says anything about the step."""
    step = {"label": "a", "key": "a"}

    log = told(("step_start", 1, step), ("step_error", 2, {**step, "duration": 1.0, "error": error, "ok": False}))

    assert [each["outcome"] for each in log.steps] == ["interrupted"]
    assert log.counts() == {"executed": 0, "cached": 0}
