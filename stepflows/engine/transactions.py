"""What a step did inside a transaction that is still open: how it is seen, and how its end is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Final, Protocol

__all__ = ["Transaction", "Watch", "unwatched", "watching"]


class Transaction(Protocol):
    """The open transaction, or transactions, in which a step's function used a database."""

    def on_commit(self, action: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """Have one of the two called, once. To be asked once, in the thread that has the transaction.

        ``action`` is called when all has been committed, in that thread. ``otherwise`` is called as soon as some of it
        has been rolled back or cannot be committed any more: mostly in that thread and at once, but a transaction that
        nobody ended is noticed wherever its remains are cleared away. It must not wait for anything.

        What either of them raises is logged and stops nobody.
        """

    def is_here(self) -> bool:
        """Whether the calling thread is inside this transaction: it is open, and is this thread's."""


class Watch:
    """Sees what one call of a step's function does. It is entered where the function runs, whatever thread that is.

    What a step inside the function does is seen by both watches.
    """

    def __enter__(self) -> None:
        self._token: Token[tuple[Watch, ...]] = watching.set((*watching.get(), self))

    def __exit__(self, *_: object) -> None:
        watching.reset(self._token)

    def saw(self, connection: object) -> None:
        """Something was done on this connection in a context that the watch was entered in."""
        raise NotImplementedError

    def close(self) -> Transaction | None:
        """End the watch and say what it saw. To be called once, in the thread in which the watch began."""
        raise NotImplementedError


#: The watches that what is done here counts for, outermost first. A task or a thread inherits them with its context.
watching: Final[ContextVar[tuple[Watch, ...]]] = ContextVar("stepflows_watching", default=())


@contextmanager
def unwatched() -> Iterator[None]:
    """What is done in here is not the step's: say, looking another step up in a cache that lies in the database."""
    token = watching.set(())
    try:
        yield
    finally:
        watching.reset(token)
