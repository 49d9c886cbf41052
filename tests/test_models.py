"""Rows of runs: what they say, and waiting for them."""

import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.utils import timezone

from stepflows import DamagedEntry, Err, FailedStep, InvalidUse, Ok, dumps, workflow
from stepflows.models import CachedStep, Run
from stepflows.registry import registry
from tests.plans import plan

pytestmark = pytest.mark.django_db

ARGUMENTS = dumps(Ok(((7,), {"express": True})))


def a_run(**fields):
    return Run.objects.create(**{"workflow": "checkout", "arguments": ARGUMENTS, **fields})


def finish(run, result, **fields):
    """As a worker does it: somewhere else, and not on this object."""
    state = Run.State.SUCCEEDED if result.ok else Run.State.FAILED
    Run.objects.filter(pk=run.pk).update(state=state, outcome=dumps(result), finished_at=timezone.now(), **fields)


def test_a_new_run_is_queued_and_has_no_result():
    """A run that nobody has touched is queued, was never attempted, and its result is None."""
    run = a_run()

    assert (run.state, run.attempts, run.steps, run.result, run.duration) == ("queued", 0, [], None, None)
    assert isinstance(run.pk, uuid.UUID)
    assert not run.finished
    assert str(run) == f"checkout {run.pk}"


def test_arguments_come_back_as_they_were_given():
    """Positional and named arguments are read from the row."""
    run = Run.objects.get(pk=a_run().pk)

    assert run.args == (7,)
    assert run.kwargs == {"express": True}


def test_arguments_that_cannot_be_read_are_an_error():
    """Damaged arguments raise DamagedEntry, and nothing is guessed."""
    run = a_run(arguments=b"damaged")

    with pytest.raises(DamagedEntry):
        _ = run.args


@pytest.mark.parametrize("result", [Ok(None), Ok({"paid": True}), Err("NOT_FOUND", {"id": 7})], ids=repr)
def test_the_result_of_a_finished_run_is_what_was_stored(result):
    """An outcome in the row is read as a Result."""
    run = a_run()

    finish(run, result)

    assert Run.objects.get(pk=run.pk).result == result


def test_an_error_says_which_step_failed():
    """The step that failed is kept beside the outcome and comes back in Err.step."""
    run = a_run()

    finish(run, Err("NOT_FOUND"), failed_step=FailedStep("load", "order:7", replayed=True))

    result = Run.objects.get(pk=run.pk).result
    assert isinstance(result, Err)
    assert result.step == FailedStep("load", "order:7", replayed=True)


def test_an_outcome_that_cannot_be_read_is_an_error_and_no_exception():
    """A list of runs can be shown although one outcome is damaged."""
    run = a_run(state=Run.State.SUCCEEDED, outcome=b"damaged")

    assert isinstance(run.result, Err)
    assert isinstance(run.result.error, DamagedEntry)


def test_duration_is_from_start_to_end_in_seconds():
    """A finished run says how long its last attempt took."""
    start = timezone.now()

    run = a_run(started_at=start, finished_at=start + timedelta(seconds=2.5))

    assert run.duration == 2.5
    assert a_run(started_at=start).duration is None


def test_runs_are_found_by_workflow():
    """for_workflow takes a name or the workflow itself."""

    @workflow("models.ship")
    def ship(step, deps):
        """Nothing to do."""

    registry.remove("models.ship")
    a_run()
    shipping = a_run(workflow="models.ship")

    assert list(Run.objects.for_workflow(ship)) == [shipping]
    assert list(Run.objects.for_workflow("models.ship")) == [shipping]
    assert not Run.objects.for_workflow("refund").exists()


def test_the_newest_run_comes_first():
    """Runs are ordered by the time of their creation."""
    old = a_run(created_at=timezone.now() - timedelta(days=1))
    new = a_run()

    assert list(Run.objects.all()) == [new, old]
    assert Run.objects.latest() == new


@pytest.mark.parametrize(
    "question",
    [
        Run.objects.order_by("-created_at"),
        Run.objects.filter(state="queued").order_by("-created_at"),
        Run.objects.for_workflow("checkout").order_by("-created_at"),
    ],
    ids=["all", "by state", "by workflow"],
)
def test_lists_of_runs_are_read_from_an_index(question):
    """No list that is shown has the database sort the whole table."""
    found = plan(question[:100])

    assert re.search("USING (INDEX )?stepflows_run_", found, re.IGNORECASE)
    assert "sort" not in found.lower()
    assert "TEMP B-TREE" not in found


