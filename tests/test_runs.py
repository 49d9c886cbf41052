"""Performing runs: claimed once, executed, and finished in the row, whatever happens."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import OperationalError, connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from stepflows import (
    DamagedEntry,
    Err,
    FailedStep,
    InvalidStepKey,
    InvalidUse,
    NotCacheable,
    Ok,
    Retry,
    RunLost,
    StepKeyConflict,
    UnknownWorkflow,
    dumps,
    runs,
    workflow,
)
from stepflows.models import Run
from stepflows.registry import registry
from stepflows.runs import perform

pytestmark = pytest.mark.django_db(transaction=True)

NAME = "runs.checkout"


@pytest.fixture
def define():
    """Register a body for the time of the test."""

    def register(body, **options):
        return workflow(NAME, **{"cache": {}, **options})(body)

    yield register
    registry.remove(NAME)


def a_run(*args, **kwargs):
    """The row of a run, as ``delay`` writes it; no message is sent."""
    return Run.objects.create(workflow=NAME, arguments=dumps(Ok((args, kwargs))))


def performed(run, worker="worker@here"):
    assert perform(str(run.pk), worker)
    run.refresh_from_db()
    return run


def outcomes(run):
    return [(step["label"], step["key"], step["outcome"]) for step in run.steps]


def test_a_run_is_executed_and_its_row_is_finished(define):
    """The row says state, result, worker, attempts and times."""
    define(lambda step, deps, order_id: step("charge", lambda: {"order": order_id}, key="order:7"))
    before = timezone.now()

    run = performed(a_run(order_id=7))

    assert (run.state, run.result, run.worker, run.attempts) == ("succeeded", Ok({"order": 7}), "worker@here", 1)
    assert before <= run.started_at <= run.finished_at <= timezone.now()
    assert outcomes(run) == [("charge", "order:7", "executed")]


def test_a_run_knows_where_it_runs_if_nobody_says(define):
    """Without a worker's name the host is noted."""
    define(lambda step, deps: None)

    assert performed(a_run(), worker="").worker


def test_a_long_name_of_a_worker_is_cut(define):
    """No database refuses the row because of it."""
    define(lambda step, deps: None)

    assert performed(a_run(), worker="w" * 300).worker == "w" * 200


def test_an_async_body_is_run_as_well(define):
    """A worker runs both kinds of body."""

    async def body(step, deps, order_id):
        async def charge():
            await asyncio.sleep(0)
            return order_id

        return await step("charge", charge, key="order:7")

    define(body)

    run = performed(a_run(order_id=7))

    assert run.result == Ok(7)
    assert outcomes(run) == [("charge", "order:7", "executed")]


def test_steps_see_the_id_of_the_run(define):
    """Events carry the id of the row, so that a log can be read beside it."""
    ids = []
    define(lambda step, deps: step("charge", lambda: 1), on_event=lambda event: ids.append(event.run_id))

    run = performed(a_run())

    assert set(ids) == {str(run.pk)}


def test_a_run_is_performed_once(define):
    """A message that is delivered again finds the run taken."""
    calls = []
    define(lambda step, deps: calls.append(1))
    run = performed(a_run())

    assert not perform(run.pk)

    assert calls == [1]
    assert Run.objects.get().attempts == 1


def test_only_one_of_many_takes_a_run(define):
    """The same message in many threads at the same moment: one executes it."""
    calls = []
    define(lambda step, deps: calls.append(1))
    run = a_run()
    barrier = Barrier(6)

    def work(_):
        try:
            barrier.wait()
            return perform(run.pk)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(work, range(6)))

    assert sorted(taken) == [False] * 5 + [True]
    assert calls == [1]


def test_a_message_without_a_row_is_nothing_to_do():
    """Who deleted the row has called the run off."""
    assert not perform(uuid4())


def test_an_error_fails_the_run_and_says_where(define):
    """What run would return as Err is the result of the row, with the step that failed."""

    def body(step, deps):
        step("load", lambda: Err("NOT_FOUND", cause={"id": 7}), key="order:7")

    define(body)

    run = performed(a_run())

    assert (run.state, run.result) == ("failed", Err("NOT_FOUND", {"id": 7}))
    assert run.result.step == FailedStep("load", "order:7")
    assert outcomes(run) == [("load", "order:7", "error")]


