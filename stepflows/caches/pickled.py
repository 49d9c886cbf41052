"""Take plain bytes, or a time of expiry, out of a pickle without unpickling.

Django's own backends pickle what they are given. Stepflows gives them ``bytes``, whose pickle is a header, a length,
the bytes and an end; anything else in that place is not ours, and is not loaded to find out what it is.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

__all__ = ["Expiry", "expiry", "plain_bytes", "plain_start"]

# PROTO 3 to 5, perhaps FRAME, then SHORT_BINBYTES, BINBYTES or BINBYTES8.
_START = re.compile(rb"\x80[\x03-\x05](?:\x95.{8})?(?:C(.)|B(.{4})|\x8e(.{8}))", re.DOTALL)
# Perhaps FRAME; MEMOIZE, BINPUT or LONG_BINPUT, perhaps none; STOP.
_END = re.compile(rb"(?:\x95.{8})?(?:\x94|q.|r.{4})?\.", re.DOTALL)
# PROTO, perhaps FRAME, then None or a float.
_EXPIRY = re.compile(rb"(?:\x80[\x02-\x05])?(?:\x95.{8})?(?:N|G(.{8}))\.", re.DOTALL)


class Expiry(NamedTuple):
    """When a file of Django's file cache expires (seconds since the epoch, ``None`` is never), and how long that is."""

    at: float | None
    size: int


def plain_bytes(pickle: bytes) -> bytes | None:
    """The bytes object that was pickled, or ``None`` when it was something else."""
    found = _START.match(pickle)
    if found is None:
        return None
    end = found.end() + _length(found)
    return pickle[found.end() : end] if _END.fullmatch(pickle, end) else None


def plain_start(pickle: bytes) -> bytes | None:
    """The first bytes of a bytes object, of whose pickle only the beginning is there."""
    found = _START.match(pickle)
    return pickle[found.end() : found.end() + _length(found)] if found else None


def expiry(data: bytes) -> Expiry | None:
    """The time with which a file of Django's file cache begins, or ``None`` when there is no such thing."""
    found = _EXPIRY.match(data)
    if found is None:
        return None
    packed = found[1]
    return Expiry(struct.unpack(">d", packed)[0] if packed else None, found.end())


def _length(found: re.Match[bytes]) -> int:
    return int.from_bytes(found[1] or found[2] or found[3], "little")
