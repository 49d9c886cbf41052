"""Sending runs: the row in the caller's transaction, the message after its commit, on a real broker."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from celery import current_app
from django.contrib.auth.models import User
from django.db import OperationalError, ProgrammingError, connections, transaction
from django.db.models.functions import Now
from django.utils import timezone

from stepflows import InvalidOption, InvalidUse, NotCacheable, UnknownWorkflow, workflow
from stepflows.dispatch import enqueue
from stepflows.models import Run
from stepflows.registry import registry
from tests.flows.workflows import Basket, echo, order
from tests.servers import close_connections

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.django_db(transaction=True)


def test_delay_writes_a_row_and_sends_its_id(broker):
    """Outside of a transaction both happen at once, and the message holds nothing but the id."""
    run = order.delay(order_id=7)

    [message] = broker.messages()
    assert message.headers["task"] == "stepflows.run"
    assert message.payload[:2] == [[str(run.pk)], {}]
    kept = Run.objects.get()
    assert (kept, kept.state, kept.workflow, kept.kwargs) == (run, "queued", "flows.order", {"order_id": 7})


def test_the_row_says_in_a_line_what_it_was_given(broker):
    """By the names of the body's parameters, and no longer than people read."""
    assert order.delay(7).summary == "order_id=7"
    assert echo.delay(1, city="Paris").summary == "args=(1,), kwargs={'city': 'Paris'}"
    assert echo.delay().summary == ""
    assert len(order.delay("x" * 10_000).summary) < 120
    assert len(echo.delay(**{f"a{number}": "y" * 90 for number in range(40)}).summary) <= 1000


def test_nothing_is_sent_before_the_commit(broker):
    """A worker never looks for a row that it cannot see yet."""
    with transaction.atomic():
        run = order.delay(7)
        assert broker.messages() == []

    assert broker.ids() == [[str(run.pk)]]


def test_a_transaction_that_rolls_back_leaves_no_row_and_sends_nothing(broker):
    """A run that was asked for in a failed transaction was never asked for."""
    with pytest.raises(RuntimeError, match="no"), transaction.atomic():
        order.delay(7)
        raise RuntimeError("no")

    assert not Run.objects.exists()
    assert broker.messages() == []


def test_waiting_before_the_commit_is_refused(broker):
    """A delay and a wait in one transaction would wait for ever."""
    with transaction.atomic():
        run = order.delay(7)
        with pytest.raises(InvalidUse, match="Wait after the atomic block"):
            run.wait()


def test_a_run_that_was_sent_can_be_waited_for_in_another_transaction(broker):
    """What counts is the transaction that sends it, not any that comes later."""
    with transaction.atomic():
        run = order.delay(7)

    with transaction.atomic(), pytest.raises(TimeoutError):
        run.wait(timeout=0)


def test_a_run_is_sent_from_any_thread(broker):
    """A view in a thread of the web server reaches the same broker as the main thread."""

    def view():
        try:
            return order.delay(7)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(view).result()

    assert broker.ids() == [[str(run.pk)]]


def test_a_run_is_sent_from_any_process(broker):
    """A web process, which has loaded the site and no task of it, knows how to send runs."""
    command = [sys.executable, "-m", "django", "run_workflow", "flows.order", "--arg", "order_id=7", "--async"]

    sent = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert broker.ids() == [[sent.stdout.strip()]]


def test_queue_and_priority_are_handed_to_celery(broker):
    """The message goes where it was told to."""
    order.apply_async((7,), queue="slow", priority=9)

    assert broker.messages() == []
    [message] = broker.messages("slow")
    assert message.properties["priority"] == 9


def test_countdown_and_eta_become_the_time_of_the_message(broker):
    """Celery is told when; a naive eta is in the site's time zone."""
    eta = datetime(2030, 1, 1, 12, tzinfo=UTC)
    start = datetime.now(UTC)

    order.apply_async((7,), countdown=600)
    order.apply_async((7,), eta=eta)
    order.apply_async((7,), eta=eta.replace(tzinfo=None))

    etas = [datetime.fromisoformat(message.headers["eta"]) for message in broker.messages()]
    assert start + timedelta(seconds=600) <= etas[0] <= datetime.now(UTC) + timedelta(seconds=600)
    assert etas[1:] == [eta, eta]


