"""How an entry lies in its bytes.

::

    magic (4)  format (1)  flags (1)  length of the header (2)  length of the payload (8)
    header   msgpack: [label, stored_at, duration, run_id, expires_at, scope, key]
    payload  msgpack: value, or [error, cause], or [error] where the cause is the error's own
    CRC-32 of all the above (4)
    HMAC-SHA256 of all the above (32)        if signed

The header comes first, so that a listing reads the beginning of an entry and not its value.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from struct import Struct
from typing import Any, Final, NamedTuple
from zlib import crc32

from msgpack import packb, unpackb  # type: ignore[import-untyped,unused-ignore]

from stepflows.engine.cache import Damaged
from stepflows.errors import DamagedEntry, InvalidUse
from stepflows.results import Stamp

__all__ = ["OK", "Head", "Signer", "Truncated", "check_place", "framed", "head_of", "opened"]

#: 0xC1 is the one byte that msgpack never uses; neither pickle, JSON nor zlib begin with it.
_MAGIC: Final = b"\xc1sf\n"
_FORMAT: Final = 1
OK: Final = 1
_SIGNED: Final = 2
_PREFIX: Final = Struct(">4sBBHQ")
_CRC: Final = Struct(">I")
_SMALL: Final = 4096
#: What two bytes can tell. A claim of more must not make a listing read it.
_MAX_HEADER: Final = 0xFFFF
_TIME = (float, int)
#: The parts of a header. What claims more must not make room for it.
_PARTS: Final = 7
_HEADER_SHAPES: Final = frozenset(
    (str, stored, duration, str, expires, str, str)
    for stored, duration, expires in product(_TIME, _TIME, (*_TIME, type(None)))
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


class Signer:
    """Signs with one key (Django's ``SECRET_KEY``) and accepts what that key or one of the fallbacks signed.

    So nobody who can only write to the cache server can forge an entry.
    """

    SIZE: Final = 32

    def __init__(self, key: str | bytes, fallbacks: Iterable[str | bytes] = ()) -> None:
        keys = [each.encode() if isinstance(each, str) else each for each in (key, *fallbacks)]
        # Salted, so that a signature made for another purpose with the same key is none here.
        self._keys = [hmac.digest(b"stepflows.caches.entry", each, sha256) for each in keys]

    def sign(self, data: bytes) -> bytes:
        """The signature of the data."""
        return hmac.digest(self._keys[0], data, sha256)

    def verifies(self, data: bytes | memoryview, signature: bytes | memoryview) -> bool:
        """Whether the signature is one of ours for the data."""
        return any(hmac.compare_digest(hmac.digest(key, data, sha256), signature) for key in self._keys)


def framed(flags: int, head: tuple[Any, ...], payload: bytes, signer: Signer | None) -> bytes:
    """The whole entry. Raises :exc:`InvalidUse` for what belongs into no header."""
    # A key may be a member of a StrEnum, say; in an entry it is text.
    fields = [str.__str__(part) if isinstance(part, str) else part for part in head]
    if tuple(map(type, fields)) not in _HEADER_SHAPES:
        raise InvalidUse(f"A result for a cache needs a stamp of texts and numbers, and str as scope and key: {head}.")
    header: bytes = packb(fields, unicode_errors="surrogatepass")
    if len(header) > _MAX_HEADER:
        raise InvalidUse(f"Label, key, scope and run id take {len(header):,} bytes, more than {_MAX_HEADER:,}.")
    if signer:
        flags |= _SIGNED
    data = _PREFIX.pack(_MAGIC, _FORMAT, flags, len(header), len(payload)) + header + payload
    data += _CRC.pack(crc32(data))
    return data + signer.sign(data) if signer else data


def opened(data: object, signer: Signer | None) -> tuple[int, list[Any], bytes | memoryview]:
    """Flags, header and payload, if nothing is damaged or forged. Raises ``ValueError`` and its like."""
    entry = data if type(data) is bytes else _as_bytes(data)
    flags, middle, end = _prefix(entry)
    # To copy a little takes less than to make a view of it.
    whole: bytes | memoryview = entry if end < _SMALL else memoryview(entry)
    signed = end + _CRC.size
    if len(entry) != (signed + Signer.SIZE if flags & _SIGNED else signed):
        raise DamagedEntry("its lengths do not add up")
    if signer:
        _verify(signer, flags, whole, signed)
    if crc32(whole[:end]) != _CRC.unpack_from(entry, end)[0]:
        raise DamagedEntry("its checksum is wrong")
    return flags, _header(entry, middle), whole[middle:end]


def _verify(signer: Signer, flags: int, whole: bytes | memoryview, signed: int) -> None:
    if not flags & _SIGNED:
        raise DamagedEntry("it is not signed")
    if not signer.verifies(whole[:signed], whole[signed:]):
        raise DamagedEntry("its signature is not of this site's SECRET_KEY or SECRET_KEY_FALLBACKS")


def head_of(data: object) -> Head | Truncated:
    """The head in the first bytes of an entry. Raises ``ValueError`` and its like."""
    entry = _as_bytes(data)
    flags, middle, end = _prefix(entry)
    if len(entry) < middle:
        return Truncated(f"its head takes {middle} bytes, of which {len(entry)} are given", middle)
    header = _header(entry, middle)
    return Head(header[5], header[6], bool(flags & OK), Stamp._make(header[:5]), end - middle)


def check_place(header: list[Any], scope: str, key: str) -> None:
    """Raise if the entry is of another scope or key than asked for; an empty one asks for none."""
    _, _, _, _, _, own_scope, own_key = header
    if (key and (own_key != key or own_scope != scope)) or (scope and own_scope != scope):
        raise DamagedEntry(f"it belongs to another key, {own_key!r} of {own_scope!r}")


def _as_bytes(data: object) -> bytes:
    if type(data) is bytes:
        return data
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise DamagedEntry(f"it is no bytes but {type(data).__qualname__}")


def _prefix(entry: bytes) -> tuple[int, int, int]:
    """The flags, and where header and payload end."""
    if len(entry) < _PREFIX.size:
        raise DamagedEntry("it is no entry of stepflows")
    magic, version, flags, header, payload = _PREFIX.unpack_from(entry)
    if magic != _MAGIC:
        raise DamagedEntry("it is no entry of stepflows")
    if version != _FORMAT:
        newer = "newer" if version > _FORMAT else "other"
        raise DamagedEntry(f"format {version} is {newer} than the {_FORMAT} that this version of stepflows reads")
    if flags > OK + _SIGNED:
        raise DamagedEntry("its head makes no sense")
    middle = _PREFIX.size + header
    return flags, middle, middle + payload


def _header(entry: bytes, end: int) -> list[Any]:
    header = unpackb(entry[_PREFIX.size : end], unicode_errors="surrogatepass", max_array_len=_PARTS)
    if type(header) is not list or tuple(map(type, header)) not in _HEADER_SHAPES:
        raise DamagedEntry("its header is of the wrong shape")
    return header
