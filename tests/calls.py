"""Functions that count how often they were called."""

from __future__ import annotations

from typing import Any


class Calls:
    """Returns, raises or computes something, and counts."""

    def __init__(self, outcome: Any = None, *, raises: bool = False) -> None:
        self.outcome = outcome
        self.raises = raises
        self.count = 0

    def __call__(self, *args: Any) -> Any:
        self.count += 1
        if self.raises:
            raise self.outcome
        return self.outcome(*args) if callable(self.outcome) else self.outcome
