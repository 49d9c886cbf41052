"""What Celery's time limits do to runs, on a worker that has both."""

import pytest

from stepflows import Ok, RunLost, StepCache
from tests.celery.crews import PATIENCE, heart, running
from tests.flows.gated import CACHE, deaf, noted, slow, slow_async
from tests.workers import Worker

pytestmark = [pytest.mark.worker, pytest.mark.django_db(transaction=True)]

MAX_ATTEMPTS = 3


@pytest.fixture(scope="module")
def worker(_valkey_server, django_db_setup, _folder):
    """A lease that is not released outlives every test."""
    environment = heart(1, LEASE=300, MAX_ATTEMPTS=MAX_ATTEMPTS)
    limits = ["--soft-time-limit=1.5", "--time-limit=3"]
    with running(Worker(_folder, "limited", environment=environment, options=limits)):
        yield


@pytest.mark.parametrize("workflow", [slow, slow_async], ids=["sync", "async"])
def test_a_soft_time_limit_puts_the_run_back(worker, name, workflow):
    """The next attempt has the lease at once and finishes, and nothing of the interrupted step was stored."""
    run = workflow.apply_async((name, 1), queue="limited")

    assert run.wait(PATIENCE) == Ok(f"done {name}")
    assert noted(name) == ["before", "slow", "slow", "done"]
    assert [step["outcome"] for step in run.steps] == ["cached", "executed"]


def test_history_tells_why_an_attempt_ended(worker, name):
    """The reason is the limit, beside the steps that the attempt came to."""
    run = slow.apply_async((name, 1), queue="limited")
    run.wait(PATIENCE)

    [attempt] = run.history
    assert "SoftTimeLimitExceeded" in attempt["reason"]
    assert ("before", "executed") in [(step["label"], step["outcome"]) for step in attempt["steps"]]


def test_a_run_that_always_exceeds_its_soft_limit_is_given_up(worker, name):
    """After MAX_ATTEMPTS it has failed; its step has no result that somebody would replay."""
    run = slow.apply_async((name, 99), queue="limited")

    result = run.wait(PATIENCE)

    assert isinstance(result.error, RunLost)
    assert f"in each of {MAX_ATTEMPTS} attempts; it is not tried again" in str(result.error)
    assert noted(name) == ["before", *["slow"] * MAX_ATTEMPTS]
    assert StepCache(CACHE, namespace=slow.name).get(f"{name}:slow") is None


def test_a_run_that_is_killed_by_the_hard_limit_is_found(worker, name):
    """Its process had no time to give it back: the worker notices that it is not heard of any more."""
    run = deaf.apply_async((name,), queue="limited")

    assert run.wait(PATIENCE) == Ok(f"done {name}")
    assert noted(name) == ["before", "deaf", "deaf", "done"]
    assert "not heard of" in run.history[0]["reason"]
