"""Queued runs are performed in the test itself."""

import asyncio
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.test import TestCase, TransactionTestCase

from stepflows import Err, InvalidUse, Ok, workflow
from stepflows.models import Run
from stepflows.registry import registry
from stepflows.runs import perform
from stepflows.signals import step_event
from stepflows.testing import Crash, CrashingCache, assert_steps, runs_in_place
from tests.testing.flows import again, deliver, order, order_async, pay

BOTH_KINDS = [
    pytest.param(False, marks=pytest.mark.django_db, id="db"),
    pytest.param(True, marks=pytest.mark.django_db(transaction=True), id="transactional db"),
]


@pytest.fixture(params=BOTH_KINDS)
def any_db(request):
    """pytest-django's database, of both kinds."""


class PayTests(TestCase):
    def test_it_works_in_djangos_test_case(self):
        """Where no transaction is ever committed."""
        with runs_in_place() as runs:
            run = pay.delay(7)
            assert run.state == "queued"

        assert run.result == Ok("paid")
        assert list(runs) == [run]

    def test_a_performed_run_can_be_waited_for(self):
        """Although the transaction in which it was queued never ends."""
        with runs_in_place():
            run = pay.delay(7)

        assert run.wait(timeout=0) == Ok("paid")

    def test_a_run_whose_block_was_rolled_back_is_not_performed(self):
        """A savepoint of a test case stands for the transaction of a request."""
        with runs_in_place() as runs:
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                pay.delay(7)
                _ = 1 / 0
            kept = pay.delay(8)

        assert list(runs) == [kept]

    def test_what_waits_for_a_commit_is_sent_nowhere(self):
        """Whoever has the callbacks executed meets no broker."""
        with runs_in_place(), self.captureOnCommitCallbacks(execute=True):
            run = pay.delay(7)

        assert run.state == "succeeded"


class EnteredTests(TestCase):
    def setUp(self):
        self.runs = self.enterContext(runs_in_place())

    def test_it_can_be_entered_for_a_whole_test(self):
        """The test says when the runs are performed; what is left at its end is performed then."""
        run = pay.delay(7)
        assert run.result is None

        self.runs.perform()

        assert run.result == Ok("paid")


class TransactionTests(TransactionTestCase):
    def test_it_works_in_a_transaction_test_case(self):
        """Where a transaction is committed in the middle of the block, and the message held back."""
        with runs_in_place():
            with transaction.atomic():
                run = pay.delay(7)
            assert Run.objects.get().state == "queued"

        assert run.result == Ok("paid")


@pytest.fixture
def runs():
    with runs_in_place() as runs:
        yield runs


@pytest.mark.usefixtures("any_db")
def test_it_is_the_body_of_a_fixture(runs):
    """As projects on pytest have it."""
    run = pay.delay(7)

    runs.perform()

    assert runs[0] is run
    assert run.result == Ok("paid")


@pytest.mark.usefixtures("any_db", "no_broker")
def test_nothing_is_sent(caplog):
    """There may be no broker, and nobody complains of that."""
    with runs_in_place():
        with transaction.atomic():
            pay.delay(7)
        pay.delay(8)

    assert caplog.records == []


@pytest.mark.usefixtures("any_db")
@pytest.mark.parametrize("flow", [order, order_async], ids=lambda flow: flow.name)
def test_what_runs_queue_is_performed_too(flow):
    """And is among the runs of the block."""
    with runs_in_place() as runs:
        flow.delay(7)

    assert [(run.workflow, run.result) for run in runs] == [(flow.name, Ok("paid")), (deliver.name, Ok("delivered"))]


@pytest.mark.django_db
def test_runs_that_queue_runs_are_performed_until_none_is_left():
    """However long the chain is."""
    with runs_in_place() as runs:
        again.delay(5)

    assert [run.result for run in runs] == [Ok(5), Ok(4), Ok(3), Ok(2), Ok(1), Ok(0)]
    assert len(runs) == 6
    assert runs[-1:] == [Run.objects.get(pk=runs[5].pk)]


