"""Runs that nobody looks after any more are found and brought back to work."""

import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from threading import Barrier
from types import SimpleNamespace

import pytest
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections
from django.db.models.functions import Now
from django.utils import timezone

from stepflows import Err, Ok, RunLost, dumps, recovery
from stepflows.models import Run
from stepflows.recovery import Recovered, Watch, resume_runs
from stepflows.runs import perform
from stepflows.tasks import resume_runs as task
from tests.flows.workflows import order
from tests.plans import plan

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE = 30


def a_run(**fields):
    """The row of a run that should have been heard of a second ago."""
    given = {"workflow": "flows.order", "arguments": dumps(Ok(((7,), {}))), "due_at": Now() - timedelta(seconds=1)}
    return Run.objects.get(pk=Run.objects.create(**given | fields).pk)


def a_lost_run(**fields):
    """One whose worker has not been heard of."""
    given = {"state": "running", "attempts": 1, "epoch": 3, "worker": "gone", "started_at": timezone.now()}
    return a_run(**given | fields)


def seconds_until_due(run):
    """By the clock of the database."""
    [left] = Run.objects.filter(pk=run.pk).values_list(Now(), "due_at")
    return (left[1] - left[0]).total_seconds()


def step(key, outcome="executed"):
    return {"label": "load", "key": key, "outcome": outcome, "offset": 0.0, "duration": 0.1, "attempt": 1}


def test_a_run_that_was_lost_with_its_worker_is_queued_again(broker):
    """It is sent, its next attempt knows what the last one has done, and the log says what happened."""
    run = a_lost_run(steps=[step("a"), step("b", "running")], executed=1)

    assert resume_runs() == Recovered(resumed=1)

    assert broker.ids() == [[str(run.pk)]]
    run.refresh_from_db()
    assert (run.state, run.epoch, run.attempts, run.worker, run.started_at) == ("queued", 4, 1, "", None)
    assert (run.steps, run.executed, run.known_keys) == ([], 0, ["a", "b"])
    [attempt] = run.history
    assert [each["outcome"] for each in attempt["steps"]] == ["executed", "interrupted"]
    assert (attempt["worker"], attempt["reason"]) == ("gone", "not heard of for 25 s")


def test_what_an_earlier_attempt_had_is_kept_once(broker):
    """However often a run is lost, its history grows by what was new."""
    run = a_lost_run(steps=[step("a")])
    for _ in range(3):
        steps = [step("a", "cached"), step("b")]
        again = {"state": "running", "started_at": timezone.now(), "due_at": Now() - timedelta(seconds=1)}
        Run.objects.filter(pk=run.pk).update(**again, steps=steps)
        resume_runs()

    run.refresh_from_db()
    assert [[each["key"] for each in attempt["steps"]] for attempt in run.history] == [["a", "b"], ["b"], ["b"]]


def test_a_run_that_is_heard_of_is_left_alone(broker):
    """Nor is one that is finished, or queued for a while."""
    soon = Now() + timedelta(seconds=30)
    for fields in ({"state": "running", "due_at": soon}, {"due_at": soon}, {"state": "failed", "due_at": None}):
        a_run(**fields)

    assert resume_runs() == Recovered()
    assert broker.messages() == []


def test_a_run_that_nobody_has_taken_is_sent_again(broker):
    """To the queue and with the priority that it was given; and once more after the same time."""
    run = a_run(queue="slow", priority=3)

    assert resume_runs() == Recovered(sent=1)
    assert resume_runs() == Recovered()

    [message] = broker.messages("slow")
    assert message.properties["priority"] == 3
    run.refresh_from_db()
    assert run.state == "queued"
    assert 25 < seconds_until_due(run) <= 30


def test_while_many_wait_each_is_sent_again_more_seldom(broker, monkeypatch):
    """Most of them wait because the workers are busy, who would be busier with messages that are sent in vain."""
    monkeypatch.setattr(recovery, "_RATE", 0.05)
    runs = [a_run() for _ in range(4)]

    assert resume_runs() == Recovered(sent=4)

    assert all(75 < seconds_until_due(run) <= 80 for run in runs)


def test_while_the_broker_is_away_nobody_is_tried_in_vain(no_broker, caplog):
    """The look ends at the first that cannot be sent; the next look begins with the others."""
    first, second = a_run(), a_run()

    assert resume_runs() == Recovered()

    assert len(caplog.records) == 1
    assert sorted(seconds_until_due(run) > 0 for run in (first, second)) == [False, True]


