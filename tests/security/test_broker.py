"""A message is only a hint: whoever can write to the broker makes no run happen twice, and no worker end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import current_app
from redis import Redis

from stepflows import Ok
from stepflows.messages import TASK, withheld
from stepflows.models import Run
from stepflows.tasks import run as task
from tests import settings as site
from tests.flows import notes
from tests.flows.workflows import echo, order
from tests.workers import running_worker

PATIENCE = 60
#: What an id may be instead, as JSON.
NO_IDS = [
    "",
    "no id",
    "7",
    7,
    -1,
    2**70,
    None,
    True,
    [],
    ["a"],
    {},
    {"id": 1},
    "x\nERROR forged",
    "'; DROP TABLE x",
    "é" * 9999,
]


@pytest.mark.django_db
@pytest.mark.parametrize("run_id", NO_IDS, ids=range(len(NO_IDS)))
def test_what_is_no_id_is_logged_on_one_line(run_id: Any, caplog: pytest.LogCaptureFixture):
    """The task ends as it should, and the log says what came, without a line of the sender's own."""
    task.run(run_id)
    [message] = caplog.messages
    assert message.isprintable()
    assert len(message) < 300


@pytest.mark.django_db
def test_an_id_of_no_run_has_nothing_to_do():
    """An id that is nobody's makes no row and runs nothing."""
    task.run(str(uuid4()))
    assert Run.objects.count() == 0


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["running", "succeeded", "failed", "cancelled"])
def test_an_id_of_a_run_that_is_not_queued_has_nothing_to_do(state: str):
    """A run that is under way or over is left alone, whoever asks for it, and however often."""
    with withheld(lambda run: None):
        run = order.delay(order_id=7)
    Run.objects.filter(pk=run.pk).update(state=state, worker="somebody", epoch=3)
    before = Run.objects.filter(pk=run.pk).values().get()
    for _ in range(3):
        task.run(str(run.pk))
    assert Run.objects.filter(pk=run.pk).values().get() == before


@pytest.mark.django_db
def test_a_run_that_is_to_wait_can_be_started_early():
    """When a run is to begin is said to the broker, so whoever can write there can say otherwise. It runs once."""
    with withheld(lambda run: None):
        run = echo.apply_async(args=(1,), countdown=3600)
    task.run(str(run.pk))
    task.run(str(run.pk))
    run.refresh_from_db()
    assert (run.state, run.attempts) == ("succeeded", 1)


@pytest.fixture
def worker(_valkey_server: Any, valkey: Any, broker: Any, _folder: Path, transactional_db: None) -> Iterator[Any]:
    notes.forget()
    with running_worker(_folder, "celery") as process:
        yield process


def send(*args: Any, **kwargs: Any) -> None:
    current_app.send_task(TASK, args=args, kwargs=kwargs, ignore_result=True)


@pytest.mark.worker
def test_a_worker_outlives_forged_messages_and_runs_nothing_twice(worker: Any):
    """Ids that are none, ids of others, too many arguments and too few, other tasks; then an honest run, done once."""
    first = order.delay(order_id=7)
    assert first.wait(PATIENCE) == Ok("charge 7")
    for run_id in NO_IDS:
        send(run_id)
    for run_id in [str(first.pk), first.pk.hex, str(first.pk).upper(), f"urn:uuid:{first.pk}", str(uuid4())]:
        send(run_id)
        send(run_id, run_id)
        send(run_id, worker="mine")
        send(run_id=run_id)
    send()
    current_app.send_task("stepflows.resume_runs", args=["forged"], ignore_result=True)
    current_app.send_task("stepflows.no_such_task", args=[str(first.pk)], ignore_result=True)
    second = order.delay(order_id=8)
    assert second.wait(PATIENCE) == Ok("charge 8")
    _await_empty_queue()
    assert worker.poll() is None
    assert notes.notes() == ["load 7", "charge 7", "load 8", "charge 8"]
    first.refresh_from_db()
    assert (first.state, first.attempts, first.epoch, Run.objects.count()) == ("succeeded", 1, 2, 2)


def _await_empty_queue() -> None:
    deadline = time.monotonic() + PATIENCE
    with Redis.from_url(site.BROKER_URL) as client:
        while client.llen("celery") or client.hlen("unacked"):
            assert time.monotonic() < deadline, "The worker does not work its queue off."
            time.sleep(0.01)
