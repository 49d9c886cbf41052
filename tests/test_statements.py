"""Statements that are written once do what Django's own would, with the values of each call."""

import string
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from django.core.exceptions import ValidationError
from django.db import DEFAULT_DB_ALIAS, IntegrityError, connection, connections, transaction
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.db.models import F
from django.db.models.functions import Lower, Now
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from stepflows.models import Run, statements
from stepflows.models.run import from_now
from stepflows.models.statements import read, update

pytestmark = pytest.mark.django_db

DEFAULT = DEFAULT_DB_ALIAS
COUNTS = st.integers(0, 2**31 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)
MOMENTS = st.datetimes(timezones=st.just(UTC))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
STEPS = st.lists(JSON, max_size=3)
STATES = st.sampled_from(Run.State)
VALUES = {
    "state": STATES,
    "epoch": COUNTS,
    "attempts": COUNTS,
    "worker": TEXTS,
    "started_at": st.none() | MOMENTS,
    "finished_at": st.none() | MOMENTS,
    "due_at": st.none() | MOMENTS,
    "outcome": st.none() | st.binary(max_size=100),
    "failed_step": st.none() | JSON,
    "executed": COUNTS,
    "cached": COUNTS,
    "steps": STEPS,
    "history": STEPS,
}
#: What a worker changes when it takes a run, finishes it, gives it back; and what people change.
SHAPES = {
    "claim": ("state", "attempts", "worker", "started_at", "epoch"),
    "finish": ("state", "outcome", "failed_step", "finished_at", "due_at", "steps", "executed", "cached", "epoch"),
    "cancel": ("state", "due_at", "finished_at", "epoch"),
    "requeue": tuple(VALUES),
}


def a_run(**fields):
    return Run.objects.create(workflow="checkout", arguments=b"", **fields)


def stored(run):
    """The columns as the database has them; that nobody compares two ids."""
    columns = ", ".join(connection.ops.quote_name(field.column) for field in Run._meta.fields if field.name in VALUES)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM {Run._meta.db_table} WHERE id = %s", [prepared(run)])
        return [bytes(value) if isinstance(value, memoryview) else value for value in cursor.fetchone()]


def prepared(run):
    return Run._meta.pk.get_db_prep_value(run.pk, connection)


@pytest.fixture
def other():
    """The alias of a second database, in memory, with a table of runs."""
    changed = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "OPTIONS": {}}
    # It calls itself by the first one's name, because Django lets a test use no others than those of its settings.
    second = DatabaseWrapper(connection.settings_dict | changed, DEFAULT)
    connections.settings["other"] = second.settings_dict
    connections["other"] = second
    with second.schema_editor() as editor:
        editor.create_model(Run)
    yield "other"
    # Django leaves a database in memory open.
    second.connection.close()
    del connections["other"], connections.settings["other"]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@given(data=st.data())
def test_the_row_is_what_django_makes_of_it(shape, data):
    """For each change that is made of a run, whatever the values, and one after the other by the same statement."""
    values = data.draw(st.fixed_dictionaries({name: VALUES[name] for name in shape}))
    before = data.draw(st.fixed_dictionaries({"state": STATES, "epoch": COUNTS}))
    theirs, ours = a_run(**before), a_run(**before)

    assert Run.objects.filter(pk=theirs.pk, **before).update(**values) == 1
    assert update(Run, DEFAULT, {"id": ours.pk, **before}, values) == 1

    assert stored(ours) == stored(theirs)


@given(st.fixed_dictionaries(VALUES))
def test_the_object_is_what_django_reads(values):
    """With all its fields, and the database that it is of."""
    run = a_run(**values)

    found = read(Run, DEFAULT, {"id": str(run.pk), "state": values["state"]})

    expected = Run.objects.get(pk=run.pk)
    fields = [field.attname for field in Run._meta.fields]
    assert [getattr(found, name) for name in fields] == [getattr(expected, name) for name in fields]
    assert found.get_deferred_fields() == set()
    assert (found._state.db, found._state.adding) == (DEFAULT, False)


@pytest.mark.parametrize("condition", [{"state": "running"}, {"epoch": 3}, {"worker": "elsewhere"}])
def test_other_rows_are_left_alone(condition):
    """A row of which one value is another is neither read nor changed."""
    run = a_run(state="queued", epoch=2, worker="here")
    conditions = {"id": run.pk, "state": "queued", "epoch": 2, "worker": "here"} | condition

    assert read(Run, DEFAULT, conditions) is None
    assert update(Run, DEFAULT, conditions, {"worker": "other"}) == 0

    run.refresh_from_db()
    assert run.worker == "here"


def test_all_rows_that_fit_are_counted():
    """The number is that of the rows, also of those that it leaves as they were."""
    for worker in ("here", "there", "there"):
        a_run(worker=worker, epoch=1)
    a_run(epoch=2)

    assert update(Run, DEFAULT, {"epoch": 1}, {"worker": "there"}) == 3


def test_the_order_of_names_says_nothing():
    """Each value gets to its own field, however the conditions and the changes are ordered."""
    run = a_run(state="queued", epoch=1, worker="a")

    assert update(Run, DEFAULT, {"worker": "a", "epoch": 1, "id": run.pk}, {"queue": "c", "attempts": 3}) == 1
    assert update(Run, DEFAULT, {"id": run.pk, "epoch": 1, "worker": "a"}, {"attempts": 4, "queue": "d"}) == 1

    run.refresh_from_db()
    assert (run.attempts, run.queue, run.worker, run.epoch) == (4, "d", "a", 1)