def test_an_option_that_is_none_is_not_given(broker):
    """None is what callers hand on when they have nothing to say."""
    order.apply_async((7,), countdown=None, eta=None, queue=None, priority=None, run_id=None)

    assert len(broker.messages()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"countdwn": 3}, "unknown option 'countdwn'. Did you mean 'countdown'?"),
        ({"zzz": 3}, "unknown option 'zzz'. Known are: countdown, eta, priority, queue, run_id."),
        ({"countdown": -1}, "countdown is -1; give a number of seconds from 0 to a billion."),
        ({"countdown": "5"}, "countdown is '5'; give a number of seconds"),
        ({"countdown": True}, "countdown is True; give a number of seconds"),
        ({"countdown": float("inf")}, "countdown is inf; give a number of seconds"),
        ({"countdown": 1e12}, "countdown is 1000000000000.0; give a number of seconds"),
        ({"eta": 5}, "eta is 5; give a datetime."),
        ({"queue": ""}, "queue is ''; give the name of a queue."),
        ({"priority": 256}, "priority is 256; give a whole number from 0 to 255."),
        ({"priority": True}, "priority is True; give a whole number"),
        ({"run_id": "seven"}, "run_id is 'seven'; give a UUID."),
        ({"run_id": 7}, "run_id is 7; give a UUID."),
        ({"countdown": 3, "eta": datetime(2030, 1, 1, tzinfo=UTC)}, "both countdown and eta are given"),
    ],
    ids=str,
)
def test_an_impossible_option_is_refused_before_anything_is_written(options, message):
    """The error names the workflow, the option and what it may be."""
    with pytest.raises(InvalidUse) as caught:
        order.apply_async((7,), **options)

    assert str(caught.value).startswith("workflow 'flows.order': ")
    assert message in str(caught.value)
    assert not Run.objects.exists()


def test_an_impossible_value_is_a_value_error():
    """Options of a wrong value can be caught as such."""
    with pytest.raises(InvalidOption):
        order.apply_async((7,), countdown=-1)


@pytest.mark.parametrize("form", [UUID, str])
def test_the_same_run_id_is_the_same_run(broker, form):
    """A second request with the id, such as a form that is sent twice, gets the first one's run."""
    run_id = uuid4()

    first = order.apply_async((7,), run_id=form(str(run_id)))
    second = order.apply_async((7,), run_id=form(str(run_id)))

    assert first == second == Run.objects.get()
    assert first.pk == run_id


def test_a_run_that_still_waits_is_sent_again(broker):
    """The same run_id again mends a message that the broker has lost."""
    run_id = uuid4()
    order.apply_async((7,), run_id=run_id)
    broker.client.flushdb()

    order.apply_async((7,), run_id=run_id)

    assert broker.ids() == [[str(run_id)]]


def test_a_run_that_has_begun_is_not_sent_again(broker):
    """The same run_id again does not repeat a run that is done."""
    run = order.delay(7)
    Run.objects.update(state=Run.State.SUCCEEDED)
    broker.messages()

    again = order.apply_async((7,), run_id=run.pk)

    assert again.state == "succeeded"
    assert broker.messages() == []


def test_a_run_id_asked_for_by_many_at_once_gives_one_row(broker):
    """Two processes that ask at the same moment share the run."""
    run_id = uuid4()

    def ask(_):
        try:
            return order.apply_async((7,), run_id=run_id)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(6) as pool:
        runs = list(pool.map(ask, range(12)))

    assert {run.pk for run in runs} == {run_id}
    assert Run.objects.count() == 1


def test_a_run_id_in_a_transaction_leaves_it_usable(broker):
    """Meeting a run that is there does not break the caller's transaction."""
    run = order.delay(7)

    with transaction.atomic():
        assert order.apply_async((7,), run_id=run.pk) == run
        assert Run.objects.count() == 1


@pytest.mark.parametrize(
    "ask", [partial(order.apply_async, (8,)), partial(echo.apply_async, (7,))], ids=["args", "name"]
)
def test_a_run_id_of_another_run_is_refused(broker, ask):
    """An id stands for one workflow with one set of arguments; a mix-up is not answered with somebody else's run."""
    run_id = order.delay(7).pk

    with pytest.raises(InvalidUse, match=f"the run_id {run_id} belongs to a run of workflow 'flows.order'"):
        ask(run_id=run_id)


@pytest.mark.parametrize(("value", "again"), [(float("nan"),) * 2, ({0, 8}, {8, 0})], ids=["nan", "set"])
def test_equal_arguments_are_recognised(broker, value, again):
    """What is not equal to itself, or has an order of its own, is still the same argument."""
    run = echo.delay(value)

    assert echo.apply_async((again,), run_id=run.pk) == run


@pytest.mark.parametrize(
    ("args", "kwargs", "name", "place"),
    [
        ((User(pk=7),), {}, "'args'", " at value[0]"),
        ((1,), {"user": User(pk=7)}, "'kwargs'", ' at value["user"]'),
        ((1, {"rows": [Basket(1, (User(pk=7),))]}), {}, "'args'", ' at value[1]["rows"][0].items[0]'),
    ],
    ids=["first", "named", "deep"],
)
def test_an_argument_that_cannot_be_kept_is_refused(args, kwargs, name, place):
    """The error names workflow, argument, the place in it, and what to pass instead."""
    with pytest.raises(NotCacheable) as caught:
        echo.delay(*args, **kwargs)

    assert str(caught.value) == (
        f"workflow 'flows.echo': the argument {name} cannot be sent to a worker: a model instance "
        f"(django.contrib.auth.models.User){place}. Pass its primary key, or a dict of the fields you need."
    )
    assert not Run.objects.exists()


