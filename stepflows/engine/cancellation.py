"""Asking a run to end, from outside."""

from __future__ import annotations

__all__ = ["Cancellation"]


class Cancellation:
    """Once requested, a run ends at its next operation. What its functions are at is not torn apart, and is stored."""

    __slots__ = ("requested",)

    def __init__(self) -> None:
        self.requested = False

    def request(self) -> None:
        """From any thread."""
        self.requested = True