@pytest.mark.parametrize("seconds", [0.5, 25, 25.000001, 3600])
def test_an_expression_is_worked_out_as_by_django(seconds):
    """Whatever time is in it, and however often: that of another statement is not in it."""
    earlier, ours, later = a_run(), a_run(), a_run()
    # Whatever is in the memory.
    update(Run, DEFAULT, {"id": ours.pk}, {"due_at": from_now(7), "worker": "here"})

    Run.objects.filter(pk=earlier.pk).update(due_at=Now() + timedelta(seconds=seconds))
    update(Run, DEFAULT, {"id": ours.pk}, {"due_at": from_now(seconds), "worker": "there"})
    Run.objects.filter(pk=later.pk).update(due_at=Now() + timedelta(seconds=seconds))

    for run in (earlier, ours, later):
        run.refresh_from_db()
    assert earlier.due_at <= ours.due_at <= later.due_at
    assert ours.worker == "there"


def test_expressions_and_values_may_be_mixed():
    """Before, between and after the values, with parameters of their own or without."""
    run = a_run(epoch=1, attempts=5, worker="HERE", queue="Q")
    changes = {"attempts": F("attempts") + 3, "state": "running", "worker": Lower("worker"), "queue": "q"}

    update(Run, DEFAULT, {"epoch": 1}, changes | {"cached": F("epoch") * 7})

    run.refresh_from_db()
    assert (run.attempts, run.state, run.worker, run.queue, run.cached) == (8, "running", "here", "q", 7)


def test_a_statement_is_written_once():
    """However often, and with whatever values, it is executed."""
    run = a_run()
    statements._selection.cache_clear()
    statements._change.cache_clear()

    for seconds in (10, 10, 20):
        read(Run, DEFAULT, {"id": run.pk, "state": f"any {seconds}"})
        update(Run, DEFAULT, {"id": run.pk}, {"due_at": from_now(seconds), "worker": f"any {seconds}"})

    assert statements._selection.cache_info().misses == 1
    # What an expression adds is in the statement.
    assert statements._change.cache_info().misses == 2


def test_statements_are_seen_like_all_others(django_assert_num_queries):
    """They go through Django's cursor, which counts and logs them."""
    run = a_run()

    with django_assert_num_queries(2), CaptureQueriesContext(connection) as queries:
        read(Run, DEFAULT, {"id": run.pk})
        update(Run, DEFAULT, {"id": run.pk}, {"worker": "here"})

    assert [query["sql"].split()[0] for query in queries] == ["SELECT", "UPDATE"]


def test_what_is_no_id_is_refused_as_by_django():
    """Before the database is asked."""
    with pytest.raises(ValidationError):
        read(Run, DEFAULT, {"id": "no id"})


def test_a_statement_that_fails_ends_its_transaction():
    """As one of Django's would: nothing else can be done in it."""
    run = a_run()

    with pytest.raises(transaction.TransactionManagementError), transaction.atomic():
        with pytest.raises(IntegrityError):
            update(Run, DEFAULT, {"id": run.pk}, {"attempts": -1})
        Run.objects.count()


def test_each_database_has_its_own_statements(other):
    """A row of another alias is read and changed there, and nothing in the default one."""
    here = a_run(worker="here")
    there = Run(pk=here.pk, workflow="checkout", arguments=b"", worker="there")
    there.save(using=other, force_insert=True)

    assert update(Run, other, {"id": here.pk}, {"attempts": 7, "due_at": from_now(5)}) == 1

    found = read(Run, other, {"id": here.pk})
    assert (found.worker, found.attempts) == ("there", 7)
    found = read(Run, DEFAULT, {"id": here.pk})
    assert (found.worker, found.attempts) == ("here", 0)


def test_without_time_zones_times_are_naive(settings):
    """The fields prepare and read them, by what the settings say now."""
    settings.USE_TZ = False
    moment = datetime(2030, 5, 17, 12, 30, 15, 250, tzinfo=UTC).replace(tzinfo=None)
    theirs, ours = a_run(created_at=moment), a_run(created_at=moment)

    Run.objects.filter(pk=theirs.pk).update(finished_at=moment, due_at=moment)
    update(Run, DEFAULT, {"id": ours.pk}, {"finished_at": moment, "due_at": moment})

    found = read(Run, DEFAULT, {"id": ours.pk, "created_at": moment})
    assert (found.finished_at, found.due_at) == (moment, moment)
    assert stored(ours) == stored(theirs)


def test_only_the_latest_object_hands_a_run_over():
    """One that was read before somebody else's change changes nothing, neither the row nor itself."""
    first = a_run()
    second = Run.objects.get()

    assert first.hand_over(state="running", worker="first")
    assert not second.hand_over(state="running", worker="second")

    assert (second.state, second.worker, second.epoch) == ("queued", "", 0)
    second.refresh_from_db()
    assert (second.state, second.worker, second.epoch) == ("running", "first", 1)


@pytest.mark.django_db(transaction=True)
def test_threads_may_share_a_statement():
    """Each changes its own row by its own values, also while it is being written."""
    letters = string.ascii_lowercase[:6]
    runs = {letter: a_run(worker=letter) for letter in letters}
    statements._change.cache_clear()
    barrier = Barrier(len(letters))

    def work(letter):
        try:
            barrier.wait()
            return [
                update(Run, DEFAULT, {"worker": letter, "epoch": epoch}, {"queue": letter, "epoch": epoch + 1})
                for epoch in range(10)
            ]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(letters)) as pool:
        assert list(pool.map(work, letters)) == [[1] * 10] * len(letters)

    for letter, run in runs.items():
        run.refresh_from_db()
        assert (run.queue, run.epoch) == (letter, 10)
