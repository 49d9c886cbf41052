"""What people do with runs: cancel, resume, retry."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections, transaction

from stepflows import Err, Ok, Retry, UnknownWorkflow, dumps, workflow
from stepflows.engine.cancellation import Cancellation
from stepflows.models import Run
from stepflows.registry import registry
from stepflows.runs import perform

pytestmark = pytest.mark.django_db(transaction=True)

NAME = "actions.checkout"
PATIENCE = 30


@pytest.fixture
def define():
    """Register a body for the time of the test."""

    def register(body, **options):
        return workflow(NAME, **{"cache": {}, **options})(body)

    yield register
    registry.remove(NAME)


def a_run(**fields):
    return Run.objects.create(**{"workflow": NAME, "arguments": dumps(Ok(((), {}))), **fields})


def performed(run):
    assert perform(run.pk)
    run.refresh_from_db()
    return run


def outcomes(run):
    return [(step["label"], step["outcome"]) for step in run.steps]


class Elsewhere:
    """Performs a run in another thread, as a worker does, and is waited for."""

    def __init__(self, run):
        self._pool = ThreadPoolExecutor(1)
        self._done = self._pool.submit(self._work, run.pk)

    @staticmethod
    def _work(run_id):
        try:
            return perform(run_id)
        finally:
            connections.close_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._done.result(PATIENCE)
        self._pool.shutdown()


# Cancel.


def test_a_queued_run_that_is_cancelled_is_never_performed(define):
    """Its message finds nothing to do, and whoever waits for it is told."""
    calls = []
    define(lambda step, deps: calls.append(1))
    run = a_run()

    assert run.cancel()

    assert (run.state, run.result, run.due_at) == ("cancelled", Err("cancelled"), None)
    assert run.finished_at
    assert not perform(run.pk)
    assert calls == []
    assert Run.objects.get().wait(timeout=0) == Err("cancelled")


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_a_finished_run_cannot_be_cancelled(state):
    """Its result stands."""
    run = a_run(state=state, outcome=dumps(Ok(1)), epoch=3)

    assert not run.cancel()

    assert (run.state, run.epoch) == (state, 3)


def test_a_run_is_cancelled_as_it_is_and_not_as_it_was_read(define):
    """An object that was read before the run was finished does not undo that."""
    define(lambda step, deps: "done")
    run = a_run()
    old = Run.objects.get()
    performed(run)

    assert not old.cancel()

    assert (old.state, old.result) == ("succeeded", Ok("done"))


@pytest.fixture
def noticed(monkeypatch):
    """Set when a run has heard that it was called off."""
    noticed = threading.Event()
    request = Cancellation.request

    def requested(cancellation):
        request(cancellation)
        noticed.set()

    monkeypatch.setattr(Cancellation, "request", requested)
    return noticed


def bodies(begun, go, after):
    """A sync and an async body of two steps, of which the first says that it has begun and waits."""

    def first():
        begun.set()
        assert go.wait(PATIENCE)
        return "first"

    def sync_body(step, deps):
        return step("first", first, key="first") + step("second", lambda: after.append(1) or "second", key="second")

    async def async_body(step, deps):
        one = await step("first", lambda: first(), key="first")
        return one + await step("second", lambda: after.append(1) or "second", key="second")

    return {"sync": sync_body, "async": async_body}


@pytest.mark.parametrize("voice", ["sync", "async"])
def test_a_running_run_ends_before_its_next_step(define, broker, noticed, voice):
    """The step under way is finished and stored; the next one does not begin; after resume it goes on from there."""
    begun, go, after, cache = threading.Event(), threading.Event(), [], {}
    define(bodies(begun, go, after)[voice], cache=cache)
    run = a_run()

    with Elsewhere(run):
        assert begun.wait(PATIENCE)
        assert Run.objects.get().cancel()
        assert run.wait(timeout=0) == Err("cancelled")
        assert noticed.wait(PATIENCE)
        go.set()

    run.refresh_from_db()
    assert (run.state, after) == ("cancelled", [])
    assert outcomes(run) == [("first", "executed")]
    assert cache["first"] == Ok("first")

    assert run.resume()
    performed(run)
    assert (run.state, run.result) == ("succeeded", Ok("firstsecond"))
    assert outcomes(run) == [("first", "cached"), ("second", "executed")]


def test_a_run_that_waits_for_anothers_step_can_be_cancelled(define):
    """It does not go on waiting."""
    begun, go, cache = threading.Event(), threading.Event(), {}

    def slow():
        begun.set()
        assert go.wait(PATIENCE)

    body = define(lambda step, deps: step("slow", slow, key="slow"), cache=cache)
    run = a_run()

    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(body.run)
        assert begun.wait(PATIENCE)
        with Elsewhere(run):
            while not Run.objects.filter(state="running", steps__0__outcome="running").exists():
                pass
            assert Run.objects.get().cancel()
        go.set()
        assert holder.result(PATIENCE).ok

    run.refresh_from_db()
    assert (run.state, run.result) == ("cancelled", Err("cancelled"))


def test_a_run_that_pauses_between_two_attempts_can_be_cancelled(define):
    """A pause of an hour does not keep it."""
    tried = threading.Event()

    def fails():
        tried.set()
        raise ValueError

    define(lambda step, deps: step("fails", fails, key="k", retry=Retry(2, wait=timedelta(hours=1))))
    run = a_run()

    with Elsewhere(run):
        assert tried.wait(PATIENCE)
        assert Run.objects.get().cancel()

    run.refresh_from_db()
    assert run.state == "cancelled"


# Resume and retry.


def failing(calls):
    """A body whose second step fails the first time it runs."""

    def charge():
        calls.append("charge")
        if calls.count("charge") == 1:
            raise ValueError("declined")
        return "charged"

    def body(step, deps):
        step("load", lambda: calls.append("load"), key="load")
        return step("charge", charge, key="charge")

    return body


def test_resume_replays_the_error_that_is_cached(define, broker):
    """Results and errors stand: nothing runs, and the run fails in the same way."""
    calls = []
    define(failing(calls))
    run = performed(a_run(attempts=2))
    assert (run.state, run.attempts) == ("failed", 3)

    assert run.resume()

    assert broker.ids() == [[str(run.pk)]]
    assert (run.state, run.attempts, run.result, run.steps, run.finished_at) == ("queued", 0, None, [], None)
    performed(run)
    assert (run.state, run.attempts) == ("failed", 1)
    assert outcomes(run) == [("load", "cached"), ("charge", "replayed_error")]
    assert calls == ["load", "charge"]
    assert [attempt["reason"] for attempt in run.history] == ["failed"]


def test_retry_runs_the_failed_step_again_and_nothing_else(define, broker):
    """The error is forgotten, the results are not."""
    calls = []
    define(failing(calls))
    run = performed(a_run())

    assert run.retry()

    performed(run)
    assert (run.state, run.result) == ("succeeded", Ok("charged"))
    assert outcomes(run) == [("load", "cached"), ("charge", "executed")]
    assert calls == ["load", "charge", "charge"]


def test_retry_forgets_an_error_that_was_replayed(define, broker):
    """Whichever run has met it first."""
    calls = []
    define(failing(calls))
    performed(a_run())
    run = performed(a_run())
    assert outcomes(run)[-1] == ("charge", "replayed_error")

    assert run.retry()

    assert performed(run).state == "succeeded"


def test_retry_keeps_what_has_succeeded_since(define, broker):
    """A step that another run has done meanwhile is not done again."""
    calls, cache = [], {}
    define(failing(calls), cache=cache)
    run = performed(a_run())
    cache["charge"] = Ok("by another run")

    assert run.retry()

    assert performed(run).result == Ok("by another run")
    assert calls == ["load", "charge"]


def test_retry_forgets_in_the_cache_of_the_workflow(define, broker, cache_alias):
    """In every cache, and nothing beside."""
    calls = []
    body = define(failing(calls), cache=cache_alias)
    run = performed(a_run())

    assert run.retry()

    assert body.cache.keys() == ["load"]
    assert performed(run).state == "succeeded"


class OwnCache:
    """A Map-like of a user's own, with async methods."""

    def __init__(self):
        self.kept = {}

    async def get(self, key):
        return self.kept.get(key)

    async def set(self, key, result):
        self.kept[key] = result

    async def has(self, key):
        return key in self.kept

    async def delete(self, key):
        return self.kept.pop(key, None) is not None