def test_a_cached_error_fails_the_next_run_without_running(define):
    """A failure under a key is replayed, and the row says so."""
    calls = []

    def charge():
        calls.append(1)
        raise ValueError("declined")

    define(lambda step, deps: step("charge", charge, key="order:7"))

    first, second = performed(a_run()), performed(a_run())

    assert calls == [1]
    assert outcomes(first) == [("charge", "order:7", "error")]
    assert outcomes(second) == [("charge", "order:7", "replayed_error")]
    assert isinstance(second.result.error, ValueError)
    assert second.result.step == FailedStep("charge", "order:7", replayed=True)


def test_a_second_run_takes_everything_from_the_cache(define):
    """Steps that are stored are noted as cached and take no time."""
    define(lambda step, deps: [step("a", lambda: 1, key="a"), step("b", lambda: 2, key="b"), step("c", lambda: 3)])

    performed(a_run())
    run = performed(a_run())

    assert run.result == Ok([1, 2, 3])
    assert outcomes(run) == [("a", "a", "cached"), ("b", "b", "cached"), ("c", None, "executed")]
    assert run.steps[0]["duration"] == 0


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (lambda step, deps: step("", lambda: 1), InvalidStepKey),
        (lambda step, deps: step("a", lambda: 1, key=7), InvalidStepKey),
        (lambda step, deps: [step("a", lambda: 1, key="k"), step("b", lambda: 1, key="k")], StepKeyConflict),
        (lambda step, deps: step("a", lambda: 1, ttl="soon"), InvalidUse),
        (lambda step, deps, missing: None, InvalidUse),
    ],
    ids=["label", "key", "conflict", "option", "arguments"],
)
def test_a_wrong_use_fails_the_run(define, caplog, body, error):
    """What run would raise has nobody to be raised to: it is the result, and the log has the traceback."""
    define(body)

    run = performed(a_run())

    assert run.state == "failed"
    assert isinstance(run.result.error, error)
    assert f"Run {run.pk} of workflow '{NAME}' failed" in caplog.text


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit], ids=lambda error: error.__name__)
def test_a_cancellation_fails_the_run_and_spares_the_process(define, error):
    """A body that is cancelled ends its run, and not the worker."""

    def body(step, deps):
        raise error

    define(body)

    run = performed(a_run())

    assert run.state == "failed"
    assert not run.result.ok


def test_a_workflow_that_is_not_known_is_left_to_another_worker(broker, caplog):
    """During a deployment there is one: the run is not sent at once, which would come back to this one, but later."""
    run = performed(Run.objects.create(workflow="flows.ordr", arguments=dumps(Ok(((), {})))))

    assert (run.state, run.attempts, run.outcome) == ("queued", 1, None)
    assert broker.messages() == []
    assert timedelta(seconds=25) < run.due_at - timezone.now() <= timedelta(seconds=30)
    [attempt] = run.history
    assert attempt["worker"] == "worker@here"
    assert attempt["reason"].startswith("UnknownWorkflow(")
    assert f"Run {run.pk} is put off, for a worker that knows its workflow: No workflow is named" in caplog.text


def test_a_workflow_that_no_worker_knows_fails_the_run(settings):
    """After the last attempt the error names the workflow, and says where workflows come from."""
    settings.STEPFLOWS = {"MAX_ATTEMPTS": 3}
    run = Run.objects.create(workflow="flows.ordr", arguments=dumps(Ok(((), {}))))

    states = [performed(run).state for _ in range(3)]

    assert states == ["queued", "queued", "failed"]
    assert isinstance(run.result.error, UnknownWorkflow)
    assert "No workflow is named 'flows.ordr'. Did you mean 'flows.order'?" in str(run.result.error)
    assert run.worker == "worker@here"


def test_a_run_that_was_called_off_is_not_put_off(monkeypatch):
    """It was cancelled between being taken and being looked at."""
    run = Run.objects.create(workflow="flows.ordr", arguments=dumps(Ok(((), {}))))
    claim = runs._claim

    def claimed(*given):
        found = claim(*given)
        Run.objects.get(pk=run.pk).cancel()
        return found

    monkeypatch.setattr(runs, "_claim", claimed)

    assert performed(run).state == "cancelled"


