"""Runs whose process or worker is ended."""

import os
import signal
from datetime import timedelta

import pytest
from django.utils import timezone

from stepflows import Ok, RunLost, dumps
from stepflows.models import Run
from stepflows.tasks import run as task
from tests.celery.crews import PATIENCE, heart, revoke, running
from tests.flows.gated import gated, noted, open_gate
from tests.flows.workflows import order
from tests.outages.single import await_until
from tests.workers import Worker

pytestmark = [pytest.mark.worker, pytest.mark.django_db(transaction=True)]

#: Their leases do not outlive them for long.
ENVIRONMENT = heart(1, LEASE=2)


@pytest.fixture(scope="module")
def worker(_valkey_server, django_db_setup, _folder):
    with running(Worker(_folder, "endings", processes=3, environment=ENVIRONMENT)):
        yield


@pytest.fixture
def doomed(_folder, name):
    """A worker of the test's own, with a queue of its own."""
    worker = Worker(_folder, name, environment=ENVIRONMENT)
    with running(worker):
        yield worker


def test_a_revoked_task_does_not_end_its_run(worker, name):
    """Celery ends the process that runs it; the run goes on in another one. Its own way to be ended is cancel()."""
    run = gated.apply_async((name,), queue="endings")
    await_until(lambda: "gate" in noted(name), PATIENCE)

    revoke(run)
    await_until(lambda: noted(name).count("gate") == 2, PATIENCE)
    open_gate(name)

    assert run.wait(PATIENCE) == Ok(f"after {name}")
    assert noted(name) == ["before", "gate", "gate", "after"]


def test_a_poison_run_is_parked_and_others_go_on(worker, name):
    """It kills its process each time; after MAX_ATTEMPTS it has failed, and its neighbours have not noticed."""
    neighbour = gated.apply_async((f"{name}-neighbour",), queue="endings")
    await_until(lambda: "gate" in noted(f"{name}-neighbour"), PATIENCE)
    # Three attempts are behind it, for each takes a while.
    arguments = dumps(Ok(((name,), {})))
    run = Run.objects.create(
        workflow="flows.poison", arguments=arguments, attempts=3, queue="endings", due_at=timezone.now()
    )
    task.apply_async((str(run.pk),), queue="endings")
    await_until(lambda: "poison" in noted(name), PATIENCE)

    assert order.apply_async((7,), queue="endings").wait(PATIENCE).ok
    result = run.wait(PATIENCE)
    open_gate(f"{name}-neighbour")

    assert (run.state, run.attempts) == ("failed", 5)
    assert isinstance(result.error, RunLost)
    assert "was lost with its worker in each of 5 attempts; it is not tried again." in str(result.error)
    assert noted(name) == ["before", "poison", "poison"]
    assert neighbour.wait(PATIENCE).ok
    assert noted(f"{name}-neighbour") == ["before", "gate", "after"]


def test_a_warm_shutdown_waits_for_the_run(doomed, name):
    """A worker that is asked to go finishes what it is at."""
    run = gated.apply_async((name,), queue=name)
    await_until(lambda: "gate" in noted(name), PATIENCE)

    doomed.process.send_signal(signal.SIGTERM)
    await_until(lambda: "Warm shutdown" in doomed.log.with_suffix(".out").read_text(), PATIENCE)
    open_gate(name)

    assert doomed.process.wait(PATIENCE) == 0
    assert run.wait(0) == Ok(f"after {name}")
    assert noted(name) == ["before", "gate", "after"]


def test_a_cold_shutdown_loses_no_run(doomed, folder, name):
    """A worker that has to go at once leaves its run to the next one."""
    run = gated.apply_async((name,), queue=name)
    await_until(lambda: "gate" in noted(name), PATIENCE)

    doomed.process.send_signal(signal.SIGQUIT)
    doomed.process.wait(PATIENCE)
    open_gate(name)

    with running(Worker(folder, name, environment=ENVIRONMENT)):
        assert run.wait(PATIENCE) == Ok(f"after {name}")
    assert noted(name) == ["before", "gate", "gate", "after"]


def test_a_run_of_newer_code_waits_for_a_worker_that_has_it(doomed, folder, name):
    """While a release is rolled out, a worker of the old one may get the message first."""
    arguments = dumps(Ok(((name,), {})))
    due = timezone.now() + timedelta(minutes=1)
    run = Run.objects.create(workflow="flows.released", arguments=arguments, queue=name, due_at=due)
    task.apply_async((str(run.pk),), queue=name)
    await_until(lambda: Run.objects.get(pk=run.pk).history, PATIENCE)
    doomed.stop()

    with running(Worker(folder, name, environment={**ENVIRONMENT, "TEST_RELEASE": "next"})):
        assert run.wait(PATIENCE) == Ok(f"released {name}")
    assert "No workflow is named 'flows.released'" in run.history[0]["reason"]


def test_a_worker_that_stood_still_does_not_take_its_run_back(doomed, folder, name):
    """It was thought lost, and somebody else has the run now: it leaves off as soon as it hears of that."""
    run = gated.apply_async((name,), queue=name)
    await_until(lambda: "gate" in noted(name), PATIENCE)

    os.killpg(doomed.process.pid, signal.SIGSTOP)
    with running(Worker(folder, name, environment=ENVIRONMENT)):
        await_until(lambda: noted(name).count("gate") == 2, PATIENCE)
        os.killpg(doomed.process.pid, signal.SIGCONT)
        await_until(lambda: "taken over" in doomed.log.read_text(), PATIENCE)
        open_gate(name)
        assert run.wait(PATIENCE) == Ok(f"after {name}")

    assert [(step["label"], step["outcome"]) for step in run.steps] == [
        ("before", "cached"),
        ("gate", "executed"),
        ("after", "executed"),
    ]
    assert noted(name) == ["before", "gate", "gate", "after"]