def test_a_run_that_is_lost_every_time_is_given_up(broker, settings):
    """After MAX_ATTEMPTS it has failed, and its result says why."""
    settings.STEPFLOWS = {"MAX_ATTEMPTS": 3}
    run = a_lost_run(attempts=3, steps=[step("a")])

    assert resume_runs() == Recovered(given_up=1)

    run.refresh_from_db()
    assert (run.state, run.due_at, run.steps) == ("failed", None, [step("a")])
    assert isinstance(run.result, Err)
    assert isinstance(run.result.error, RunLost)
    assert "lost with its worker in each of 3 attempts" in str(run.result.error)
    assert broker.messages() == []


def test_each_run_is_brought_back_by_one_of_many(broker):
    """Workers that look at the same moment do not send it twice."""
    runs = [a_lost_run() for _ in range(5)]
    barrier = Barrier(4)

    def look(_):
        try:
            barrier.wait()
            return resume_runs()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(look, range(4)))

    assert sum(each.resumed for each in found) == 5
    assert sorted(broker.ids()) == sorted([[str(run.pk)] for run in runs])


def test_more_than_one_batch_is_brought_back(broker, monkeypatch):
    """A whole site that went down is back after one look."""
    monkeypatch.setattr(recovery, "_BATCH", 2)
    for _ in range(5):
        a_lost_run()

    assert resume_runs() == Recovered(resumed=5)


def test_what_is_due_is_read_from_an_index():
    """However many runs are finished."""
    assert "stepflows_run_due" in plan(Run.objects.due()[:500])


@pytest.mark.parametrize("retention", [timedelta(days=2), 2 * 86400])
def test_old_runs_are_removed(settings, retention):
    """Those that have been finished for longer than RUN_RETENTION; one that is still at it stays."""
    settings.STEPFLOWS = {"RUN_RETENTION": retention}
    now = timezone.now()
    old = {"created_at": now - timedelta(days=5), "due_at": None}
    a_run(**old, state="succeeded", finished_at=now - timedelta(days=3))
    kept = [
        a_run(**old, state="succeeded", finished_at=now - timedelta(days=1)),
        a_run(**old, state="running"),
    ]

    assert resume_runs() == Recovered(removed=1)
    assert set(Run.objects.all()) == set(kept)


def test_runs_are_kept_for_ever_where_nothing_else_is_wanted(settings):
    """RUN_RETENTION None removes nothing."""
    settings.STEPFLOWS = {"RUN_RETENTION": None}
    long_ago = timezone.now() - timedelta(days=5000)
    a_run(created_at=long_ago, finished_at=long_ago, state="succeeded", due_at=None)

    assert resume_runs() == Recovered()


def test_old_runs_are_removed_in_batches(settings, monkeypatch):
    """No statement holds the table for long."""
    monkeypatch.setattr(recovery, "_BATCH", 2)
    long_ago = timezone.now() - timedelta(days=5000)
    for _ in range(5):
        a_run(created_at=long_ago, finished_at=long_ago, state="succeeded", due_at=None)

    assert resume_runs() == Recovered(removed=5)


# The thread of a worker, the command and the task.


class Looks:
    """Counts the looks of a watch, and lets a test wait for them."""

    def __init__(self, monkeypatch):
        self.happened = threading.Semaphore(0)
        self.error = ""
        self.turns = []
        monkeypatch.setattr(recovery, "resume_runs", self)

    def __call__(self):
        self.turns.append(caches["default"].get("stepflows:resume_runs"))
        self.happened.release()
        if self.error:
            raise OperationalError(self.error)
        return Recovered()

    def wait(self):
        assert self.happened.acquire(timeout=PATIENCE)


@pytest.fixture
def looks(monkeypatch, settings):
    settings.STEPFLOWS = {"HEARTBEAT": 0.01}
    return Looks(monkeypatch)


@pytest.fixture
def watch():
    watch = Watch()
    yield watch
    watch.stop()


def test_a_watch_looks_at_once_and_again_and_again(looks, watch):
    """And it is this worker's turn while it does."""
    watch.start()
    watch.start()

    for _ in range(3):
        looks.wait()
    assert set(looks.turns) == {1}


def test_a_watch_goes_on_after_a_failure(looks, watch, caplog):
    """A database that is away for a while ends no watch."""
    looks.error = "the database is away"

    watch.start()

    looks.wait()
    looks.wait()
    assert "Lost runs could not be looked for: OperationalError('the database is away')" in caplog.text


