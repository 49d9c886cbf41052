"""What people do with runs while a worker is at them: cancel, resume, retry."""

from threading import Thread

import pytest
from django.db import connections
from redis import Redis

from stepflows import Err, Ok, StepCache
from stepflows.models import Run
from tests import settings as site
from tests.celery.crews import PATIENCE, heart, running
from tests.flows.gated import (
    CACHE,
    gated,
    gated_async,
    noted,
    open_gate,
    ticking,
    ticking_async,
    unlucky,
)
from tests.outages.single import await_until
from tests.workers import Worker

pytestmark = [pytest.mark.worker, pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope="module", autouse=True)
def at_work(_valkey_server, django_db_setup, _folder):
    """Tells how many messages the worker of this file is at."""
    with Redis.from_url(site.BROKER_URL) as broker:
        # Of workers that other tests have killed.
        lost = broker.hlen("unacked")
        with running(Worker(_folder, "cancelling", processes=3, environment=heart(2))):
            yield lambda: broker.hlen("unacked") - lost


def sent(workflow, name):
    return workflow.apply_async((name,), queue="cancelling")


def steps(run):
    run.refresh_from_db()
    return [(step["label"], step["outcome"]) for step in run.steps]


@pytest.mark.parametrize("workflow", [ticking, ticking_async], ids=["sync", "async"])
def test_a_cancelled_run_ends_before_its_next_step(name, workflow, at_work):
    """Within about a second; the step that was under way is stored, and the row keeps the steps."""
    run = sent(workflow, name)
    await_until(lambda: "gate" in noted(name), PATIENCE)

    assert run.cancel()
    open_gate(name)
    await_until(lambda: at_work() == 0, PATIENCE)

    assert run.wait(0) == Err("cancelled")
    assert ("gate", "executed") in steps(run)
    # A step takes a twentieth of a second.
    assert len(run.steps) < 100
    assert StepCache(CACHE, namespace=workflow.name).get(f"{name}:gate") == Ok(None)


def test_a_cancellation_wakes_whoever_waits_for_the_run(name):
    """Nobody waits for the step that is still under way."""
    run = sent(gated, name)
    await_until(lambda: "gate" in noted(name), PATIENCE)
    results = []

    def wait():
        results.append(Run.objects.get(pk=run.pk).wait(PATIENCE))
        connections.close_all()

    waiting = Thread(target=wait)
    waiting.start()
    run.cancel()
    waiting.join(PATIENCE)

    assert results == [Err("cancelled")]
    assert noted(name) == ["before", "gate"]
    open_gate(name)


@pytest.mark.parametrize("workflow", [gated, gated_async], ids=["sync", "async"])
def test_a_run_that_waits_for_another_ones_step_is_cancelled(name, workflow, at_work):
    """It ends while it waits, and the one that runs the step is not disturbed."""
    working = sent(workflow, name)
    await_until(lambda: "gate" in noted(name), PATIENCE)
    waiting = sent(workflow, name)
    await_until(lambda: ("gate", "running") in steps(waiting), PATIENCE)

    assert waiting.cancel()
    await_until(lambda: at_work() == 1, PATIENCE)
    open_gate(name)

    assert working.wait(PATIENCE) == Ok(f"after {name}")
    assert waiting.wait(0) == Err("cancelled")
    assert noted(name) == ["before", "gate", "after"]


def test_a_cancelled_run_can_be_resumed(name, at_work):
    """What was done before the cancellation is not done again."""
    run = sent(gated, name)
    await_until(lambda: "gate" in noted(name), PATIENCE)
    run.cancel()
    open_gate(name)
    await_until(lambda: at_work() == 0, PATIENCE)

    assert run.resume()

    assert run.wait(PATIENCE) == Ok(f"after {name}")
    assert noted(name) == ["before", "gate", "after"]


def test_a_resumed_run_replays_its_failure(name):
    """The stored error stands, even if its cause is gone."""
    run = sent(unlucky, name)
    assert run.wait(PATIENCE) == Err("DECLINED")
    open_gate(name)

    assert run.resume()

    assert run.wait(PATIENCE) == Err("DECLINED")
    assert noted(name) == ["before", "charge"]
    assert steps(run) == [("before", "cached"), ("charge", "replayed_error")]


def test_a_retried_run_repeats_what_failed_and_nothing_else(name):
    """The failed step runs again, the step before it does not, and the run goes on to its end."""
    run = sent(unlucky, name)
    assert run.wait(PATIENCE) == Err("DECLINED")
    open_gate(name)

    assert run.retry()

    assert run.wait(PATIENCE) == Ok("paid")
    assert noted(name) == ["before", "charge", "charge", "after"]
    assert steps(run) == [("before", "cached"), ("charge", "executed"), ("after", "executed")]
