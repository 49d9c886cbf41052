"""How an entry lies in its bytes.

::

    magic (4)  format (1)  flags (1)  length of the header (4)
    0x92                                     a msgpack array of two:
    header   [label, stored_at, duration, run_id, expires_at, scope, key, length of the payload]
    payload  value, or [error, cause]
    CRC-32 of all the above (4)
    HMAC-SHA256 of all the above (32)        if signed

The header comes first, so that a listing reads the beginning of an entry and not its value.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from struct import Struct
from typing import Any, Final, NamedTuple
from zlib import crc32

from stepflows.caches.signing import Signer
from stepflows.caches.wire import pack_plain
from stepflows.engine.cache import Damaged
from stepflows.errors import DamagedEntry, InvalidUse
from stepflows.results import Stamp

__all__ = [
    "HEADER_AT",
    "OK",
    "OWN_CAUSE",
    "PAIR",
    "Head",
    "Truncated",
    "as_bytes",
    "check_header",
    "framed",
    "intact",
    "prefix",
    "stamp_of",
    "write_header",
]

#: 0xC1 is the one byte that msgpack never uses; neither pickle, JSON nor zlib begin with it.
_MAGIC: Final = b"\xc1sf\n"
_FORMAT: Final = 1
# The flags.
OK: Final = 1
SIGNED: Final = 2
#: The cause of an error is its own __cause__, and so not written twice.
OWN_CAUSE: Final = 4
_PREFIX: Final = Struct(">4sBBI")
_CRC: Final = Struct(">I")
PAIR: Final = b"\x92"
HEADER_AT: Final = _PREFIX.size + len(PAIR)
#: Label, key, scope and run id at their longest fit; a claim of more must not make a listing read it.
_MAX_HEADER: Final = 32 * 1024

_TIMES = (float, int)
_HEADER_SHAPES: Final = frozenset(
    (str, stored, duration, str, expires, str, str, int)
    for stored, duration, expires in product(_TIMES, _TIMES, (*_TIMES, type(None)))
)


class Head(NamedTuple):
    """What an entry says of itself; only :meth:`Codec.decode` finds out whether it is damaged or forged."""

    scope: str
    key: str
    ok: bool
    stamp: Stamp
    #: Bytes that the value takes.
    size: int


@dataclass(frozen=True, slots=True)
class Truncated(Damaged):
    """These first bytes do not hold the whole head, which takes ``size`` bytes."""

    size: int


def framed(flags: int, header: bytes, payload: bytes, signer: Signer | None) -> bytes:
    """The whole entry."""
    if signer:
        flags |= SIGNED
    data = _PREFIX.pack(_MAGIC, _FORMAT, flags, len(header)) + PAIR + header + payload
    data += _CRC.pack(crc32(data))
    return data + signer.sign(data) if signer else data


def intact(data: object, signer: Signer | None) -> tuple[int, int, memoryview]:
    """The flags, the length of the header, and header and payload as one msgpack array, if nothing is damaged."""
    entry = data if type(data) is bytes else as_bytes(data)
    flags, size = prefix(entry)
    whole, end = memoryview(entry), len(entry)
    if flags & SIGNED:
        end -= Signer.SIZE
        if signer and not (end > 0 and signer.verifies(whole[:end], whole[end:])):
            raise DamagedEntry("its signature is not of this site's SECRET_KEY or SECRET_KEY_FALLBACKS")
    elif signer:
        raise DamagedEntry("it is not signed")
    end -= _CRC.size
    if end < HEADER_AT or crc32(whole[:end]) != _CRC.unpack_from(entry, end)[0]:
        raise DamagedEntry("its checksum is wrong")
    return flags, size, whole[_PREFIX.size : end]


def as_bytes(data: object) -> bytes:
    """The entry, if it is bytes of any kind."""
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise DamagedEntry(f"it is no bytes but {type(data).__qualname__}")


def prefix(entry: bytes) -> tuple[int, int]:
    """The flags and the length of the header."""
    if len(entry) < HEADER_AT or not entry.startswith(_MAGIC):
        raise DamagedEntry("it is no entry of stepflows")
    _, version, flags, size = _PREFIX.unpack_from(entry)
    if version != _FORMAT:
        newer = "newer" if version > _FORMAT else "other"
        raise DamagedEntry(f"format {version} is {newer} than the {_FORMAT} that this version of stepflows reads")
    if flags > OK + SIGNED + OWN_CAUSE or size > _MAX_HEADER or entry[_PREFIX.size] != PAIR[0]:
        raise DamagedEntry("its head makes no sense")
    return flags, size


def stamp_of(header: Any, size: int, length: int, scope: str, key: str) -> Stamp:
    """The stamp in a header, if that is whole and of the scope and key asked for."""
    check_header(header)
    if len(PAIR) + size + header[7] != length:
        raise DamagedEntry("its lengths do not add up")
    if (key and (header[6] != key or header[5] != scope)) or (scope and header[5] != scope):
        raise DamagedEntry(f"it belongs to another key, {header[6]!r} of {header[5]!r}")
    return Stamp._make(header[:5])


def check_header(header: Any) -> None:
    """Raise unless it is a header."""
    if type(header) is not list or tuple(map(type, header)) not in _HEADER_SHAPES:
        raise DamagedEntry("its header is of the wrong shape")


def write_header(stamp: Stamp, scope: str, key: str, length: int) -> bytes:
    """The header. Raises :exc:`InvalidUse` for what belongs into none."""
    # A key may be a member of a StrEnum, say; in an entry it is text.
    fields = [str.__str__(part) if isinstance(part, str) else part for part in (*stamp, scope, key, length)]
    if tuple(map(type, fields)) not in _HEADER_SHAPES:
        raise InvalidUse(
            f"A result for a cache needs a stamp of texts and numbers and a scope and key that are str, not {fields}."
        )
    header = pack_plain(fields)
    if len(header) > _MAX_HEADER:
        raise InvalidUse(f"Label, key, scope and run id take {len(header):,} bytes, more than {_MAX_HEADER:,}.")
    return header
