"""Whether bytes hold as much as they say."""

from __future__ import annotations

from typing import Final

from msgpack import OutOfData, Unpacker  # type: ignore[import-untyped,unused-ignore]

__all__ = ["check_lengths"]

#: Bytes below which no claim of theirs takes much.
_HARMLESS: Final = 1024


def check_lengths(data: bytes | memoryview) -> None:
    """Raise ``ValueError`` unless all that these bytes of msgpack claim to hold is there.

    A list says how long it is, and many a version of the library makes room for that before it looks: lists in lists
    would make it take hundreds of times their size. Leaping over everything is quick, and makes nothing.
    """
    if len(data) <= _HARMLESS:
        return
    unpacker = Unpacker(read_size=1, max_buffer_size=len(data))
    unpacker.feed(data)
    try:
        unpacker.skip()
    except OutOfData as exc:
        raise ValueError("it claims to hold more than it does") from exc