def test_retry_forgets_in_a_cache_of_ones_own(define, broker):
    """Whatever a workflow can use can forget."""
    calls, cache = [], OwnCache()
    define(failing(calls), cache=cache)
    run = performed(a_run())

    assert run.retry()

    assert list(cache.kept) == ["load"]


@pytest.mark.parametrize("action", ["resume", "retry"])
@pytest.mark.parametrize("state", ["running", "succeeded"])
def test_there_is_nothing_to_go_on_with(define, broker, action, state):
    """A run that is under way or has succeeded is left alone."""
    define(lambda step, deps: None)
    run = a_run(state=state)

    assert not getattr(run, action)()

    assert run.state == state
    assert broker.messages() == []


def test_a_run_that_still_waits_is_sent_again_by_resume(broker):
    """For somebody who would rather not wait until a worker does it; and now, whatever its time was."""
    run = a_run(queue="slow")

    assert run.resume()

    assert broker.ids("slow") == [[str(run.pk)]]
    assert run.history == []


def test_a_run_is_resumed_on_commit(define, broker):
    """A view in a transaction sends nothing that the worker cannot see yet."""
    run = a_run(state="failed")

    with transaction.atomic():
        run.resume()
        assert broker.messages() == []

    assert broker.ids() == [[str(run.pk)]]


def test_only_one_of_many_resumes(define, broker):
    """A button that is pressed twice sends one message."""
    run = a_run(state="failed", outcome=dumps(Err(1)))
    barrier = threading.Barrier(4)

    def press(_):
        try:
            mine = Run.objects.get()
            barrier.wait()
            return mine.requeue("failed", attempts=0)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(press, range(4))) == [False, False, False, True]
    assert broker.ids() == [[str(run.pk)]]


def test_retry_of_a_workflow_that_is_not_known_says_so():
    """Nothing is changed."""
    run = a_run(workflow="actions.gone", state="failed")

    with pytest.raises(UnknownWorkflow, match=r"actions\.gone"):
        run.retry()

    assert Run.objects.get().state == "failed"