@pytest.mark.django_db
def test_runs_are_performed_in_the_order_queued():
    """Unlike on workers, so that a test is the same every time."""
    begun = []

    def listen(event, **_):
        if event.type == "workflow_start":
            begun.append(event.run_id)

    step_event.connect(listen)
    try:
        with runs_in_place() as runs:
            queued = [pay.delay(8), deliver.delay(7), pay.delay(7)]
    finally:
        step_event.disconnect(listen)

    assert begun == [str(run.pk) for run in queued]
    assert list(runs) == queued


@pytest.mark.django_db
@pytest.mark.parametrize("when", [{"countdown": 3600}, {"eta": datetime(2999, 1, 1, tzinfo=UTC)}], ids=str)
def test_no_time_is_waited_for(when):
    """What is to start later starts at once."""
    with runs_in_place():
        run = pay.apply_async((7,), **when)

    assert run.result == Ok("paid")


@pytest.mark.django_db
def test_runs_can_be_performed_in_the_middle():
    """What is queued after that is performed at the end."""
    with runs_in_place() as runs:
        first = pay.delay(7)
        runs.perform()
        second = pay.delay(8)
        assert (first.state, second.state) == ("succeeded", "queued")
        assert repr(runs) == f"<QueuedRuns {[first, second]!r}>"

    assert second.state == "succeeded"


@pytest.mark.django_db
def test_a_block_that_raises_performs_nothing():
    """The test has failed; what comes after would hide why."""
    with pytest.raises(ZeroDivisionError), runs_in_place() as runs:
        pay.delay(7)
        _ = 1 / 0

    assert Run.objects.get().state == "queued"
    assert len(runs) == 1


@pytest.mark.django_db(transaction=True)
def test_a_run_whose_transaction_was_rolled_back_is_not_performed():
    """It was never queued."""
    with runs_in_place() as runs, pytest.raises(ZeroDivisionError), transaction.atomic():
        pay.delay(7)
        _ = 1 / 0

    assert list(runs) == []


@pytest.mark.django_db
def test_a_failed_run_fails_nothing_but_itself():
    """Its row says so, as on a worker."""
    with runs_in_place():
        run = pay.delay(13)

    assert (run.state, run.result) == ("failed", Err("DECLINED"))


@pytest.mark.django_db
def test_a_run_that_is_asked_for_again_is_performed_again():
    """As by the button in the admin, which has an object of its own."""
    with runs_in_place() as runs:
        run = pay.delay(13)
        runs.perform()
        assert_steps(run, executed=["load"], failed=["charge"])
        assert Run.objects.get(pk=run.pk).resume()

    assert_steps(run, cached=["load"], replayed=["charge"])


@pytest.mark.django_db
def test_a_run_that_was_called_off_is_not_performed():
    """It is not queued any more."""
    with runs_in_place() as runs:
        run = pay.delay(7)
        assert Run.objects.get(pk=run.pk).cancel()

    assert run.state == "cancelled"
    assert list(runs) == [run]


@pytest.mark.django_db
def test_a_run_that_is_asked_for_twice_is_one_run():
    """The same run_id is the same run; one that is finished is not queued again."""
    run_id = uuid.uuid4()
    with runs_in_place() as runs:
        pay.apply_async((7,), run_id=run_id)
        pay.apply_async((7,), run_id=run_id)
        runs.perform()
        pay.apply_async((7,), run_id=run_id)

    assert len(runs) == 1
    assert runs[0].attempts == 1


@pytest.mark.django_db
def test_a_block_within_another_has_its_own_runs():
    """The outer one performs what was queued before and after."""
    with runs_in_place() as outer:
        before = pay.delay(7)
        with runs_in_place() as inner:
            within = pay.delay(8)
        after = pay.delay(9)
        assert [run.state for run in (before, within, after)] == ["queued", "succeeded", "queued"]

    assert (list(outer), list(inner)) == ([before, after], [within])
    assert before.state == after.state == "succeeded"


@pytest.mark.django_db
@pytest.mark.parametrize("error", [None, ZeroDivisionError()], ids=repr)
def test_all_is_as_before_after_the_block(error):
    """Also where it raised."""
    before = registry.dispatcher

    with suppress(ZeroDivisionError), runs_in_place():
        if error:
            raise error

    assert registry.dispatcher is before
    assert pay.delay(7).state == "queued"


