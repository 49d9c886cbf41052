"""What Django's database connections ask of the threads that run steps, and tell about their transactions."""

# ruff: noqa: SLF001 - that a block is a test case's own is told nowhere else

from __future__ import annotations

import os
import sys
from bisect import bisect
from collections.abc import Callable, Sequence
from typing import Any, Final

from django.core.cache import caches
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from stepflows import conf
from stepflows.engine.context import logger
from stepflows.engine.policy import is_interrupt
from stepflows.engine.threads import Threads
from stepflows.engine.transactions import Transaction, Watch, watching

__all__ = ["DjangoThreads"]

#: What Django says at the edges of a nested block. It touches no data.
_EDGES: Final = ("SAVEPOINT ", "RELEASE SAVEPOINT ", "ROLLBACK TO SAVEPOINT ")


class DjangoThreads(Threads):
    """Stay in the thread of an open transaction; leave no connection, nor a cache's, behind in other threads."""

    def max_workers(self) -> int:
        return conf.settings().MAX_WORKERS

    def pinned(self) -> bool:
        if not conf.is_configured():
            return False
        return any(connection.in_atomic_block for connection in connections.all(initialized_only=True))

    def finished(self) -> None:
        if conf.is_configured():
            connections.close_all()
            caches.close_all()

    def watch(self) -> Watch | None:
        """Watch this thread's connections that are inside :func:`~django.db.transaction.atomic`, if there are any.

        The blocks that Django's ``TestCase`` wraps around tests do not count, nor does a block right inside them that
        has no savepoint (``atomic(savepoint=False)``): it stands or falls with theirs. Where a project manages
        transactions by hand, with autocommit off, what is outside ``atomic()`` cannot be followed and does not count,
        and what is inside counts as committed when Django calls its own callbacks, with autocommit on again.
        """
        if not conf.is_configured():
            return None
        inside = [connection for connection in connections.all(initialized_only=True) if _is_inside(connection)]
        return _ConnectionsWatch(inside) if inside else None


class _ConnectionsWatch(Watch):
    def __init__(self, inside: Sequence[BaseDatabaseWrapper]) -> None:
        self._ears = {connection: _Ear.on(connection) for connection in inside}
        self._used: set[BaseDatabaseWrapper] = set()
        for ear in self._ears.values():
            ear.watches += 1

    def saw(self, connection: Any) -> None:
        # Others were in no transaction: what the function did there is committed by the time it returns.
        if connection in self._ears:
            self._used.add(connection)

    def close(self) -> Transaction | None:
        for connection, ear in self._ears.items():
            ear.watches -= 1
            ear.leave_if_idle(connection)
        return _OpenTransaction(self._used) if self._used else None


class _Ear:
    """The one execute wrapper that a connection has while somebody wants to know what is executed on it.

    One for all watches, because every wrapper is a level of recursion, and thousands of steps may run at once.
    """

    def __init__(self) -> None:
        self.watches = 0
        #: By the statement that releases it: the savepoint whose release is what a commit is elsewhere.
        self.releases: dict[Any, str] = {}

    @classmethod
    def on(cls, connection: BaseDatabaseWrapper) -> _Ear:
        ear = next((each for each in connection.execute_wrappers if isinstance(each, cls)), None)
        if ear is None:
            ear = cls()
            # Not at the end: Django's execute_wrapper() takes away whatever is the last.
            connection.execute_wrappers.insert(0, ear)
        return ear

    def leave_if_idle(self, connection: BaseDatabaseWrapper) -> None:
        if not self.watches and not self.releases and self in connection.execute_wrappers:
            connection.execute_wrappers.remove(self)

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: Any, context: dict[str, Any]) -> Any:
        connection = context["connection"]
        at_an_edge = isinstance(sql, str) and sql.startswith(_EDGES)
        if not at_an_edge:
            for watch in watching.get():
                watch.saw(connection)
        answer = execute(sql, params, many, context)
        if at_an_edge and sql in self.releases:
            _commit(connection, self.releases.pop(sql))
            self.leave_if_idle(connection)
        return answer