def test_an_argument_is_named_by_its_parameter():
    """A positional argument is called what the body calls it."""
    with pytest.raises(NotCacheable, match="the argument 'order_id' cannot be sent to a worker: an itera"):
        order.delay(iter([]))


def test_arguments_that_are_too_large_together_are_refused(settings):
    """MAX_VALUE_BYTES holds for the arguments of a run as it does for results."""
    settings.STEPFLOWS = {"MAX_VALUE_BYTES": 1000}

    with pytest.raises(NotCacheable, match="the arguments together cannot be sent to a worker: it takes"):
        echo.delay("x" * 600, city="y" * 600)


def test_a_workflow_that_is_not_registered_cannot_be_queued():
    """A name is checked where it is given, not on the worker."""
    with pytest.raises(UnknownWorkflow, match=r"Did you mean 'flows\.order'"):
        enqueue("flows.ordr", (), {}, {})


def test_a_broker_that_is_down_keeps_nobody_waiting(no_broker, caplog):
    """The call returns at once; the run stays queued, and a line of the log says which run was not sent."""
    start = datetime.now(UTC)
    with caplog.at_level(logging.ERROR, "stepflows"):
        run = order.delay(7)

    assert datetime.now(UTC) - start < timedelta(seconds=3)
    assert Run.objects.get(pk=run.pk).state == "queued"
    [record] = caplog.records
    assert record.getMessage().startswith(f"Run {run.pk} of workflow 'flows.order' stays queued: Celery app 'down'")
    assert not record.exc_info


def test_a_table_that_is_missing_is_said_to_need_migrate(no_table):
    """The database's own error says so too, below what it says itself."""
    with pytest.raises((OperationalError, ProgrammingError), match="stepflows_run") as caught:
        order.delay(7)

    [note] = caught.value.__notes__
    assert note == (
        "The run of workflow 'flows.order' was not written. Run manage.py migrate if the table stepflows_run is "
        "missing or has not all its columns."
    )


def test_a_broker_that_is_down_does_not_fail_the_commit(no_broker):
    """Whatever else waits for the commit is done all the same."""
    done = []

    with transaction.atomic():
        order.delay(7)
        transaction.on_commit(lambda: done.append(True))

    assert done == [True]
    assert Run.objects.count() == 1


def test_a_connection_that_went_stale_is_replaced(broker, own_app):
    """A broker that was restarted since the last run is reached by the next one."""
    others = {connection["id"] for connection in broker.client.client_list()}
    order.delay(7)
    assert broker.messages()
    close_connections(broker.client, lambda connection: connection["id"] not in others)

    run = order.delay(8)

    assert broker.ids() == [[str(run.pk)]]


def test_eager_celery_runs_it_in_place(valkey):
    """Where a project's tests have task_always_eager, delay runs the workflow before it returns."""
    current_app.conf.task_always_eager = True
    try:
        run = echo.delay(7)
    finally:
        current_app.conf.task_always_eager = False

    assert run.wait(timeout=0).unwrap() == ((7,), {})


def test_eager_runs_may_queue_one_another(valkey, request):
    """However deep: no connection to a broker is held for any of them."""
    request.addfinalizer(partial(registry.remove, "dispatch.chain"))

    @workflow("dispatch.chain", cache={})
    def chain(step, deps, left):
        return left and str(chain.delay(left - 1).pk)

    current_app.conf.task_always_eager = True
    try:
        chain.delay(12)
    finally:
        current_app.conf.task_always_eager = False

    assert [*Run.objects.values_list("state", flat=True)] == ["succeeded"] * 13


@pytest.mark.parametrize("naive", [True, False], ids=["naive", "aware"])
def test_an_eta_is_taken_where_the_site_has_no_time_zones(broker, settings, naive):
    """With USE_TZ = False too, whichever kind it is: the run is sent with it, and not looked for before it."""
    settings.USE_TZ = False
    start = timezone.now() if naive else datetime.now(UTC)

    run = order.apply_async((7,), eta=start + timedelta(hours=1))

    [message] = broker.messages()
    sent_for = datetime.fromisoformat(message.headers["eta"]) - datetime.now(UTC)
    [(due, now)] = Run.objects.filter(pk=run.pk).values_list("due_at", Now())
    assert 3500 < sent_for.total_seconds() <= 3600
    assert 3500 < (due - now).total_seconds() <= 3630
