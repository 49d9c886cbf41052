"""What bodies are given as their second argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Dependencies"]


class Dependencies:
    """A mapping read by attribute. It is looked into at each use, so a test may replace what is in it."""

    __slots__ = ("_mapping",)

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        self._mapping = mapping

    def __getattr__(self, name: str) -> Any:
        if name == "_mapping":
            # A copy that is being made does not have it yet.
            raise AttributeError(name)
        try:
            return self._mapping[name]
        except KeyError:
            known = ", ".join(map(str, self._mapping)) or "none"
            raise AttributeError(f"The workflow has no dependency {name!r}. Its deps are: {known}.") from None

    def __getitem__(self, name: str) -> Any:
        return self._mapping[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping)
