"""Runs on a broker that loses its messages, repeats them, or is away."""

import time

import pytest
from celery import Celery, current_app

from stepflows import Ok, dumps
from stepflows.models import Run
from stepflows.tasks import run as task
from tests.celery.crews import PATIENCE, heart, running
from tests.flows.gated import gated, noted, open_gate
from tests.flows.workflows import order
from tests.outages.single import await_until, running_single
from tests.workers import Worker

pytestmark = [pytest.mark.worker, pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope="module")
def _broker(_folder):
    """A server of this file's own, to mistreat."""
    with running_single(_folder / "broker") as broker:
        yield broker


@pytest.fixture(scope="module")
def worker(_valkey_server, django_db_setup, _folder, _broker):
    environment = heart(1) | {"CELERY_BROKER_URL": _broker.url}
    with running(Worker(_folder, environment=environment)):
        yield


@pytest.fixture
def broker(_broker, worker, valkey, settings):
    """The broker of the worker and of the current Celery app, well again at the end."""
    settings.STEPFLOWS = {"HEARTBEAT": 1}
    before = current_app._get_current_object()
    app = Celery("brokers", broker=_broker.url, set_as_current=False)
    app.set_current()
    yield _broker
    _broker.mend()
    before.set_current()
    app.close()


def is_idle(broker):
    """Whether every message is acknowledged."""
    return not (broker.client.llen("celery") or broker.client.hlen("unacked"))


def test_a_message_that_is_delivered_a_hundred_times_runs_once(broker, name):
    """Half of them arrive before it runs, the others meanwhile."""
    run = Run.objects.create(workflow="flows.gated", arguments=dumps(Ok(((name,), {}))))

    for _ in range(50):
        task.delay(str(run.pk))
    await_until(lambda: "gate" in noted(name), PATIENCE)
    for _ in range(50):
        task.delay(str(run.pk))
    open_gate(name)

    assert run.wait(PATIENCE).ok
    await_until(lambda: is_idle(broker), PATIENCE)
    assert noted(name) == ["before", "gate", "after"]


def test_a_broker_that_forgets_everything_loses_no_run(broker, name):
    """The messages of runs that still wait are sent again, twice if need be, and all succeed."""
    blockers = [gated.delay(f"{name}-{number}") for number in range(2)]
    await_until(lambda: all("gate" in noted(f"{name}-{number}") for number in range(2)), PATIENCE)
    runs = [order.delay(f"{name}-{number}") for number in range(20)]

    broker.client.flushdb()
    sent = Run.objects.filter(workflow="flows.order", epoch__gt=0)
    await_until(sent.count, PATIENCE)
    broker.client.flushdb()
    for number in range(2):
        open_gate(f"{name}-{number}")

    assert {run.wait(PATIENCE).ok for run in [*blockers, *runs]} == {True}


def test_a_run_that_could_not_be_sent_is_sent_when_the_broker_is_back(broker, name):
    """The caller does not wait for the broker; the row waits, and a worker sends it."""
    open_gate(name)
    broker.stop()

    start = time.monotonic()
    run = gated.delay(name)
    assert time.monotonic() - start < 10
    assert Run.objects.get(pk=run.pk).state == "queued"

    broker.start()
    assert run.wait(PATIENCE) == Ok(f"after {name}")


def test_a_broker_that_never_answers_keeps_nobody_waiting(broker, name):
    """It accepts connections and stands still: delay returns after a few seconds, and the run is not lost."""
    open_gate(name)
    broker.pause()

    start = time.monotonic()
    run = gated.delay(name)
    assert time.monotonic() - start < 15
    assert Run.objects.get(pk=run.pk).state == "queued"

    broker.resume()
    assert run.wait(PATIENCE) == Ok(f"after {name}")