@pytest.mark.django_db(transaction=True)
def test_runs_are_taken_from_every_thread():
    """A live server's, or a workflow's own; they are performed in the test's."""
    performers = []

    @workflow("testing.thread", cache=None)
    def thread(step, deps):
        performers.append(threading.current_thread())

    def view():
        try:
            return thread.delay()
        finally:
            connections.close_all()

    try:
        with runs_in_place() as runs, ThreadPoolExecutor(1) as pool:
            run = pool.submit(view).result()
    finally:
        registry.remove("testing.thread")

    assert list(runs) == [run]
    assert performers == [threading.current_thread()]


@pytest.mark.django_db
def test_runs_are_taken_from_async_code():
    """An async view's adelay, called by a sync test."""
    with runs_in_place():
        run = async_to_sync(pay.adelay)(7)

    assert run.result == Ok("paid")


class AsyncTests(TestCase):
    async def test_an_async_test_has_them_performed_before_the_end(self):
        """By aperform, because an event loop may not be blocked."""
        with runs_in_place() as runs:
            run = await order_async.adelay(7)
            await runs.aperform()

        assert run.result == Ok("paid")
        assert runs[1].result == Ok("delivered")

    async def test_an_async_test_that_forgets_is_told(self):
        """The error names the runs and the remedy."""
        with pytest.raises(InvalidUse, match=r"testing\.pay .*\. Call: await runs\.aperform\(\)"), runs_in_place():
            await pay.adelay(7)


def test_an_empty_block_asks_no_database():
    """A fixture for every test may have it."""
    with runs_in_place():
        pass

    async def test():
        with runs_in_place():
            await asyncio.sleep(0)

    asyncio.run(test())


@pytest.mark.django_db
def test_an_exit_passes_and_leaves_the_run_queued():
    """As on a worker, whose process ends; performed again, it is resumed."""
    exits = [SystemExit(3)]

    @workflow("testing.exit", cache="locmem")
    def leave(step, deps):
        step("a", lambda: 1, key="a")
        if exits:
            raise exits.pop()

    try:
        with runs_in_place() as runs:
            run = leave.delay()
            with pytest.raises(SystemExit):
                runs.perform()
            assert Run.objects.get().state == "queued"
    finally:
        registry.remove("testing.exit")

    assert_steps(run, executed=[], cached=["a"])


def two_steps(step, deps):
    return [step(label, lambda: 1, key=label) for label in "ab"]


async def two_async_steps(step, deps):
    return [await step(label, lambda: 1, key=label) for label in "ab"]


@pytest.mark.django_db
@pytest.mark.parametrize("body", [two_steps, two_async_steps], ids=lambda body: body.__name__)
def test_a_crash_passes_and_the_run_is_resumed_after_the_restart(body):
    """A crashing cache tries out runs on workers too."""
    cache = CrashingCache(after=1)
    flow = workflow("testing.crash", cache=cache)(body)
    try:
        with runs_in_place() as runs:
            run = flow.delay()
            with pytest.raises(Crash):
                runs.perform()
            cache.restart()
    finally:
        registry.remove("testing.crash")

    assert run.result == Ok([1, 1])
    assert_steps(run, executed=["b"], cached=["a"])


@pytest.mark.django_db
def test_a_run_that_somebody_else_performs_is_left_to_them():
    """A run is performed once."""
    with runs_in_place():
        run = pay.delay(7)
        assert perform(run.pk)

    assert run.attempts == 1
    assert run.result == Ok("paid")


def test_a_run_that_is_retried_in_the_block_is_performed(any_db, valkey):
    """One that was queued before it, too: whoever tests the button of a page has it pressed."""
    with runs_in_place():
        run = pay.delay(7)
    Run.objects.filter(pk=run.pk).update(state="failed")

    with runs_in_place() as runs:
        assert Run.objects.get(pk=run.pk).resume()

    assert list(runs) == [run]
    assert runs[0].result == Ok("paid")
