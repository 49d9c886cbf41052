"""Results of steps that used an open transaction: known here, and stored when it commits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from stepflows.engine.cache import Busy, Entry
from stepflows.engine.transactions import Transaction
from stepflows.results import Result

__all__ = ["Deferral", "is_any_here", "is_deferred", "result_here"]

_deferrals: Final[dict[tuple[str, str], Deferral]] = {}


class Deferral:
    """Stands when all its transactions have committed, and is forgotten when one of them rolls back."""

    def __init__(
        self,
        transactions: Sequence[Transaction],
        entry: Entry,
        committed: Callable[[], Any],
        forgotten: Callable[[], Any],
    ) -> None:
        self.result: Result[Any] = entry.result
        self._transactions = transactions
        self._actions = committed, forgotten
        self._open = len(transactions)
        # Reentrant, because a rollback may be noticed by the garbage collector.
        self._lock = threading.RLock()
        self._place = (entry.lease.token, entry.key) if entry.lease else None

    def is_here(self) -> bool:
        """Whether the calling thread is inside its transactions."""
        return all(transaction.is_here() for transaction in self._transactions)

    def begin(self) -> None:
        """To be called in the thread of the transactions."""
        if self._place:
            _deferrals[self._place] = self
        for transaction in self._transactions:
            transaction.on_commit(self._committed, self._forgotten)

    def _committed(self) -> None:
        with self._lock:
            self._open -= 1
            last = self._open == 0
        if last:
            self._end(self._actions[0])

    def _forgotten(self) -> None:
        with self._lock:
            first, self._open = self._open > 0, -1
        if first:
            self._end(self._actions[1])

    def _end(self, action: Callable[[], Any]) -> None:
        try:
            action()
        finally:
            if self._place:
                _deferrals.pop(self._place, None)
            # They know each other; a lease must not wait for the garbage collector.
            self._transactions = ()
            self._actions = (_nothing, _nothing)


def _nothing() -> None:
    """It has ended."""


def is_any_here() -> bool:
    """Whether the calling thread is inside a transaction for whose commit a result waits."""
    return any(deferral.is_here() for deferral in list(_deferrals.values()))


def is_deferred(busy: Busy, key: str) -> bool:
    """Whether a result waits under this lease, in this process, for a commit."""
    return (busy.token, key) in _deferrals


def result_here(busy: Busy, key: str) -> Result[Any] | None:
    """What waits under this lease for the commit of a transaction that the calling thread is inside of, if anything."""
    found = _deferrals.get((busy.token, key))
    return found.result if found and found.is_here() else None
