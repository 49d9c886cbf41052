"""Runs on a real worker, over a real broker, with a cache and a database that all processes share."""

import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from celery import current_app
from django.db import transaction
from django.utils import timezone
from redis import Redis

from stepflows import Err, FailedStep, Ok, StepCache, StepKeyConflict, dumps
from stepflows.models import Run
from stepflows.tasks import run as task
from tests import settings as site
from tests.flows import notes
from tests.flows.workflows import CACHE, Basket, Declined, conflict, declined, echo, exits, missing, order, order_async
from tests.workers import running_worker

pytestmark = [pytest.mark.worker, pytest.mark.django_db(transaction=True)]

#: Seconds until a test gives up on the worker.
PATIENCE = 30


@pytest.fixture(scope="module")
def _worker(_valkey_server, django_db_setup, _folder):
    with Redis.from_url(site.BROKER_URL) as broker:
        # What workers that were killed never acknowledged.
        broker.flushdb()
    with running_worker(_folder, "celery", "slow") as process:
        yield process


@pytest.fixture(autouse=True)
def worker(_worker, valkey):
    """The worker of this file, with an empty cache and nothing noted."""
    notes.forget()
    return _worker


def outcomes(run):
    return [(step["label"], step["outcome"]) for step in run.steps]


def nothing_left():
    """Wait until every message that was sent is acknowledged."""
    deadline = time.monotonic() + PATIENCE
    with Redis.from_url(site.BROKER_URL) as broker:
        while broker.llen("celery") or broker.hlen("unacked"):
            assert time.monotonic() < deadline, "The worker does not work its queue off."
            time.sleep(0.01)


def test_a_run_is_published_by_the_commit_and_runs_on_the_worker(worker):
    """A request that commits starts the run; another process executes it and writes the row."""
    with transaction.atomic():
        run = order.delay(order_id=7)

    assert run.wait(PATIENCE) == Ok("charge 7")
    assert notes.notes() == ["load 7", "charge 7"]
    assert (run.state, run.attempts) == ("succeeded", 1)
    assert run.worker.startswith("celery@")
    assert outcomes(run) == [("load", "executed"), ("charge", "executed")]


def test_a_run_of_a_failed_transaction_never_runs(worker):
    """What was rolled back has not been sent: the next run is the only one that the worker sees."""
    with pytest.raises(RuntimeError, match="no"), transaction.atomic():
        order.delay(order_id=7)
        raise RuntimeError("no")

    assert order.delay(order_id=8).wait(PATIENCE).ok
    assert notes.notes() == ["load 8", "charge 8"]
    assert Run.objects.count() == 1


def test_a_second_run_executes_nothing(worker):
    """The steps of the first run lie in the shared cache, where this process sees them too."""
    first = order.delay(7)
    first.wait(PATIENCE)

    second = order.delay(7)

    assert second.wait(PATIENCE) == first.result
    assert notes.notes() == ["load 7", "charge 7"]
    assert outcomes(second) == [("load", "cached"), ("charge", "cached")]
    assert StepCache(CACHE, namespace="flows.order").get("order:7:basket") == Ok(Basket(7, ("load 7",)))
    assert order.run(7) == first.result
    assert len(notes.notes()) == 2


def test_an_exception_comes_back_and_is_replayed(worker):
    """An exception with an __init__ of its own is the same here as on the worker, and the card is charged once."""
    for outcome, replayed in [("error", False), ("replayed_error", True)]:
        run = declined.delay(7)
        result = run.wait(PATIENCE)

        assert isinstance(result.error, Declined)
        assert (result.error.code, str(result.error)) == (51, "declined with 51")
        assert result.step == FailedStep("charge", "order:7:charge", replayed)
        assert outcomes(run) == [("charge", outcome)]

    assert notes.notes() == ["charge 7"]


def test_an_error_value_comes_back_with_its_cause(worker):
    """A failure as data is the result of the run, and the step that failed is named."""
    run = missing.delay(7)

    result = run.wait(PATIENCE)

    assert result == Err("NOT_FOUND", {"order_id": 7})
    assert result.step == FailedStep("load", "order:7")
    assert run.state == "failed"


