"""Leases that nobody wants any more, given back by the thread that renews the others."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from stepflows.caches.backend import Hold
from stepflows.caches.keeper import keeper
from stepflows.caches.names import Name

FIRST, SECOND = Hold(Name("w", "first"), "token"), Hold(Name("w", "second"), "token")


class Slow:
    """A backend during whose first answer somebody else abandons another lease."""

    title = "slow cache"

    def __init__(self) -> None:
        self.ended = threading.Event()

    def release(self, holds: Sequence[Hold]) -> None:
        if FIRST in holds:
            keeper.abandon(self, [SECOND])
        else:
            self.ended.set()


def test_a_lease_that_is_abandoned_while_another_is_given_back_is_given_back_too():
    """Soon, and not when the thread next happens to wake up."""
    backend = Slow()
    keeper.abandon(backend, [FIRST])
    assert backend.ended.wait(5)
