"""Bringing runs back to work: what it costs, and who does it where no worker looks by itself."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from functools import partial

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from stepflows import Err, Ok, dumps
from stepflows.messages import withheld
from stepflows.models import Run
from stepflows.runs import perform
from stepflows.tasks import resume_runs
from tests.celery.crews import PATIENCE, heart, running
from tests.flows.gated import gated, long, noted, open_gate
from tests.workers import ROOT, Worker

pytestmark = [pytest.mark.worker, pytest.mark.django_db(transaction=True)]

ITEMS = 1000


def lost(name):
    """A run whose worker is gone."""
    open_gate(name)
    past = timezone.now() - timedelta(minutes=1)
    fields = {"state": "running", "attempts": 1, "worker": "gone@here", "started_at": past, "due_at": past}
    return Run.objects.create(workflow=gated.name, arguments=dumps(Ok(((name,), {}))), queue="resuming", **fields)


@pytest.fixture(scope="module")
def worker(_valkey_server, django_db_setup, django_db_blocker, _folder):
    """It looks when it is started, which is over, and does not look again while the tests last."""
    with django_db_blocker.unblock():
        found = lost("the worker's own")
    with running(Worker(_folder, "resuming", environment=heart(1000))):
        with django_db_blocker.unblock():
            found.wait(PATIENCE)
            found.delete()
        yield


@pytest.fixture
def command():
    """Starts ``manage.py resume_runs`` in a process of its own."""
    begun = []

    def start(*arguments, **environment):
        begun.append(
            subprocess.Popen(
                [sys.executable, "-m", "django", "resume_runs", *arguments],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                text=True,
                # Processes in the background of a shell are told to ignore it, and hand that on.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )
        )
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def test_a_run_of_a_thousand_steps_is_resumed_with_two_questions(worker, name, commandstats):
    """The keys that the earlier attempt completed are fetched 500 at a time, and none by itself."""
    run = long.apply_async((name, ITEMS), queue="resuming")
    assert run.wait(PATIENCE) == Err("CLOSED")
    open_gate(name)

    with commandstats() as stats:
        assert run.resume()
        assert run.wait(PATIENCE) == Ok(ITEMS)

    assert (stats["mget"], stats["get"]) == (2, 0)
    assert (run.executed, run.cached) == (0, ITEMS)


def test_resuming_a_run_of_a_thousand_steps_costs_a_handful_of_statements(name):
    """The steps of the earlier attempt come with the row, and those of this one are written with the result."""
    with withheld([].append):
        run = long.apply_async((name, ITEMS))
        assert perform(run.pk)
        open_gate(name)
        assert run.resume()

    with CaptureQueriesContext(connection) as queries:
        assert perform(run.pk)

    assert len(queries) <= 4
    run.refresh_from_db()
    assert (run.result, run.cached) == (Ok(ITEMS), ITEMS)


def test_the_command_brings_lost_runs_back(worker, name, command):
    """It looks once and says what it has done; a worker does the rest."""
    run = lost(name)

    output, _ = command().communicate(timeout=PATIENCE)

    assert "1 resumed" in output
    assert run.wait(PATIENCE) == Ok(f"after {name}")
    assert run.attempts == 2


def test_the_command_goes_on_looking(worker, name, command):
    """With --loop it finds what is lost later, until it is interrupted."""
    looking = command("--loop", **heart(0.2))
    assert looking.stdout.readline().startswith("0 resumed")

    run = lost(name)
    assert run.wait(PATIENCE) == Ok(f"after {name}")

    looking.send_signal(signal.SIGINT)
    output, _ = looking.communicate(timeout=PATIENCE)
    assert "1 resumed" in output
    assert output.endswith("Stopped.\n")
    assert looking.returncode == 0


def test_the_task_brings_lost_runs_back(worker, name):
    """Those who have beat may let it send the task."""
    run = lost(name)

    resume_runs.apply_async(queue="resuming")

    assert run.wait(PATIENCE) == Ok(f"after {name}")
    assert noted(name) == ["before", "gate", "after"]
    assert "not heard of" in run.history[0]["reason"]
