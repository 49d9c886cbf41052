"""Which open transaction a step's function used, and how that ends."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import Group, Permission
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.test import TestCase

from stepflows.database import DjangoThreads
from stepflows.engine.transactions import Transaction, unwatched

real_database = pytest.mark.django_db(transaction=True)
in_a_test_case = pytest.mark.django_db

threads = DjangoThreads()


class Rollback(Exception):
    """Leaves a block."""


class Ends(list[str]):
    """What became of transactions: "committed" or "lost" for each."""

    def follow(self, used: Transaction | None, name: str = "") -> None:
        assert used is not None
        used.on_commit(lambda: self.append(f"{name} committed".strip()), lambda: self.append(f"{name} lost".strip()))


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
def other() -> Iterator[str]:
    """The alias of a second database, in memory."""
    first = connections["default"]
    settings = first.settings_dict | {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "OPTIONS": {}}
    # It calls itself by the first one's name, because Django lets a test use no others than those of its settings.
    second = DatabaseWrapper(settings, first.alias)
    connections.settings["other"] = second.settings_dict
    connections["other"] = second
    yield "other"
    # Django leaves a database in memory open.
    if second.connection:
        second.connection.close()
    del connections["other"], connections.settings["other"]


def query_both() -> None:
    query()
    with connections["other"].cursor() as cursor:
        cursor.execute("SELECT 1")


def query() -> int:
    return Group.objects.count()


def used_by(function: Callable[[], Any]) -> Transaction | None:
    """The transaction that it used, as a driver asks."""
    watch = threads.watch()
    if watch is None:
        function()
        return None
    try:
        with watch:
            function()
    finally:
        used = watch.close()
    return used


async def used_by_async(function: Callable[[], Any]) -> Transaction | None:
    watch = await sync_to_async(threads.watch)()
    assert watch is not None
    with watch:
        await function()
    return await sync_to_async(watch.close)()


def in_thread(function: Callable[[], Any]) -> Any:
    """What it returns in another thread, which leaves no connection open."""
    answers: list[Any] = []

    def call() -> None:
        answers.append(function())
        connections.close_all()

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return answers[0]


# --- what counts -----------------------------------------------------------------------------------------------------


@real_database
def test_nothing_is_watched_outside_a_block():
    """Without an open transaction there is nothing to wait for."""
    query()
    assert threads.watch() is None


@real_database
def test_a_query_in_an_open_block_counts():
    """The function used the transaction that was open before it was called."""
    with transaction.atomic():
        assert used_by(query) is not None


@real_database
def test_a_function_that_asks_nothing_does_not_count():
    """That a transaction is open around it does not matter."""
    with transaction.atomic():
        assert used_by(lambda: None) is None


@real_database
def test_a_block_of_its_own_in_which_nothing_is_asked_does_not_count():
    """Savepoints alone touch no data."""

    def nested() -> None:
        with transaction.atomic():
            pass
        with pytest.raises(Rollback), transaction.atomic():
            raise Rollback

    with transaction.atomic():
        assert used_by(nested) is None


@real_database
def test_a_block_of_its_own_inside_an_open_one_counts_even_if_it_is_rolled_back():
    """It was in the outer transaction all the same."""

    def nested() -> None:
        with pytest.raises(Rollback), transaction.atomic():
            query()
            raise Rollback

    with transaction.atomic():
        assert used_by(nested) is not None


@real_database
def test_a_block_of_its_own_on_a_free_connection_does_not_count():
    """What it does there is committed by the time it returns."""

    def block() -> None:
        with transaction.atomic():
            query()

    assert used_by(block) is None


@real_database
def test_a_query_that_the_database_refuses_counts_and_raises():
    """Nothing of the database's errors is swallowed."""
    with pytest.raises(DatabaseError), transaction.atomic():
        watch = threads.watch()
        try:
            with watch, connection.cursor() as cursor:
                cursor.execute("SELECT * FROM nowhere")
        finally:
            assert watch.close() is not None


@real_database
def test_executemany_counts():
    """As any other way through a cursor does."""

    def many() -> None:
        with connection.cursor() as cursor:
            cursor.executemany("DELETE FROM auth_group WHERE id = %s", [[1], [2]])

    with transaction.atomic():
        assert used_by(many) is not None


@real_database
def test_a_query_between_two_calls_does_not_count():
    """The body of a workflow may ask what it likes."""
    with transaction.atomic():
        watch = threads.watch()
        query()
        with watch:
            pass
        query()
        assert watch.close() is None


