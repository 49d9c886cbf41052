"""What a run that takes longer says of itself, and hears."""

import threading
import time
from contextlib import ExitStack, nullcontext

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from stepflows import Ok, dumps, heartbeat, runs, workflow
from stepflows.heartbeat import _Heartbeat
from stepflows.models import Run
from stepflows.registry import registry
from stepflows.runs import perform

pytestmark = pytest.mark.django_db(transaction=True)

NAME = "heartbeat.checkout"
PATIENCE = 30


@pytest.fixture
def define():
    """Register a body for the time of the test."""

    def register(body, **options):
        return workflow(NAME, **{"cache": {}, **options})(body)

    yield register
    registry.remove(NAME)


@pytest.fixture(autouse=True)
def quickly(monkeypatch, settings):
    """All that takes seconds takes hundredths of one; and the heart is one of the test's own."""
    settings.STEPFLOWS = {"HEARTBEAT": 0.05}
    monkeypatch.setattr(heartbeat, "_TICK", 0.01)
    monkeypatch.setattr(runs, "_NOTES", 0.01)
    monkeypatch.setattr(runs, "heartbeat", _Heartbeat())


def a_run():
    return Run.objects.create(workflow=NAME, arguments=dumps(Ok(((), {}))))


def until(happened):
    """Ask again and again until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "It did not happen."
        time.sleep(0.005)


def row(**conditions):
    return Run.objects.filter(**conditions).exists


def test_a_run_says_that_it_goes_on(define):
    """The time at which it is due moves on while a step takes its time."""

    def slow():
        first = Run.objects.get().due_at
        until(row(due_at__gt=first))
        second = Run.objects.get().due_at
        until(row(due_at__gt=second))

    define(lambda step, deps: step("slow", slow))

    perform(a_run().pk)

    run = Run.objects.get()
    assert (run.state, run.result) == ("succeeded", Ok(None))
    assert run.due_at is None


def test_steps_can_be_seen_while_the_run_goes_on(define):
    """What has ended, and what is under way, with the counts."""
    seen = []

    def look():
        until(row(steps__1__outcome="running"))
        seen.append(Run.objects.get())

    define(lambda step, deps: [step("load", lambda: 1, key="load"), step("look", look, key="look")])

    perform(a_run().pk)

    [run] = seen
    assert [(step["label"], step["outcome"]) for step in run.steps] == [("load", "executed"), ("look", "running")]
    assert (run.executed, run.cached) == (1, 0)
    run = Run.objects.get()
    assert [step["outcome"] for step in run.steps] == ["executed", "executed"]
    assert run.executed == 2


def test_a_run_that_was_taken_over_ends_before_its_next_step(define, caplog):
    """Somebody thought that its worker was gone: what it would write counts no more, and it hears of that."""
    after = []

    def lose():
        Run.objects.update(epoch=99, worker="other", state="running", steps=[])
        until(lambda: "was called off or taken over" in caplog.text)

    define(lambda step, deps: [step("lose", lose), step("next", lambda: after.append(1))])

    assert perform(a_run().pk, "this")

    run = Run.objects.get()
    assert (run.state, run.worker, run.result, run.steps) == ("running", "other", None, [])
    assert after == []


def test_a_database_that_is_away_costs_no_run(define, monkeypatch, caplog):
    """It is told as soon as it is back; the log says so once."""
    renew, calls = Run.renew, []

    def away(run, **fields):
        calls.append(1)
        if len(calls) < 4:
            raise OperationalError("the database is away")
        return renew(run, **fields)

    monkeypatch.setattr(Run, "renew", away)
    define(lambda step, deps: step("slow", lambda: until(lambda: len(calls) > 4)))

    perform(a_run().pk)

    assert Run.objects.get().state == "succeeded"
    assert caplog.text.count("cannot be told that it goes on: the database is away") == 1


def test_a_result_waits_for_the_database(define, monkeypatch, caplog):
    """What a run came to is written down when the database is back."""
    hand_over, calls = Run.hand_over, []

    def away(run, **fields):
        if fields["state"] == "succeeded":
            calls.append(1)
            if len(calls) < 3:
                raise OperationalError("the database is away")
        return hand_over(run, **fields)

    monkeypatch.setattr(Run, "hand_over", away)
    define(lambda step, deps: "done")

    perform(a_run().pk)

    assert Run.objects.get().result == Ok("done")
    assert caplog.text.count("cannot be finished while the database is away: the database is away") == 1


def test_a_result_waits_for_the_database_no_longer_than_a_minute(define, monkeypatch):
    """Then the process is free again, and the run is brought back by whoever looks for lost ones."""
    monkeypatch.setattr(runs, "_PATIENCE", 0.1)
    hand_over = Run.hand_over

    def away(run, **fields):
        if fields["state"] == "succeeded":
            raise OperationalError("the database is away")
        return hand_over(run, **fields)

    monkeypatch.setattr(Run, "hand_over", away)
    define(lambda step, deps: "done")

    with pytest.raises(OperationalError):
        perform(a_run().pk)

    until(Run.objects.due().exists)


def test_a_short_run_is_not_written_twice(define, django_assert_num_queries):
    """Whatever is over before the first beat costs a look, a claim and a result."""
    define(lambda step, deps: step("load", lambda: 1, key="load"))
    run = a_run()

    with django_assert_num_queries(3):
        perform(run.pk)


class Beats:
    """Counts its beats."""

    def __init__(self, fails=False):
        self.happened = threading.Semaphore(0)
        self.fails = fails

    def beat(self):
        self.happened.release()
        if self.fails:
            raise RuntimeError("no")

    def wait(self):
        assert self.happened.acquire(timeout=PATIENCE)


def test_one_thread_serves_all_runs_of_a_process():
    """Those that run at the same time, and those that come later."""
    heart, first, second = _Heartbeat(), Beats(), Beats()

    for _ in range(2):
        with heart.of(first), heart.of(second):
            first.wait()
            second.wait()

    threads = [each for each in threading.enumerate() if each is heart._thread]
    assert len(threads) == 1


def test_a_heart_that_fails_stops_no_other(caplog):
    """It is in the log, and the others go on beating."""
    heart, bad, good = _Heartbeat(), Beats(fails=True), Beats()

    with ExitStack() as stack:
        stack.enter_context(heart.of(bad))
        stack.enter_context(heart.of(good))
        for _ in range(3):
            bad.wait()
            good.wait()

    assert "The heartbeat of" in caplog.text


def test_a_heart_stops_with_its_run():
    """After the block it beats no more."""
    heart, first, second = _Heartbeat(), Beats(), Beats()
    with heart.of(first):
        first.wait()

    with heart.of(second):
        # A round may have been under way.
        second.wait()
        second.wait()
        while first.happened.acquire(blocking=False):
            pass
        second.wait()
        second.wait()

    assert not first.happened.acquire(blocking=False)


def test_a_run_inside_a_transaction_has_no_heartbeat(define, monkeypatch):
    """It is a test's own, which another connection would have to wait for."""
    monkeypatch.setattr(runs, "heartbeat", None)
    define(lambda step, deps: connection.in_atomic_block)
    run = a_run()

    with transaction.atomic():
        perform(run.pk)

    assert Run.objects.get().result == Ok(True)


