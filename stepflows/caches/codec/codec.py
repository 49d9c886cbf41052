"""Entries written and read, as the settings ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from stepflows import conf
from stepflows.caches.codec.entry import OK, Head, Signer, check_place, framed, head_of, opened
from stepflows.caches.codec.exceptions import ORIGIN, as_text, cause_of, stand_in
from stepflows.caches.codec.origin import origin_in
from stepflows.caches.codec.refusal import located
from stepflows.caches.codec.wire import pack, unpack
from stepflows.engine.cache import Damaged
from stepflows.errors import ClassNotLoaded, DamagedEntry, InvalidUse, NotCacheable
from stepflows.results import Err, Ok, Result, Stamp, restored

__all__ = ["Codec", "current_codec", "dumps", "loads"]

#: What reading bad bytes raises. Not Exception: the time limit of a task may strike here, and must not look like an
#: entry that is missing, whose step would then run again.
_UNREADABLE: Final = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Codec:
    """Entries of at most ``max_bytes``, signed and checked by ``signer`` if there is one."""

    max_bytes: int | None = None
    signer: Signer | None = None

    def encode(self, result: Result[Any], scope: str = "", key: str = "") -> bytes:
        """The entry for a result. Raises :exc:`~stepflows.errors.NotCacheable`."""
        data = self._entry(result, scope, key)
        if self._is_too_large(data) and isinstance(result, Err) and isinstance(result.error, BaseException):
            # An error must not be hidden by one about storing it.
            data = self._entry(Err(stand_in(result.error), stamp=result.stamp), scope, key)
        if self._is_too_large(data):
            raise self._refused(data, "it", "Return less, such as where the data lies")
        return data

    def decode(self, data: object, scope: str = "", key: str = "") -> Ok[Any] | Err | Damaged:
        """The result in an entry, whatever the bytes are.

        With a ``key``, an entry of another scope or key is damaged. A value whose class is not loaded here is an
        ``Err`` with :exc:`~stepflows.errors.ClassNotLoaded`: the entry is intact, and its step is done.
        """
        try:
            flags, header, payload = opened(data, self.signer)
            if header[5] != scope or header[6] != key:
                check_place(header, scope, key)
            # Checked to be of the right number.
            stamp: Stamp = tuple.__new__(Stamp, header[:5])
            if self._is_too_large(payload):
                # Lists of nothing take eighty times their bytes. It is intact, so its step is done.
                return Err(self._refused(payload, "what is stored"), stamp=stamp)
            try:
                value = unpack(payload)
            except (ClassNotLoaded, TypeError) as exc:
                return Err(_absent(exc), stamp=stamp)
            if flags & OK:
                return restored(value, stamp)
            error, *cause = value
            return Err(error, cause[0] if cause else cause_of(error), stamp=stamp)
        except _UNREADABLE as exc:
            return _damaged(exc)

    def origin(self, data: object) -> list[str]:
        """Where the exception in an entry was raised, for people to read, innermost last; nothing if nobody knows."""
        try:
            flags, _, payload = opened(data, self.signer)
            return [] if flags & OK or self._is_too_large(payload) else origin_in(payload, ORIGIN)
        except _UNREADABLE:
            return []

    def head(self, data: object) -> Head | Damaged:
        """What the first bytes of an entry say; :class:`Truncated` when there are too few of them."""
        try:
            return head_of(data)
        except _UNREADABLE as exc:
            return _damaged(exc)

    def _entry(self, result: Result[Any], scope: str, key: str) -> bytes:
        if not isinstance(result, Ok | Err):
            raise InvalidUse(f"Only Ok(value) and Err(error) can be cached, not {result!r:.200}.")
        flags, payload = (OK, _packed(result.value)) if isinstance(result, Ok) else (0, _packed_error(result))
        return framed(flags, (*(result.stamp or Stamp()), scope, key), payload, self.signer)

    def _is_too_large(self, data: bytes | memoryview) -> bool:
        return self.max_bytes is not None and len(data) > self.max_bytes

    def _refused(self, data: bytes | memoryview, what: str, instead: str = "Clear the key") -> NotCacheable:
        reason = f"{what} takes {len(data):,} bytes and the limit is {self.max_bytes:,}"
        return NotCacheable(reason, remedy=f"{instead}, or raise STEPFLOWS['MAX_VALUE_BYTES'].")


def _absent(exc: ClassNotLoaded | TypeError) -> ClassNotLoaded:
    """What says that a class is not as it was; anything else is raised again."""
    if isinstance(exc, ClassNotLoaded):
        return exc.with_traceback(None)  # whose frames would hold the entry
    if "unhashable" in str(exc):
        return ClassNotLoaded("key of a dict or member of a set", str(exc))
    raise exc


def _damaged(exc: Exception) -> Damaged:
    if isinstance(exc, DamagedEntry):
        return Damaged(str(exc))
    # The text may be of the bytes, and goes into logs.
    return Damaged(f"it cannot be read: {type(exc).__name__}: {ascii(str(exc))[1:-1][:200]}")


def _packed(value: Any, prefix: str = "") -> bytes:
    try:
        return pack(value)
    except NotCacheable as refused:
        raise located(value, refused, pack, prefix) from None


def _packed_error(result: Err) -> bytes:
    """An array of the error and its cause; of the error alone if the cause is its own."""
    error = _packed(result.error, ".error")
    if isinstance(result.error, BaseException) and result.cause is cause_of(result.error):
        return b"\x91" + error
    try:
        return b"\x92" + error + pack(result.cause)
    except NotCacheable:
        return b"\x92" + error + pack(as_text(result.cause))


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
    return _codec() if conf.is_configured() else Codec()


@lru_cache(maxsize=1)
def _codec() -> Codec:
    wanted = conf.settings()
    signer = Signer(django_settings.SECRET_KEY, django_settings.SECRET_KEY_FALLBACKS) if wanted.SIGN else None
    return Codec(wanted.MAX_VALUE_BYTES, signer)


def _reset(*, setting: str, **_: Any) -> None:
    if setting in ("STEPFLOWS", "SECRET_KEY", "SECRET_KEY_FALLBACKS"):
        _codec.cache_clear()


setting_changed.connect(_reset)