class _OpenTransaction:
    """The transactions, one to a connection, that a step's function used."""

    def __init__(self, used: set[BaseDatabaseWrapper]) -> None:
        self._used = used
        self._uncommitted = set(used)
        self._settled = False

    def on_commit(self, action: Callable[[], None], otherwise: Callable[[], None]) -> None:
        self._action, self._otherwise = action, otherwise
        for connection in self._used:
            if connection.closed_in_transaction or not _is_inside(connection):
                self.dropped(connection)
            else:
                _register(connection, _Hook(self, connection))

    def is_here(self) -> bool:
        here = connections.all(initialized_only=True)
        return not self._settled and all(connection in here for connection in self._used)

    def committed(self, connection: BaseDatabaseWrapper) -> None:
        self._uncommitted.discard(connection)
        if not self._uncommitted:
            self._settle(self._action)

    def dropped(self, connection: BaseDatabaseWrapper) -> None:
        if connection in self._uncommitted:
            self._settle(self._otherwise)

    def _settle(self, call: Callable[[], None]) -> None:
        if self._settled:
            return
        self._settled = True
        try:
            call()
        except Exception as error:
            if is_interrupt(error):
                raise
            logger.exception("The end of a transaction could not be acted on by %r", call)


class _Hook:
    """Called when a connection has committed. If it is dropped before that, there was a rollback, or a close.

    Django tells nobody, but it forgets what was to be called on commit, and nobody else knows this object.
    """

    def __init__(self, transaction: _OpenTransaction, connection: BaseDatabaseWrapper) -> None:
        self._transaction = transaction
        self._connection = connection
        self._process = os.getpid()

    def __call__(self) -> None:
        self._transaction.committed(self._connection)

    def __del__(self) -> None:
        # A forked process drops the connections that it inherited; the transaction goes on in the other one.
        if self._process == os.getpid() and not sys.is_finalizing():
            self._transaction.dropped(self._connection)


def _is_inside(connection: BaseDatabaseWrapper) -> bool:
    if not connection.atomic_blocks:
        return False
    return not _is_of_a_case(connection.atomic_blocks[0]) or _savepoint_of_test(connection) is not None


def _is_of_a_case(block: Any) -> bool:
    """Whether it is one that Django's ``TestCase`` opens around tests, and rolls back after them."""
    return bool(block._from_testcase)


def _savepoint_of_test(connection: BaseDatabaseWrapper) -> str | None:
    """The savepoint of the outermost block that is the test's own rather than its case's."""
    sids: Sequence[str | None] = connection.savepoint_ids
    # The block that begins a transaction has no savepoint.
    blocks = connection.atomic_blocks[-len(sids) :]
    return next((sid for block, sid in zip(blocks, sids, strict=False) if sid and not _is_of_a_case(block)), None)


def _register(connection: BaseDatabaseWrapper, hook: _Hook) -> None:
    connection.on_commit(hook)
    if _is_of_a_case(connection.atomic_blocks[0]):
        # A case's transaction is never committed.
        sid = str(_savepoint_of_test(connection))
        _Ear.on(connection).releases[connection.ops.savepoint_commit_sql(sid)] = sid
        return
    # Ahead of the project's own callbacks: they may start what wants the step's result, and where one of them raises,
    # those after it are not called.
    waiting = connection.run_on_commit
    place = bisect(waiting, False, hi=len(waiting) - 1, key=lambda entry: not isinstance(entry[1], _Hook))
    waiting.insert(place, waiting.pop())


def _commit(connection: BaseDatabaseWrapper, sid: str) -> None:
    """What a commit does with the hooks that were registered inside the savepoint."""

    def is_meant(entry: Any) -> bool:
        return isinstance(entry[1], _Hook) and sid in entry[0]

    waiting: list[Any] = connection.run_on_commit
    hooks = [entry[1] for entry in waiting if is_meant(entry)]
    # Nor are they for captureOnCommitCallbacks() to find.
    connection.run_on_commit = [entry for entry in waiting if not is_meant(entry)]
    for hook in hooks:
        hook()
