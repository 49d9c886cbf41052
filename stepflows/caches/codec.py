"""Results to bytes and back: see :mod:`stepflows.caches.layout` for what lies where."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from struct import error as StructError  # noqa: N812
from typing import Any, Final

from django.conf import ENVIRONMENT_VARIABLE
from django.conf import settings as django_settings
from django.core.signals import setting_changed

from stepflows import conf
from stepflows.caches.exceptions import cause_of, keep_or_text
from stepflows.caches.layout import (
    HEADER_AT,
    OK,
    OWN_CAUSE,
    PAIR,
    Head,
    Truncated,
    as_bytes,
    check_header,
    framed,
    intact,
    prefix,
    stamp_of,
    write_header,
)
from stepflows.caches.refusal import located
from stepflows.caches.signing import Signer
from stepflows.caches.wire import Writer, unpack
from stepflows.engine.cache import Damaged
from stepflows.errors import ClassNotLoaded, DamagedEntry, InvalidUse, NotCacheable
from stepflows.results import Err, Ok, Result, Stamp

__all__ = ["Codec", "Head", "Signer", "Truncated", "current_codec", "dumps", "loads"]

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
            flags, size, body = intact(data, self.signer)
            absent: ClassNotLoaded | None = None
            try:
                header, value = unpack(body)
            except (ClassNotLoaded, TypeError) as exc:
                absent, value = _absent(exc), None
                header = unpack(body[len(PAIR) : len(PAIR) + size])
            stamp = stamp_of(header, size, len(body), scope, key)
            if absent:
                return Err(absent, stamp=stamp)
            if flags & OK:
                return Ok(value, stamp=stamp)
            error, cause = value
            return Err(error, cause_of(error) if flags & OWN_CAUSE else cause, stamp=stamp)
        except DamagedEntry as exc:
            return Damaged(str(exc))
        except (*_UNREADABLE, ClassNotLoaded) as exc:
            return Damaged(f"it cannot be read: {type(exc).__name__}: {str(exc)[:200]}")

    def head(self, data: object) -> Head | Damaged:
        """What the first bytes of an entry say; :class:`Truncated` when there are too few of them."""
        try:
            entry = as_bytes(data)
            flags, size = prefix(entry)
            needed = HEADER_AT + size
            if len(entry) < needed:
                return Truncated(f"its head takes {needed} bytes, of which {len(entry)} are given", needed)
            header = unpack(entry[HEADER_AT:needed])
            check_header(header)
        except DamagedEntry as exc:
            return Damaged(str(exc))
        except (*_UNREADABLE, ClassNotLoaded) as exc:
            return Damaged(f"its head cannot be read: {type(exc).__name__}: {str(exc)[:200]}")
        return Head(header[5], header[6], bool(flags & OK), Stamp._make(header[:5]), header[7])

    def _entry(self, result: Result[Any], scope: str, key: str, *, slim: bool) -> bytes:
        flags, payload = _payload(result, slim=slim)
        return framed(flags, write_header(result.stamp or Stamp(), scope, key, len(payload)), payload, self.signer)

    def _is_too_large(self, data: bytes) -> bool:
        return self.max_bytes is not None and len(data) > self.max_bytes


def _absent(exc: ClassNotLoaded | TypeError) -> ClassNotLoaded:
    """What says that a class is not as it was; anything else is raised again."""
    if isinstance(exc, ClassNotLoaded):
        return exc.with_traceback(None)  # whose frames would hold the entry
    # Members of sets and keys of dicts. No lists and such are ever written there, so these are damage.
    found = _UNHASHABLE.search(str(exc))
    if found is None or found[1] in ("list", "dict", "set"):
        raise exc
    return ClassNotLoaded(found[1], "it cannot be hashed any more")


def _payload(result: Result[Any], *, slim: bool) -> tuple[int, bytes]:
    if isinstance(result, Ok):
        return OK, _packed(result.value)
    if not isinstance(result, Err):
        raise InvalidUse(f"Only Ok(value) and Err(error) can be cached, not {result!r:.200}.")
    error = _packed(result.error, slim=slim, prefix=".error")
    if isinstance(result.error, BaseException) and result.cause is cause_of(result.error):
        return OWN_CAUSE, PAIR + error + b"\xc0"
    return 0, PAIR + error + keep_or_text(result.cause, Writer(slim=slim))


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
