"""Asking a run to end, from outside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

__all__ = ["Cancellation"]

#: Seconds after which somebody who pauses looks whether the run was called off.
_NAP: Final = 0.25


class Cancellation:
    """Once requested, a run ends at its next operation. What its functions are at is not torn apart, and is stored."""

    __slots__ = ("requested",)

    def __init__(self) -> None:
        self.requested = False

    def request(self) -> None:
        """From any thread."""
        self.requested = True

    def naps(self, seconds: float) -> Iterator[float]:
        """A pause in pieces, cut short once this is requested."""
        end = time.monotonic() + seconds
        left = seconds
        while left > 0 and not self.requested:
            yield min(left, _NAP)
            left = end - time.monotonic()