@real_database
def test_a_query_of_an_inner_step_counts_for_the_outer_one_too():
    """The inner step is part of what the outer function does."""
    inner = []
    with transaction.atomic():
        outer = used_by(lambda: inner.append(used_by(query)))
    assert outer is not None
    assert inner[0] is not None


@real_database
def test_a_query_beside_an_inner_step_counts_for_the_outer_one_alone():
    """Before, and after."""
    inner = []

    def function() -> None:
        query()
        inner.append(used_by(lambda: None))
        query()

    with transaction.atomic():
        assert used_by(function) is not None
    assert inner == [None]


@real_database
def test_what_is_unwatched_does_not_count():
    """So that a cache that lies in the database can be asked for an inner step."""

    def function() -> None:
        with unwatched():
            query()

    with transaction.atomic():
        assert used_by(function) is None


@real_database
def test_a_query_in_another_thread_does_not_count():
    """It goes through a connection of its own, which is in no transaction."""
    with transaction.atomic():
        assert used_by(lambda: in_thread(query)) is None


@real_database
def test_another_thread_is_in_no_transaction():
    """There is nothing to watch there, whatever this one has open."""
    with transaction.atomic():
        assert in_thread(lambda: (query(), threads.watch())[1]) is None


@real_database
def test_the_connection_is_left_as_it_was():
    """Watching costs nothing once it is over."""
    with transaction.atomic():
        used_by(lambda: used_by(query))
        assert connection.execute_wrappers == []


@real_database
def test_a_wrapper_of_the_project_may_overlap():
    """Django takes away the last wrapper, and that has to be the project's."""
    seen = []

    def note(execute, sql, params, many, context):
        seen.append(sql)
        return execute(sql, params, many, context)

    with transaction.atomic():
        with connection.execute_wrapper(note):
            watch = threads.watch()
        with watch:
            query()
        assert watch.close() is not None
    assert seen == []
    assert connection.execute_wrappers == []


@real_database
def test_thousands_may_be_watched_at_once():
    """A query does not pass through as many functions."""
    with transaction.atomic():
        watches = [threads.watch() for _ in range(3000)]
        with watches[1500]:
            query()
        assert [index for index, watch in enumerate(watches) if watch.close()] == [1500]


@real_database
def test_a_transaction_managed_by_hand_does_not_count():
    """Django itself knows nothing of how it ends."""
    transaction.set_autocommit(False)
    try:
        assert used_by(query) is None
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


# --- how it ends -----------------------------------------------------------------------------------------------------


@real_database
def test_it_ends_with_the_commit(ends):
    """Not before it."""
    with transaction.atomic():
        ends.follow(used_by(query))
        assert ends == []
    assert ends == ["committed"]


@real_database
def test_it_ends_with_the_rollback(ends):
    """Which is told at once, and once."""
    with pytest.raises(Rollback), transaction.atomic():
        ends.follow(used_by(query))
        raise Rollback
    assert ends == ["lost"]


@real_database
def test_an_inner_block_that_is_released_waits_for_the_outer_one(ends):
    """Its data are committed with the outermost block."""
    with transaction.atomic():
        with transaction.atomic():
            ends.follow(used_by(query))
        assert ends == []
    assert ends == ["committed"]


@real_database
def test_an_inner_block_that_is_released_is_lost_with_the_outer_one(ends):
    """Whatever was said about the inner one."""
    with pytest.raises(Rollback), transaction.atomic():
        with transaction.atomic():
            ends.follow(used_by(query))
        assert ends == []
        raise Rollback
    assert ends == ["lost"]


@real_database
def test_an_inner_block_that_is_rolled_back_is_lost_at_once(ends):
    """What was used outside it stays."""
    with transaction.atomic():
        ends.follow(used_by(query), "outer")
        with pytest.raises(Rollback), transaction.atomic():
            ends.follow(used_by(query), "inner")
            raise Rollback
        assert ends == ["inner lost"]
    assert ends == ["inner lost", "outer committed"]


@real_database
def test_a_later_block_that_is_rolled_back_changes_nothing(ends):
    """It began after the step had ended."""
    with transaction.atomic():
        ends.follow(used_by(query))
        with pytest.raises(Rollback), transaction.atomic():
            query()
            raise Rollback
    assert ends == ["committed"]