def test_arguments_that_cannot_be_read_fail_the_run(define):
    """The body is not called with something else, and the error names run and workflow."""
    calls = []
    define(lambda step, deps, *args: calls.append(args))

    run = performed(Run.objects.create(workflow=NAME, arguments=b"damaged"))

    assert run.state == "failed"
    assert isinstance(run.result.error, DamagedEntry)
    assert f"run {run.pk} of workflow '{NAME}'" in str(run.result.error)
    assert calls == []


def test_a_result_that_cannot_be_kept_fails_the_run(define, caplog):
    """The steps are done and stay done; the error says what to return instead."""
    define(lambda step, deps: step("load", lambda: Run(workflow="x")))

    run = performed(a_run())

    assert run.state == "failed"
    assert isinstance(run.result.error, NotCacheable)
    assert f"workflow '{NAME}' returned a value that cannot be cached: a model instance" in str(run.result.error)
    assert outcomes(run) == [("load", None, "executed")]
    assert f"Run {run.pk}: its result could not be kept" in caplog.text


def test_an_error_that_cannot_be_kept_is_the_cause(define):
    """What went wrong at first is not lost behind what could not be written down."""
    define(lambda step, deps: Err(["no", Run(workflow="x")]))

    run = performed(a_run())

    assert isinstance(run.result.error, NotCacheable)
    assert "no" in str(run.result.cause)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt], ids=lambda error: error.__name__)
def test_a_worker_that_is_shut_down_puts_the_run_back(define, error):
    """The exit goes on, the row is queued again, and the next attempt skips what is done."""
    charges = []
    ends = [error]

    def body(step, deps):
        step("charge", lambda: charges.append(1), key="order:7")
        if ends:
            raise ends.pop()
        return "done"

    define(body)
    run = a_run()

    with pytest.raises(error):
        perform(run.pk)
    run.refresh_from_db()
    assert (run.state, run.attempts, run.worker, run.started_at, run.result) == ("queued", 1, "", None, None)

    performed(run)
    assert (run.state, run.attempts, run.result) == ("succeeded", 2, Ok("done"))
    assert outcomes(run) == [("charge", "order:7", "cached")]
    assert charges == [1]


def test_a_run_that_always_ends_its_process_is_failed(define, settings):
    """After MAX_ATTEMPTS it is not tried again, and the error says so."""
    settings.STEPFLOWS = {"MAX_ATTEMPTS": 2}

    def body(step, deps):
        raise SystemExit(3)

    define(body)
    run = a_run()

    for _ in range(2):
        with pytest.raises(SystemExit):
            perform(run.pk)

    run.refresh_from_db()
    assert (run.state, run.attempts) == ("failed", 2)
    assert isinstance(run.result.error, RunLost)
    assert "ended its process or its task in each of 2 attempts" in str(run.result.error)
    assert not perform(run.pk)


def test_an_exit_is_not_hidden_by_a_database_that_is_gone(define, monkeypatch, caplog):
    """A process that has to go goes, even if the row cannot be written."""

    def body(step, deps):
        raise SystemExit(3)

    def gone(*args, **fields):
        raise OSError("the database is gone")

    define(body)
    monkeypatch.setattr(Run, "requeue", gone)

    with pytest.raises(SystemExit):
        perform(a_run().pk)

    assert "could not be given back" in caplog.text
    assert Run.objects.get().state == "running"


def test_a_run_that_was_taken_over_is_not_overwritten(define, caplog):
    """An attempt that finishes late leaves the row to the one that has it now."""
    run = a_run()
    define(lambda step, deps: Run.objects.filter(pk=run.pk).update(epoch=9, worker="other"))

    performed(run)

    assert (run.state, run.worker, run.result) == ("running", "other", None)
    assert "was called off, taken over or deleted" in caplog.text


def test_a_run_of_a_thousand_hits_costs_a_handful_of_statements(define):
    """Steps are written down together, with the result."""
    cache: dict[str, Any] = {}
    define(lambda step, deps: [step("load", lambda i=i: i, key=f"item:{i}") for i in range(1000)], cache=cache)
    performed(a_run())
    run = a_run()

    with CaptureQueriesContext(
        connection,
    ) as queries:
        perform(run.pk)

    assert len(queries) <= 4
    run.refresh_from_db()
    assert {step["outcome"] for step in run.steps} == {"cached"}
    assert len(run.steps) == 1000


