"""Looking for lost runs while others work on them, and while some of them cannot be helped."""

from datetime import timedelta

import pytest
from celery import current_app
from django.core.management import call_command
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from stepflows import Ok, dumps, recovery
from stepflows.models import Run
from stepflows.recovery import Recovered, resume_runs
from tests.flows.workflows import order

pytestmark = pytest.mark.django_db(transaction=True)


def a_run(**fields):
    """The row of a run that should have been heard of a while ago."""
    given = {"workflow": "flows.order", "arguments": dumps(Ok(((7,), {}))), "due_at": Now() - timedelta(minutes=1)}
    return Run.objects.get(pk=Run.objects.create(**given | fields).pk)


def a_lost_run(**fields):
    """One whose worker has not been heard of."""
    return a_run(
        **{"state": "running", "attempts": 1, "epoch": 3, "worker": "gone", "started_at": timezone.now()} | fields
    )


def before(monkeypatch, method, happen):
    """Have something happen to the row of a run just before a look does its part."""
    original = getattr(Run, method)

    def late(run, *args, **options):
        happen(Run.objects.get(pk=run.pk))
        return original(run, *args, **options)

    monkeypatch.setattr(Run, method, late)


def test_a_run_that_is_heard_of_during_the_look_is_left_alone(broker, monkeypatch):
    """After an outage of the database everybody comes back at once: whoever is alive keeps its run."""
    run = a_lost_run()
    before(monkeypatch, "requeue", Run.renew)

    assert resume_runs() == Recovered()

    run.refresh_from_db()
    assert (run.state, run.epoch, run.worker) == ("running", 3, "gone")
    assert broker.messages() == []


def test_a_run_that_is_heard_of_during_the_look_is_not_given_up(broker, monkeypatch, settings):
    """Its last attempt goes on."""
    settings.STEPFLOWS = {"MAX_ATTEMPTS": 1}
    run = a_lost_run()
    before(monkeypatch, "hand_over", Run.renew)

    assert resume_runs() == Recovered()

    run.refresh_from_db()
    assert run.state == "running"


def test_an_old_run_that_is_resumed_during_the_look_is_not_removed(broker, settings):
    """Somebody wants it again, between the question which are old and their removal."""
    settings.STEPFLOWS = {"RUN_RETENTION": 60}
    long_ago = timezone.now() - timedelta(days=1)
    run = a_run(state="failed", due_at=None, created_at=long_ago, finished_at=long_ago)

    def resume(execute, sql, params, many, context):
        if sql.startswith("DELETE"):
            with connection.cursor() as cursor:
                cursor.execute("UPDATE stepflows_run SET state = 'queued', finished_at = NULL")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(resume):
        assert resume_runs() == Recovered()

    assert Run.objects.filter(pk=run.pk).exists()


def test_a_run_that_cannot_be_helped_keeps_nobody_from_the_others(broker, caplog):
    """What another version has written, perhaps, cannot be read: it is told, and the next one is brought back."""
    bad = a_lost_run(history=[{}], due_at=Now() - timedelta(hours=1))
    run = a_lost_run()

    assert resume_runs() == Recovered(resumed=1)

    assert broker.ids() == [[str(run.pk)]]
    assert f"Run {bad.pk} of workflow 'flows.order' could not be brought back" in caplog.text


def test_a_queue_that_takes_nothing_holds_up_no_other(broker, monkeypatch):
    """Its runs are tried once in a look, and those of the other queues are sent."""
    monkeypatch.setattr(current_app.amqp.queues, "create_missing", False)
    for _ in range(3):
        a_run(queue="typo", due_at=Now() - timedelta(hours=1))
    waiting, lost = a_run(), a_lost_run()

    assert resume_runs() == Recovered(sent=1, resumed=1)

    assert sorted(broker.ids()) == sorted([[str(waiting.pk)], [str(lost.pk)]])


def test_a_look_that_takes_long_does_not_begin_anew(broker, monkeypatch):
    """Of many runs, the first are due again before the last have been looked at: they wait for the next look."""
    monkeypatch.setattr(recovery, "_BATCH", 2)
    monkeypatch.setattr(Run, "grace", staticmethod(lambda: 0))
    for _ in range(5):
        a_lost_run()

    assert resume_runs() == Recovered(resumed=5)
    assert len(broker.messages()) == 5


def test_runs_that_are_planned_slow_down_nobody(broker):
    """They wait for their time, and not for a worker that is busy."""
    planned = Run(workflow="flows.order", arguments=b"", due_at=Now() + timedelta(days=2))
    Run.objects.bulk_create(Run(workflow=planned.workflow, arguments=b"", due_at=planned.due_at) for _ in range(500))
    run = a_run()

    assert resume_runs() == Recovered(sent=1)

    assert Run.objects.filter(pk=run.pk, due_at__lt=Now() + timedelta(seconds=31)).exists()


@pytest.mark.django_db(transaction=False)
def test_the_command_leaves_the_transaction_of_its_caller_alone():
    """A test case, for example, calls it on the connection that it goes on with."""
    run = order.delay(order_id=7)

    call_command("resume_runs")

    assert Run.objects.filter(pk=run.pk).exists()
