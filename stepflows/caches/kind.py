"""One kind of value that msgpack does not know: a code, and how it becomes bytes and a value again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

__all__ = ["Kind", "Unpack", "Writing", "items", "text"]


class Writing(Protocol):
    """One encoding under way, as the kinds see it."""

    #: The exceptions being written, outermost first, by id.
    open: list[int]
    #: Those of them whose attributes are being written, so that the reader has already made them.
    made: list[int]
    #: Leave out whatever is large in an exception.
    slim: bool

    def pack(self, value: Any) -> bytes:
        """The value as bytes. Raises :exc:`~stepflows.errors.NotCacheable` without a path."""


Unpack: TypeAlias = Callable[[bytes | memoryview], Any]


class Kind(NamedTuple):
    """How values of one kind are written and read; a ``read`` raises ``ValueError`` and its like for a bad body."""

    code: int
    write: Callable[[Any, Writing], bytes]
    read: Callable[[bytes, Unpack], Any]


def items(body: bytes, unpack: Unpack, count: int | None = None) -> list[Any]:
    """The list that a body must hold, of ``count`` items if that is given."""
    found = unpack(body)
    if type(found) is not list or (count is not None and len(found) != count):
        raise ValueError("an extension type has a body of the wrong shape")
    return found


def text(value: Any) -> str:
    """The string that a part of a body must be."""
    if type(value) is not str:
        raise ValueError("an extension type has a name that is no string")
    return value