def test_a_message_that_is_delivered_twenty_times_runs_once(worker):
    """The row decides, not the broker."""
    run = Run.objects.create(workflow="flows.order", arguments=dumps(Ok(((7,), {}))))

    for _ in range(20):
        task.apply_async((str(run.pk),))
    run.wait(PATIENCE)
    nothing_left()

    run.refresh_from_db()
    assert notes.notes() == ["load 7", "charge 7"]
    assert (run.attempts, run.state) == (1, "succeeded")


class Size(Enum):
    SMALL = 1


RICH = {
    "none": None,
    "bytes": b"\0\xff",
    "tuple": (1, (2.5, "ключ")),
    "sets": {frozenset({1}), frozenset()},
    "decimal": Decimal("1.10"),
    "day": date(2030, 1, 1),
    "moment": datetime(2030, 1, 1, 12, tzinfo=UTC),
    "span": timedelta(microseconds=1),
    "uuid": UUID(int=7),
    ("a", 1): [True, 1, 1.0],
    "basket": Basket(7, ("pen",)),
}


def test_arguments_of_all_kinds_reach_the_body_and_come_back(worker):
    """What the codec keeps may be an argument, and a result; types and all."""
    run = echo.delay(RICH, None, rich=[RICH])

    value = run.wait(PATIENCE).unwrap()

    assert value == ((RICH, None), {"rich": [RICH]})
    assert repr(value[0][0]["tuple"]) == "(1, (2.5, 'ключ'))"
    assert type(value[0][0]["basket"]) is Basket


def test_an_async_body_runs_on_the_worker(worker):
    """The worker drives an event loop for it."""
    runs = []

    for _ in range(2):
        runs.append(order_async.delay(order_id=7))
        assert runs[-1].wait(PATIENCE) == Ok("charge 7")

    assert notes.notes() == ["charge 7"]
    assert [outcomes(run) for run in runs] == [[("charge", "executed")], [("charge", "cached")]]


def test_a_countdown_is_kept(worker):
    """A run with a countdown starts after it."""
    start = timezone.now()

    run = order.apply_async((7,), countdown=0.5)
    run.wait(PATIENCE)

    assert run.started_at - start >= timedelta(seconds=0.5)


def test_a_queue_is_kept(worker):
    """A run goes to the queue that it was given, where this worker listens too."""
    run = order.apply_async(kwargs={"order_id": 7}, queue="slow")

    assert run.wait(PATIENCE) == Ok("charge 7")


def test_a_wrong_use_fails_the_run_and_not_the_worker(worker):
    """What would be raised in this process is the result of the row, and the worker goes on."""
    result = conflict.delay().wait(PATIENCE)

    assert isinstance(result.error, StepKeyConflict)
    assert order.delay(7).wait(PATIENCE).ok


def test_a_run_whose_process_ends_goes_on_in_another(worker):
    """The row goes back into the queue, Celery delivers the message again, and what was done is not repeated."""
    run = exits.delay(times=1)

    assert run.wait(PATIENCE) == Ok(1)

    assert run.attempts == 2
    assert notes.notes() == ["charge", "exit"]
    assert outcomes(run) == [("charge", "cached")]


def test_a_run_that_always_ends_its_process_is_given_up(worker):
    """It does not take the worker down with it: after MAX_ATTEMPTS it has failed."""
    arguments = dumps(Ok(((), {"times": 99})))
    run = Run.objects.create(workflow="flows.exit", arguments=arguments, attempts=3)
    task.delay(str(run.pk))

    result = run.wait(PATIENCE)

    assert (run.state, run.attempts) == ("failed", 5)
    assert "in each of 5 attempts" in str(result.error)
    assert order.delay(7).wait(PATIENCE).ok


def test_the_task_asks_nothing_of_the_projects_celery():
    """Its options are its own: late acknowledgement, no result; the app's configuration is as it was."""
    registered = current_app.tasks["stepflows.run"]

    assert (registered.acks_late, registered.reject_on_worker_lost, registered.ignore_result) == (True, True, True)
    assert not current_app.conf.task_acks_late
    assert not current_app.conf.task_reject_on_worker_lost