def test_a_heart_that_is_struck_at_its_beginning_does_not_beat(monkeypatch):
    """By a time limit, for example: nobody works on that run, so it has to be found like any that was lost."""
    heart, struck = _Heartbeat(), Beats()

    def strike():
        raise SystemExit

    monkeypatch.setattr(heart._changed, "notify", strike)
    with pytest.raises(SystemExit), heart.of(struck):
        pytest.fail("It has not begun.")

    assert struck not in heart._alive


def test_a_heart_that_had_no_thread_has_one_for_the_next_run(monkeypatch):
    """A system that has none to give for a moment costs one attempt, and not every heartbeat of the process."""
    heart, beats = _Heartbeat(), Beats()

    def none_left(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        with pytest.raises(RuntimeError, match="new thread"), heart.of(beats):
            pytest.fail("It has not begun.")

    with heart.of(beats):
        beats.wait()


def test_an_attempt_that_is_over_has_no_heartbeat(define, monkeypatch):
    """Even if its end was struck, so that nobody has taken it from the others."""
    attempts = []

    def of(attempt):
        attempts.append(attempt)
        return nullcontext()

    monkeypatch.setattr(runs.heartbeat, "of", of)
    define(lambda step, deps: "done")
    perform(a_run().pk)
    [attempt] = attempts
    attempt._first = 0

    with CaptureQueriesContext(connection) as queries:
        attempt.beat()

    assert not queries.captured_queries