@real_database
def test_a_block_of_the_function_that_is_rolled_back_changes_nothing(ends):
    """The function saw to that itself."""

    def function() -> None:
        with pytest.raises(Rollback), transaction.atomic():
            query()
            raise Rollback

    with transaction.atomic():
        ends.follow(used_by(function))
    assert ends == ["committed"]


@real_database
def test_a_block_without_savepoint_is_lost_with_the_one_around_it(ends):
    """Its failure spoils the outer block, which is rolled back in the end."""
    with transaction.atomic():
        with pytest.raises(Rollback), transaction.atomic(savepoint=False):
            ends.follow(used_by(query))
            raise Rollback
        assert ends == []
    assert ends == ["lost"]


@real_database
def test_a_spoilt_block_is_lost(ends):
    """Even if it was spoilt before the step's function ended."""

    def function() -> None:
        query()
        transaction.set_rollback(True)

    with transaction.atomic():
        ends.follow(used_by(function))
    assert ends == ["lost"]


@real_database
def test_a_durable_block_is_as_any_other(ends):
    """It is an outermost one."""
    with transaction.atomic(durable=True):
        ends.follow(used_by(query))
    assert ends == ["committed"]


@real_database
def test_a_commit_that_fails_is_a_rollback(ends):
    """A deferred constraint speaks up as late as that."""
    with pytest.raises(IntegrityError), transaction.atomic():
        ends.follow(used_by(lambda: Permission.objects.create(name="x", codename="x", content_type_id=10**6)))
    assert ends == ["lost"]


@real_database
def test_a_connection_that_is_closed_is_lost(ends):
    """The database rolls back by itself."""
    with transaction.atomic():
        ends.follow(used_by(query))
        connection.close()
        assert ends == ["lost"]
    assert ends == ["lost"]


@real_database
def test_a_connection_that_the_function_closed_is_lost(ends):
    """There is nothing left to wait for."""

    def function() -> None:
        query()
        connection.close()

    with transaction.atomic():
        ends.follow(used_by(function))
        assert ends == ["lost"]
    assert ends == ["lost"]


@real_database
def test_a_transaction_that_has_gone_is_lost(ends):
    """Asked too late, nobody can say how it ended."""
    with transaction.atomic():
        used = used_by(query)
    ends.follow(used)
    assert ends == ["lost"]


@real_database
def test_a_block_inside_a_transaction_managed_by_hand_ends_with_that(ends):
    """Which Django learns when autocommit is on again."""
    transaction.set_autocommit(False)
    try:
        with transaction.atomic():
            ends.follow(used_by(query))
        transaction.commit()
        assert ends == []
    finally:
        transaction.set_autocommit(True)
    assert ends == ["committed"]


@real_database
def test_a_block_inside_a_transaction_managed_by_hand_is_lost_with_that(ends):
    """Although the block itself was released."""
    transaction.set_autocommit(False)
    try:
        with transaction.atomic():
            used = used_by(query)
            ends.follow(used)
        assert used.is_here()
        transaction.rollback()
        assert ends == ["lost"]
    finally:
        transaction.set_autocommit(True)


@real_database
def test_it_is_told_before_the_callbacks_of_the_project(ends):
    """They may start what wants the results, in the order in which those were made."""
    with transaction.atomic():
        transaction.on_commit(lambda: ends.append("project"))
        for name in ("first", "second", "third"):
            ends.follow(used_by(query), name)
            transaction.on_commit(lambda: ends.append("project"))
    assert ends == ["first committed", "second committed", "third committed", *["project"] * 4]


@real_database
def test_a_callback_of_the_project_that_raises_changes_nothing(ends):
    """Django does not call what comes after it."""

    def fail() -> None:
        raise Rollback

    with pytest.raises(Rollback), transaction.atomic():
        transaction.on_commit(fail)
        ends.follow(used_by(query))
    assert ends == ["committed"]


@real_database
@pytest.mark.parametrize("commits", [True, False])
def test_what_raises_is_logged_and_stops_nobody(caplog, commits):
    """The user's commit is the user's, and so is the rollback."""

    def fail() -> None:
        raise ValueError("the cache is down")

    with caplog.at_level(logging.ERROR, "stepflows"), transaction.atomic():
        used_by(query).on_commit(fail, fail)
        Group.objects.create(name="kept")
        transaction.set_rollback(not commits)
    assert [(record.name, str(record.exc_info[1])) for record in caplog.records] == [("stepflows", "the cache is down")]
    assert Group.objects.filter(name="kept").exists() is commits


