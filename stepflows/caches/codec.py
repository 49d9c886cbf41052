"""An entry: a result with its stamp as bytes, and back.

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

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Any, Final, NamedTuple
from zlib import crc32

from django.conf import ENVIRONMENT_VARIABLE
from django.conf import settings as django_settings
from django.core.signals import setting_changed

from stepflows import conf
from stepflows.caches.exceptions import cause_of, keep_or_text
from stepflows.caches.refusal import located
from stepflows.caches.signing import Signer
from stepflows.caches.wire import Writer, pack_plain, unpack
from stepflows.engine.cache import Damaged
from stepflows.errors import ClassNotLoaded, DamagedEntry, InvalidUse, NotCacheable
from stepflows.results import Err, Ok, Result, Stamp

__all__ = ["Codec", "Head", "Signer", "Truncated", "current_codec", "dumps", "loads"]

#: 0xC1 is the one byte that msgpack never uses; neither pickle, JSON nor zlib begin with it.
_MAGIC: Final = b"\xc1sf\n"
_FORMAT: Final = 1
_OK, _SIGNED, _OWN_CAUSE = 1, 2, 4
_PREFIX: Final = Struct(">4sBBI")
_CRC: Final = Struct(">I")
_PAIR: Final = b"\x92"
_HEADER_AT: Final = _PREFIX.size + len(_PAIR)
#: Label, key, scope and run id at their longest fit; a claim of more must not make a listing read it.
_MAX_HEADER: Final = 32 * 1024

_TIMES = (float, int)
_HEADER_SHAPES: Final = frozenset(
    (str, stored, duration, str, expires, str, str, int)
    for stored, duration, expires in product(_TIMES, _TIMES, (*_TIMES, type(None)))
)

#: What reading bad bytes raises. Not Exception: the time limit of a task may strike here, and must not look like an
#: entry that is missing, whose step would then run again.
_UNREADABLE: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    StructError,
)

_UNHASHABLE: Final = re.compile(r"unhashable type: '(\w+)'")


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


@dataclass(frozen=True)
class Codec:
    """Entries of at most ``max_bytes``, signed and checked by ``signer`` if there is one."""

    max_bytes: int | None = None
    signer: Signer | None = None

    def encode(self, result: Result[Any], scope: str = "", key: str = "") -> bytes:
        """The entry for a result. Raises :exc:`~stepflows.errors.NotCacheable`."""
        data = self._entry(result, scope, key, slim=False)
        if self._is_too_large(data) and isinstance(result, Err) and isinstance(result.error, BaseException):
            data = self._entry(result, scope, key, slim=True)
        if self._is_too_large(data):
            raise NotCacheable(
                f"it takes {len(data):,} bytes and the limit is {self.max_bytes:,}",
                remedy="Return less, such as where the data lies, or raise STEPFLOWS['MAX_VALUE_BYTES'].",
            )
        return data

    def decode(self, data: object, scope: str = "", key: str = "") -> Ok[Any] | Err | Damaged:
        """The result in an entry, whatever the bytes are.

        With a ``key``, an entry of another scope or key is damaged. A value whose class is not loaded here is an
        ``Err`` with :exc:`~stepflows.errors.ClassNotLoaded`: the entry is intact, and its step is done.
        """
        try:
            flags, size, body = self._intact(data)
            absent: ClassNotLoaded | None = None
            try:
                header, value = unpack(body)
            except (ClassNotLoaded, TypeError) as exc:
                absent, value = _absent(exc), None
                header = unpack(body[len(_PAIR) : len(_PAIR) + size])
            stamp = _stamp(header, size, len(body), scope, key)
            if absent:
                return Err(absent, stamp=stamp)
            if flags & _OK:
                return Ok(value, stamp=stamp)
            error, cause = value
            return Err(error, cause_of(error) if flags & _OWN_CAUSE else cause, stamp=stamp)
        except DamagedEntry as exc:
            return Damaged(str(exc))
        except (*_UNREADABLE, ClassNotLoaded) as exc:
            return Damaged(f"it cannot be read: {type(exc).__name__}: {str(exc)[:200]}")

    def head(self, data: object) -> Head | Damaged:
        """What the first bytes of an entry say; :class:`Truncated` when there are too few of them."""
        try:
            entry = _as_bytes(data)
            flags, size = _prefix(entry)
            needed = _HEADER_AT + size
            if len(entry) < needed:
                return Truncated(f"its head takes {needed} bytes, of which {len(entry)} are given", needed)
            header = unpack(entry[_HEADER_AT:needed])
            _check(header)
        except DamagedEntry as exc:
            return Damaged(str(exc))
        except (*_UNREADABLE, ClassNotLoaded) as exc:
            return Damaged(f"its head cannot be read: {type(exc).__name__}: {str(exc)[:200]}")
        return Head(header[5], header[6], bool(flags & _OK), Stamp._make(header[:5]), header[7])

    def _entry(self, result: Result[Any], scope: str, key: str, *, slim: bool) -> bytes:
        flags, payload = _payload(result, slim=slim)
        header = _header(result.stamp or Stamp(), scope, key, len(payload))
        signed = _SIGNED if self.signer else 0
        data = _PREFIX.pack(_MAGIC, _FORMAT, flags | signed, len(header)) + _PAIR + header + payload
        data += _CRC.pack(crc32(data))
        return data + self.signer.sign(data) if self.signer else data

    def _is_too_large(self, data: bytes) -> bool:
        return self.max_bytes is not None and len(data) > self.max_bytes

    def _intact(self, data: object) -> tuple[int, int, memoryview]:
        """The flags, the length of the header, and header and payload as one msgpack array, checked for damage."""
        entry = data if type(data) is bytes else _as_bytes(data)
        flags, size = _prefix(entry)
        whole = memoryview(entry)
        if flags & _SIGNED:
            end = len(entry) - Signer.SIZE
            if self.signer and not (end > 0 and self.signer.verifies(whole[:end], whole[end:])):
                raise DamagedEntry("its signature is not of this site's SECRET_KEY or SECRET_KEY_FALLBACKS")
        elif self.signer:
            raise DamagedEntry("it is not signed")
        else:
            end = len(entry)
        end -= _CRC.size
        if end < _HEADER_AT or crc32(whole[:end]) != _CRC.unpack_from(entry, end)[0]:
            raise DamagedEntry("its checksum is wrong")
        return flags, size, whole[_PREFIX.size : end]


def _absent(exc: ClassNotLoaded | TypeError) -> ClassNotLoaded:
    """What says that a class is not as it was; anything else is raised again."""
    if isinstance(exc, ClassNotLoaded):
        return exc.with_traceback(None)  # whose frames would hold the entry
    # Members of sets and keys of dicts. No lists and such are ever written there, so these are damage.
    found = _UNHASHABLE.search(str(exc))
    if found is None or found[1] in ("list", "dict", "set"):
        raise exc
    return ClassNotLoaded(found[1], "it cannot be hashed any more")


def _as_bytes(data: object) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise DamagedEntry(f"it is no bytes but {type(data).__qualname__}")


def _prefix(entry: bytes) -> tuple[int, int]:
    """The flags and the length of the header."""
    if len(entry) < _HEADER_AT or not entry.startswith(_MAGIC):
        raise DamagedEntry("it is no entry of stepflows")
    _, version, flags, size = _PREFIX.unpack_from(entry)
    if version != _FORMAT:
        newer = "newer" if version > _FORMAT else "other"
        raise DamagedEntry(f"format {version} is {newer} than the {_FORMAT} that this version of stepflows reads")
    if flags > _OK + _SIGNED + _OWN_CAUSE or size > _MAX_HEADER or entry[_PREFIX.size] != _PAIR[0]:
        raise DamagedEntry("its head makes no sense")
    return flags, size


def _stamp(header: Any, size: int, length: int, scope: str, key: str) -> Stamp:
    _check(header)
    if len(_PAIR) + size + header[7] != length:
        raise DamagedEntry("its lengths do not add up")
    if (key and (header[6] != key or header[5] != scope)) or (scope and header[5] != scope):
        raise DamagedEntry(f"it belongs to another key, {header[6]!r} of {header[5]!r}")
    return Stamp._make(header[:5])


def _check(header: Any) -> None:
    if type(header) is not list or tuple(map(type, header)) not in _HEADER_SHAPES:
        raise DamagedEntry("its header is of the wrong shape")


def _header(stamp: Stamp, scope: str, key: str, length: int) -> bytes:
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


def _payload(result: Result[Any], *, slim: bool) -> tuple[int, bytes]:
    if isinstance(result, Ok):
        return _OK, _packed(result.value)
    if not isinstance(result, Err):
        raise InvalidUse(f"Only Ok(value) and Err(error) can be cached, not {result!r:.200}.")
    error = _packed(result.error, slim=slim, prefix=".error")
    if isinstance(result.error, BaseException) and result.cause is cause_of(result.error):
        return _OWN_CAUSE, _PAIR + error + b"\xc0"
    return 0, _PAIR + error + keep_or_text(result.cause, Writer(slim=slim))


def _packed(value: Any, *, slim: bool = False, prefix: str = "") -> bytes:
    try:
        return Writer(slim=slim).pack(value)
    except NotCacheable as refused:
        raise located(value, refused, prefix) from None


def dumps(result: Result[Any]) -> bytes:
    """A result with its stamp as bytes, for a cache of one's own.

    Raises :exc:`~stepflows.errors.NotCacheable` for a value that would not come back as it is.
    """
    return current_codec().encode(result)


def loads(data: bytes) -> Result[Any]:
    """The result in what :func:`dumps` gave. Raises :exc:`~stepflows.errors.DamagedEntry` for anything else."""
    found = current_codec().decode(data)
    if isinstance(found, Damaged):
        raise DamagedEntry(f"These bytes hold no result: {found.reason}.")
    return found


def current_codec() -> Codec:
    """The codec that the settings ask for; a plain one where Django is not configured."""
    # Not remembered while there are no settings, because they may come.
    return _codec() if django_settings.configured or ENVIRONMENT_VARIABLE in os.environ else Codec()


@lru_cache(maxsize=1)
def _codec() -> Codec:
    wanted = conf.settings()
    signer = Signer(django_settings.SECRET_KEY, django_settings.SECRET_KEY_FALLBACKS) if wanted.SIGN else None
    return Codec(wanted.MAX_VALUE_BYTES, signer)


def _reset(*, setting: str, **_: Any) -> None:
    if setting in ("STEPFLOWS", "SECRET_KEY", "SECRET_KEY_FALLBACKS"):
        _codec.cache_clear()


setting_changed.connect(_reset)