def test_after_an_outage_whoever_is_alive_comes_first(looks, watch, settings, monkeypatch):
    """No run could say that it goes on, so none counts as lost until each has had the time to say so."""
    settings.STEPFLOWS = {"HEARTBEAT": 0.5}
    looks.error = "the database is away"
    back = []

    def exists():
        looks.error = ""
        back.append(time.monotonic())

    monkeypatch.setattr(recovery, "_runs", lambda: SimpleNamespace(exists=exists))

    watch.start()
    for _ in range(2):
        looks.wait()

    assert time.monotonic() - back[0] >= 0.5


def test_a_watch_without_tables_says_to_run_migrate(looks, watch, caplog):
    """The log of a worker tells it at its start."""
    looks.error = "no such table: stepflows_run"

    watch.start()

    looks.wait()
    looks.wait()
    assert "OperationalError('no such table: stepflows_run'). Run manage.py migrate if the table" in caplog.text


def test_a_watch_that_is_stopped_looks_no_more(looks, watch):
    """And its thread ends."""
    watch.start()
    looks.wait()
    [thread] = [each for each in threading.enumerate() if each.name == "stepflows-watch"]

    watch.stop()

    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_process_that_a_worker_forks_has_database_pools_of_its_own(looks, watch, monkeypatch):
    """What is in those of the watch are connections that its own process goes on with."""
    pools = {"default": "connections"}
    monkeypatch.setattr(type(connections["default"]), "_connection_pools", pools, raising=False)
    watch.start()

    with warnings.catch_warnings():
        # Python's, from 3.12 on: Celery's workers fork with threads too.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os._exit(len(pools))

    assert os.waitpid(child, 0) == (child, 0)
    assert len(pools) == 1


def test_one_watch_looks_at_a_time(looks, watch):
    """While somebody has the turn, nobody else looks; when it is over, the next one does."""
    caches["default"].add("stepflows:resume_runs", 1, 60)
    watch.start()
    assert not looks.happened.acquire(timeout=0.2)

    caches["default"].delete("stepflows:resume_runs")

    looks.wait()


def test_a_watch_looks_although_the_cache_is_down(looks, watch, monkeypatch):
    """Turns are a courtesy: rows are brought back once, whoever looks."""

    def down(*args):
        raise OSError("the cache is down")

    monkeypatch.setattr(recovery, "caches", {"default": SimpleNamespace(add=down, close=lambda: None)})
    watch.start()

    looks.wait()


def test_the_command_says_what_it_did(broker):
    """One line of numbers."""
    a_lost_run()
    output = StringIO()

    call_command("resume_runs", stdout=output)

    assert output.getvalue() == "1 resumed, 0 sent again, 0 given up, 0 old removed.\n"


def test_the_command_goes_on_in_a_loop(broker, settings, monkeypatch):
    """With --loop it looks again and again, until Ctrl-C."""
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    output = StringIO()

    call_command("resume_runs", "--loop", stdout=output)

    assert output.getvalue().splitlines() == ["0 resumed, 0 sent again, 0 given up, 0 old removed."] * 3 + ["Stopped."]
    assert pauses == [30.0] * 3


def test_the_command_says_that_the_database_is_away(monkeypatch):
    """A plain message, and exit code 1."""

    def away():
        raise OperationalError("no such host")

    monkeypatch.setattr("stepflows.management.commands.resume_runs.resume_runs", away)

    with pytest.raises(CommandError, match="The runs cannot be looked at: no such host") as caught:
        call_command("resume_runs")
    assert caught.value.returncode == 1


def test_the_command_says_that_the_tables_are_missing(no_table):
    """And what makes them."""
    with pytest.raises(CommandError, match=r"looked at: .*stepflows_run.*\. Run manage\.py migrate if the table"):
        call_command("resume_runs")


def test_the_task_does_the_same(broker):
    """For whoever has beat say when."""
    run = a_lost_run()

    task()

    assert broker.ids() == [[str(run.pk)]]


def test_a_run_that_is_resumed_asks_its_steps_together(broker, valkey, commandstats):
    """The keys of the attempt that was lost are read ahead, all at once."""
    order.run(order_id=7)
    run = a_lost_run(steps=[step("order:7:basket"), step("order:7:charge")])
    resume_runs()

    with commandstats() as stats:
        assert perform(run.pk)

    run.refresh_from_db()
    assert run.state == "succeeded"
    assert (stats["mget"], stats["get"]) == (1, 0)