@pytest.mark.django_db(transaction=True)
def test_wait_returns_the_result_once_there_is_one():
    """Somebody who waits is given the result that another thread stores."""
    run = a_run()

    def work():
        try:
            finish(run, Ok("paid"))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work)
        assert run.wait(timeout=30) == Ok("paid")

    assert run.state == "succeeded"


def test_wait_gives_a_finished_run_at_once():
    """A run that is finished needs no time."""
    run = a_run()
    finish(run, Err("NOT_FOUND"))

    assert run.wait(timeout=0) == Err("NOT_FOUND")
    assert run.wait() == Err("NOT_FOUND")


def test_waiting_for_a_run_without_a_row_says_why():
    """Its transaction was rolled back, perhaps."""
    run = a_run()
    Run.objects.filter(pk=run.pk).delete()
    with pytest.raises(Run.DoesNotExist, match="rolled back"):
        run.wait(timeout=0)


def test_wait_gives_up_after_the_timeout_and_says_what_it_waited_for():
    """The TimeoutError names run, workflow and state."""
    run = a_run(state=Run.State.RUNNING)

    with pytest.raises(TimeoutError) as caught:
        run.wait(timeout=0.02)

    assert str(caught.value) == f"Run {run.pk} of workflow 'checkout' is running after 0.02 s."


def test_waiting_for_a_run_that_nobody_takes_asks_for_a_worker():
    """Most often none is running."""
    with pytest.raises(TimeoutError, match=r"is queued after 0 s\. No worker has taken it: is one running "):
        a_run().wait(timeout=0)


def test_waiting_for_a_cancelled_run_ends_in_an_error():
    """A run that is cancelled has no outcome; whoever waits for it is not kept."""
    assert a_run(state=Run.State.CANCELLED).wait(timeout=0) == Err("cancelled")


@pytest.mark.django_db(transaction=True)
def test_waiting_in_the_transaction_that_sends_the_run_is_refused():
    """A run is sent on commit, so a wait before that would never end."""
    run = a_run()
    run.awaits_commit = True

    with transaction.atomic(), pytest.raises(InvalidUse, match="Wait after the atomic block"):
        run.wait()


@pytest.mark.skipif(connection.vendor != "sqlite", reason="Elsewhere a transaction sees what others commit.")
@pytest.mark.django_db(transaction=True)
def test_waiting_for_ever_in_a_transaction_of_sqlite_is_refused():
    """It shows a row as it was when the transaction began, and lets nobody else write."""
    run = a_run()

    with transaction.atomic():
        with pytest.raises(InvalidUse, match="waiting for it inside a transaction of SQLite would never end"):
            run.wait()
        with pytest.raises(TimeoutError):
            run.wait(timeout=0)
        finish(run, Ok(1))
        assert run.wait() == Ok(1)


def test_times_are_naive_where_the_site_has_no_time_zones(settings):
    """With USE_TZ = False a run is created and read like any other row."""
    settings.USE_TZ = False

    run = Run.objects.get(pk=a_run().pk)

    assert timezone.is_naive(run.created_at)


def test_permissions_are_those_that_the_admin_asks_for():
    """Neither runs nor cached steps can be added, and clearing is a permission of its own."""
    permissions = Permission.objects.filter(content_type__app_label="stepflows")

    assert set(permissions.values_list("codename", flat=True)) == {
        "view_run",
        "change_run",
        "view_cachedstep",
        "delete_cachedstep",
        "clear_cachedstep",
    }


def test_cached_steps_have_no_table():
    """The caches are asked for them, not the database."""
    assert CachedStep._meta.db_table not in connection.introspection.table_names()
    assert str(CachedStep(workflow="checkout", key="order:7")) == "checkout order:7"


def test_the_migrations_are_complete():
    """There is nothing for makemigrations to add."""
    output = StringIO()

    call_command("makemigrations", "stepflows", check=True, dry_run=True, stdout=output)

    assert "No changes detected" in output.getvalue()


def test_a_run_that_was_read_from_a_replica_is_changed_where_rows_are_written(settings):
    """A router may have reads go elsewhere; cancel, resume and retry are no reads."""

    class Replica:
        def db_for_write(self, model, **hints):
            return "default"

    settings.DATABASE_ROUTERS = [Replica()]
    run = a_run()
    run._state.db = "replica"

    assert run.cancel()

    assert Run.objects.get(pk=run.pk).state == "cancelled"