@real_database
def test_a_forked_process_loses_nothing(ends, monkeypatch):
    """It drops the connections that it inherited, and the transaction goes on in the process that began it."""
    with transaction.atomic():
        ends.follow(used_by(query))
        with monkeypatch.context() as patch:
            patch.setattr("stepflows.database.os.getpid", lambda here=os.getpid(): here + 1)
            connection.run_on_commit = []
    assert ends == []


@real_database
def test_two_databases_both_have_to_commit(ends, other):
    """It is told when the second one has."""
    with transaction.atomic():
        with transaction.atomic(using=other):
            ends.follow(used_by(query_both))
        assert ends == []
    assert ends == ["committed"]


@real_database
def test_of_two_databases_one_that_is_rolled_back_is_enough(ends, other):
    """Whether the other one has committed or will."""
    with transaction.atomic():
        with pytest.raises(Rollback), transaction.atomic(using=other):
            ends.follow(used_by(query_both), "early")
            raise Rollback
        assert ends == ["early lost"]
    with pytest.raises(Rollback), transaction.atomic():
        with transaction.atomic(using=other):
            ends.follow(used_by(query_both), "late")
        raise Rollback
    assert ends == ["early lost", "late lost"]


@real_database
def test_of_two_databases_only_those_used_count(ends, other):
    """The other one may end as it likes."""
    with transaction.atomic(), pytest.raises(Rollback), transaction.atomic(using=other):
        ends.follow(used_by(query))
        raise Rollback
    assert ends == ["committed"]


# --- who is inside ---------------------------------------------------------------------------------------------------


@real_database
def test_it_is_here_until_it_ends(ends):
    """Inner blocks make no difference."""
    with transaction.atomic():
        with transaction.atomic():
            used = used_by(query)
            assert used.is_here()
            ends.follow(used)
        assert used.is_here()
    assert not used.is_here()
    with transaction.atomic():
        assert not used.is_here()


@real_database
def test_it_is_not_here_once_it_is_lost(ends):
    """Although the outer block is open."""
    with transaction.atomic():
        with pytest.raises(Rollback), transaction.atomic():
            used = used_by(query)
            ends.follow(used)
            raise Rollback
        assert not used.is_here()


@real_database
def test_it_is_not_here_in_another_thread():
    """Whose connection would not see what it did."""
    with transaction.atomic():
        used = used_by(query)
        assert in_thread(lambda: (query(), used.is_here())[1]) is False
        assert used.is_here()


# --- in a test case --------------------------------------------------------------------------------------------------


@in_a_test_case
def test_the_blocks_of_a_test_case_do_not_count():
    """They are rolled back whatever happens."""
    assert used_by(query) is None


@in_a_test_case
@pytest.mark.parametrize("options", [{}, {"durable": True}], ids=["plain", "durable"])
def test_in_a_test_case_it_ends_with_the_outermost_block_of_the_test(ends, options):
    """As it would with the commit of that block elsewhere."""
    with transaction.atomic(**options):
        ends.follow(used_by(query), "outer")
        with transaction.atomic():
            used = used_by(query)
            ends.follow(used, "inner")
        assert ends == []
        assert used.is_here()
    assert ends == ["outer committed", "inner committed"]
    assert not used.is_here()
    assert connection.execute_wrappers == []
    assert connection.run_on_commit == []


@in_a_test_case
def test_in_a_test_case_a_rollback_is_told_at_once(ends):
    """Of an inner block, and of the outermost."""
    with pytest.raises(Rollback), transaction.atomic():
        ends.follow(used_by(query), "outer")
        with pytest.raises(Rollback), transaction.atomic():
            ends.follow(used_by(query), "inner")
            raise Rollback
        assert ends == ["inner lost"]
        raise Rollback
    assert ends == ["inner lost", "outer lost"]
    assert connection.execute_wrappers == []


@in_a_test_case
def test_in_a_test_case_blocks_end_one_by_one(ends):
    """One that is rolled back leaves nothing for the next."""
    with pytest.raises(Rollback), transaction.atomic():
        ends.follow(used_by(query), "first")
        raise Rollback
    with transaction.atomic():
        ends.follow(used_by(query), "second")
    assert ends == ["first lost", "second committed"]