def test_steps_in_threads_are_all_noted(define):
    """step.map runs its items at the same time; none of them is lost."""
    define(lambda step, deps: step.map("load", list(range(200)), lambda i: i, key=lambda i: f"item:{i}"))

    run = performed(a_run())

    assert run.result == Ok(list(range(200)))
    assert {key for _, key, _ in outcomes(run)} == {f"item:{i}" for i in range(200)}
    assert len(run.steps) == 200


def test_a_step_that_was_tried_again_says_how_often(define):
    """The number of the last attempt is noted, and the step only once."""
    errors = [ValueError(), ValueError()]

    def charge():
        if errors:
            raise errors.pop()

    define(lambda step, deps: step("charge", charge, key="k", retry=Retry(attempts=3, wait=0)))

    run = performed(a_run())

    assert [(step["outcome"], step["attempt"]) for step in run.steps] == [("executed", 3)]


def test_runs_work_where_the_site_has_no_time_zones(define, settings):
    """With USE_TZ = False the times of a row are naive, like all others of the site."""
    settings.USE_TZ = False
    define(lambda step, deps: step("charge", lambda: 1, key="k"))

    run = performed(a_run())

    assert run.state == "succeeded"
    assert timezone.is_naive(run.started_at)
    assert run.duration >= 0


def test_failures_of_the_run_are_logged_once(define, caplog):
    """An ordinary failure is data: it is in the row, and no error in the log."""
    define(lambda step, deps: Err("NOT_FOUND"))

    with caplog.at_level(logging.WARNING, "stepflows"):
        performed(a_run())

    assert caplog.records == []


def test_a_run_that_is_struck_when_it_has_just_finished_stays_finished(define, monkeypatch):
    """A time limit that comes a moment too late does not send it once more."""
    hand_over = Run.hand_over

    def struck(run, **fields):
        assert hand_over(run, **fields)
        if fields["state"] == "succeeded":
            raise SoftTimeLimitExceeded
        return True

    define(lambda step, deps: "done")
    run = a_run()
    monkeypatch.setattr(Run, "hand_over", struck)

    with pytest.raises(SoftTimeLimitExceeded):
        perform(run.pk)

    run.refresh_from_db()
    assert (run.state, run.result) == ("succeeded", Ok("done"))


def state_after_strike(define, spoil):
    """What becomes of a run when a time limit strikes its step, and this has been done to its connection."""

    def struck():
        spoil()
        raise SoftTimeLimitExceeded

    define(lambda step, deps: step("query", struck))
    run = a_run()
    with pytest.raises(SoftTimeLimitExceeded):
        perform(run.pk)
    return Run.objects.get(pk=run.pk).state


def test_a_run_that_is_struck_in_the_middle_of_a_statement_is_put_back(define):
    """Its connection is of no use any more, and another one is made."""
    assert state_after_strike(define, lambda: connection.connection.close()) == "queued"


def test_a_connection_that_cannot_even_be_closed_keeps_no_run(define, monkeypatch):
    """MySQL's client says so of one that is gone."""

    def close():
        monkeypatch.undo()
        connection.connection.close()
        raise OperationalError(2006, "gone")

    assert state_after_strike(define, lambda: monkeypatch.setattr(connection, "_close", close)) == "queued"


def deep():
    """Lists in lists, deeper than Python calls."""
    value = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize("make", [deep, lambda: "x" * 100_000, lambda: b"x" * 100_000], ids=["deep", "str", "bytes"])
def test_a_result_that_is_too_large_fails_the_run_and_not_the_log(define, make, settings, caplog):
    """The log says how it begins, and the row why it is not there."""
    settings.STEPFLOWS = {"MAX_VALUE_BYTES": 10_000}
    define(lambda step, deps: make())

    run = performed(a_run())

    assert isinstance(run.result.error, NotCacheable)
    assert f"Run {run.pk}: its result could not be kept" in caplog.text
    assert len(caplog.text) < 5_000
