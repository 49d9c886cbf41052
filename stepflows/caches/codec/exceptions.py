"""Exceptions: class, arguments, attributes and cause; of the traceback a few lines, and never the locals of a frame.

An error that is stored must not be hidden by one about storing it, so whatever part of an exception cannot be kept
is left out or stands as text. Each part is packed on its own, so that one part which cannot be rebuilt does not
take the rest along. Exceptions are made again by the C code of their built-in base, never by their own ``__init__``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

from django.utils.functional import Promise

from stepflows.caches.codec.classes import attributes, changed, create, fill, find, maker_of, name_of, path_of
from stepflows.caches.codec.origin import origin_of
from stepflows.errors import CachedStepError, ClassNotLoaded, NotCacheable

__all__ = ["ORIGIN", "Pack", "Unpack", "as_text", "cause_of", "printed", "read", "stand_in", "summary", "write"]

logger = logging.getLogger("stepflows")

Pack: TypeAlias = Callable[[Any], bytes]
Unpack: TypeAlias = Callable[[bytes | memoryview], Any]

_MAX_TEXT = 1000
#: Where among the parts of an exception it stands where that was raised.
ORIGIN: Final = 5

# The C descriptors themselves: a class may have given these names another meaning.
_args = BaseException.__dict__["args"]
_cause = BaseException.__dict__["__cause__"]
_group = BaseExceptionGroup.__dict__
cause_of = _cause.__get__

#: Attributes that are not kept, and of what: the members of a group are among its arguments, and ``obj`` is Python's
#: own note of whatever object lacked the attribute. They are not taken from an entry either: whoever prints a traceback
#: looks through ``obj``, and where there is a ``name_from``, imports the module that an ImportError names.
_LEFT_OUT = {
    "obj": AttributeError,
    "name_from": ImportError,
    "message": BaseExceptionGroup,
    "exceptions": BaseExceptionGroup,
}
#: What these are about, by which C prints them without another look.
_OBJECTS: Final = {UnicodeDecodeError: bytes, UnicodeEncodeError: str, UnicodeTranslateError: str}
#: Stands for an attribute that is a list of the exception itself, as Django's ValidationError has one.
_LIST_OF_ITSELF = b""


def as_text(value: Any) -> str:
    """What can be said of a value that cannot be kept: a text that is lazy or marked is itself, the rest its repr."""
    return printed(value, str if _is_text(value) else repr)


def printed(value: Any, show: Callable[[Any], str]) -> str:
    """``show(value)``, or that it cannot be shown; cut to what an entry or a message can bear."""
    try:
        # A subclass of str may give itself.
        shown = str.__str__(show(value))
    except Exception:  # whatever a foreign __str__ or __repr__ raises: the error being stored matters more
        shown = f"<unprintable {type(value).__qualname__}>"
    return shown if len(shown) <= _MAX_TEXT else shown[: _MAX_TEXT - 1] + "…"


def summary(error: BaseException) -> list[Any]:
    """The parts of which :func:`read` makes a stand-in."""
    return [path_of(type(error)), printed(error, str)]


def stand_in(error: BaseException) -> CachedStepError:
    """An error that has the name and the message of this one and nothing else."""
    path, message = summary(error)
    return CachedStepError(name_of(path), message)


def write(error: BaseException, pack: Pack) -> list[Any]:
    """Class path and message, each argument, cause and attribute by itself, and where it was raised."""
    cause = cause_of(error)
    args = _args.__get__(error)
    if isinstance(error, BaseExceptionGroup):
        # A class with a __new__ of its own may have other arguments.
        args = [_group["message"].__get__(error), list(_group["exceptions"].__get__(error))]
    kept = [_keep(arg, pack) or pack(as_text(arg)) for arg in args]
    parts = [*summary(error), kept, None if cause is None else _keep(cause, pack), _state(error, pack)]
    origin = origin_of(error)
    return [*parts, origin] if origin else parts


def _state(error: BaseException, pack: Pack) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, value in attributes(error).items():
        if isinstance(error, _LEFT_OUT.get(name, ())):
            continue
        if type(value) is list and len(value) == 1 and value[0] is error:
            found[name] = _LIST_OF_ITSELF
        elif data := _keep(value, pack) or (pack(as_text(value)) if _is_text(value) else None):
            found[name] = data
        else:
            # What is private is not missed: errors of httpx have their request in such an attribute.
            level = logging.DEBUG if name.startswith("_") else logging.WARNING
            details = name_of(path_of(type(error))), name, type(value).__qualname__
            logger.log(level, "The stored %s comes without its attribute %r: %s cannot be kept.", *details)
    return found


def _keep(value: Any, pack: Pack) -> bytes | None:
    try:
        return pack(value)
    except NotCacheable:
        return None


def _is_text(value: Any) -> bool:
    # gettext_lazy() makes objects of Promise.
    return issubclass(type(value), str | Promise)


def read(
    unpack: Unpack,
    path: str,
    message: str,
    args: list[bytes] | None = None,
    cause: bytes | None = None,
    state: dict[str, bytes] | None = None,
    origin: list[str] | None = None,
) -> BaseException:
    """The exception of such parts; a stand-in if its class is not loaded, or not as it was, or if there is no more."""
    try:
        error = _make(find(path), path, None if args is None else [_argument(arg, unpack) for arg in args])
    except ClassNotLoaded:
        error = CachedStepError(name_of(path), message)
        state = None
    for name, data in (state or {}).items():
        # Left out like what cannot be kept: what is not loaded, and what C does not let anyone write.
        with suppress(ClassNotLoaded, TypeError, AttributeError):
            if not isinstance(error, _LEFT_OUT.get(name, ())):
                fill(error, {name: [error] if data == _LIST_OF_ITSELF else unpack(data)})
    if not _can_be_printed(error):
        error = CachedStepError(name_of(path), message)
    if cause is not None:
        _cause.__set__(error, unpack(cause))
    return error


def _can_be_printed(error: BaseException) -> bool:
    """Whether it is about what it should be: beginning before that, it would have C read what lies there in memory."""
    for cls, kind in _OBJECTS.items():
        if isinstance(error, cls):
            start, about = (cls.__dict__[name].__get__(error) for name in ("start", "object"))
            return start >= 0 and (about is None or type(about) is kind)
    return True


def _argument(data: bytes, unpack: Unpack) -> Any:
    try:
        return unpack(data)
    except ClassNotLoaded as exc:
        return f"<{exc.name}, not loaded>"  # an argument must not hide the error that has it


def _make(cls: type, path: str, args: list[Any] | None) -> BaseException:
    if args is None or not issubclass(cls, BaseException):
        raise changed(path, "it is no exception any more")
    error: BaseException = create(cls, path, *args)
    # What of the arguments belongs into C's own slots; a class may have others than its base wants.
    with suppress(TypeError, ValueError):
        maker_of(cls).__init__(error, *args)
    _args.__set__(error, tuple(args))
    return error