@in_a_test_case
def test_in_a_test_case_a_block_without_savepoint_is_the_cases():
    """It cannot be rolled back without it."""
    with transaction.atomic(savepoint=False):
        assert used_by(query) is None


@in_a_test_case
def test_in_a_test_case_the_outermost_savepoint_counts(ends):
    """Inside a block that has none, and around one that has none."""
    with transaction.atomic(savepoint=False):
        with transaction.atomic(), transaction.atomic(savepoint=False):
            ends.follow(used_by(query))
            assert ends == []
        assert ends == ["committed"]


@in_a_test_case
def test_in_a_test_case_captured_callbacks_are_those_of_the_project(ends):
    """It is told once, and a test that counts its callbacks need not know of it."""
    with TestCase.captureOnCommitCallbacks(execute=True) as callbacks:
        with transaction.atomic():
            transaction.on_commit(lambda: ends.append("project"))
            ends.follow(used_by(query))
        assert ends == ["committed"]
    assert ends == ["committed", "project"]
    assert len(callbacks) == 1


@in_a_test_case
def test_in_a_test_case_captured_callbacks_may_be_executed_inside_the_block(ends):
    """Which is then taken for the commit, and still told once."""
    with transaction.atomic():
        with TestCase.captureOnCommitCallbacks(execute=True):
            ends.follow(used_by(query))
        assert ends == ["committed"]
    assert ends == ["committed"]


@in_a_test_case
def test_in_a_test_case_a_captured_callback_does_not_outlive_its_rollback(ends):
    """Whoever keeps it: what was rolled back is not committed by the next statement."""
    with pytest.raises(Rollback), transaction.atomic():
        with TestCase.captureOnCommitCallbacks() as callbacks:
            ends.follow(used_by(query))
        raise Rollback
    assert "committed" not in ends
    callbacks.clear()
    assert ends == ["lost"]


@in_a_test_case
def test_in_a_test_case_a_callback_of_the_project_need_not_be_hashable(ends):
    """Nor need it be a function."""

    class Callback:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self) -> None:
            ends.append("project")

    with TestCase.captureOnCommitCallbacks(execute=True), transaction.atomic():
        transaction.on_commit(Callback())
        ends.follow(used_by(query))
    assert ends == ["committed", "project"]


class TestWithData(TestCase):
    """The same with blocks around the class and around each test, as Django's runner makes them."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.used = used_by(query)

    def test_data_of_the_class_are_in_no_transaction_of_the_test(self) -> None:
        """They are made in the blocks of the test case."""
        assert self.used is None

    def test_a_block_ends(self) -> None:
        """With its savepoint."""
        ends = Ends()
        with transaction.atomic():
            ends.follow(used_by(query))
        assert ends == ["committed"]


# --- on an event loop ------------------------------------------------------------------------------------------------


@real_database
@pytest.mark.parametrize("commits", [True, False])
def test_an_async_function_uses_the_transaction_of_the_thread_that_waits(ends, commits):
    """Its queries are made in that thread."""

    async def main() -> None:
        used = await used_by_async(Group.objects.acount)
        assert used is not None
        assert not used.is_here()
        assert await sync_to_async(used.is_here)()
        await sync_to_async(ends.follow)(used)

    with transaction.atomic():
        async_to_sync(main)()
        assert ends == []
        transaction.set_rollback(not commits)
    assert ends == ["committed" if commits else "lost"]


@real_database
def test_async_functions_are_not_blamed_for_each_other():
    """They run at the same time on one connection."""

    async def main() -> None:
        begun, asked = asyncio.Event(), asyncio.Event()

        async def idle() -> None:
            begun.set()
            await asked.wait()

        async def ask() -> None:
            await begun.wait()
            await Group.objects.acount()
            asked.set()

        async def block() -> None:
            await begun.wait()
            await sync_to_async(transaction.atomic(query))()
            await asked.wait()

        used = await asyncio.gather(*map(used_by_async, [idle, ask, block]))
        assert [each is not None for each in used] == [False, True, True]

    with transaction.atomic():
        async_to_sync(main)()
        assert connection.execute_wrappers == []


@real_database
def test_what_async_functions_start_counts_for_them():
    """Tasks inherit what they are part of."""

    async def function() -> None:
        await asyncio.gather(asyncio.sleep(0), Group.objects.acount())

    with transaction.atomic():
        assert async_to_sync(used_by_async)(function) is not None
