"""Where an exception was raised, kept beside it for people to read. Nothing is rebuilt of it."""

from __future__ import annotations

from collections import deque
from traceback import walk_tb
from typing import Any, Final

from msgpack import ExtType, unpackb  # type: ignore[import-untyped,unused-ignore]

from stepflows.caches.codec.lengths import check_lengths

__all__ = ["origin_in", "origin_of"]

#: The innermost ones.
_MOST_FRAMES: Final = 5
_MAX_TEXT: Final = 300

# The C descriptor itself: a class may have given this name another meaning.
_traceback: Final = BaseException.__dict__["__traceback__"]


def origin_of(error: BaseException) -> list[str]:
    """The last calls that led to it, innermost last; none for what was never raised."""
    frames = deque(walk_tb(_traceback.__get__(error)), _MOST_FRAMES)
    return [_place(frame.f_code.co_filename, line, frame.f_code.co_qualname) for frame, line in frames]


def origin_in(payload: bytes | memoryview, place: int) -> list[str]:
    """The same, as it stands at a place among the parts of the first thing in a payload. Raises ``ValueError`` etc."""
    first, *_ = _plain(payload)
    parts = _plain(first.data) if type(first) is ExtType else []
    return [str(line) for line in parts[place]] if len(parts) > place else []


def _place(file: str, line: int, function: str) -> str:
    return f"{file[-_MAX_TEXT:]}:{line} {function[:_MAX_TEXT]}"


def _plain(data: bytes | memoryview) -> list[Any]:
    check_lengths(data)
    found = unpackb(data, strict_map_key=False, unicode_errors="surrogatepass")
    return found if type(found) is list else [found]
