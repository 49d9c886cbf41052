"""Exceptions: class, arguments, attributes and cause; never the traceback or the locals of a frame.

An error that is stored must not be hidden by one about storing it, so whatever part of an exception cannot be kept
is left out or stands as text. Each part is packed on its own, so that one part which cannot be rebuilt does not
take the rest along.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.utils.functional import Promise

from stepflows.caches.classes import attributes
from stepflows.caches.kind import Writing
from stepflows.errors import CachedStepError, NotCacheable

__all__ = ["as_text", "cause_of", "keep", "keep_or_text", "printed", "write_exception", "write_reference"]

logger = logging.getLogger("stepflows")

#: Exceptions inside exceptions (causes, groups, arguments) beyond this are kept by name and message.
_MAX_OPEN = 10
#: What one part of an exception may take when the whole would be too large for the cache.
_SLIM_BYTES = 1024
_MAX_TEXT = 1000

# The C descriptors themselves: a class may have given these names another meaning.
_args_of = BaseException.__dict__["args"].__get__
cause_of = BaseException.__dict__["__cause__"].__get__
_message_of_group = BaseExceptionGroup.__dict__["message"].__get__
_members_of_group = BaseExceptionGroup.__dict__["exceptions"].__get__


_ELSEWHERE: dict[type[BaseException], tuple[str, ...]] = {
    AttributeError: ("obj",),  # Python's own note of whatever object lacked the attribute; nobody expects it back
    BaseExceptionGroup: ("message", "exceptions"),  # kept apart
}


def keep(value: Any, writing: Writing) -> bytes | None:
    """One part of an error as bytes, or ``None`` if it cannot be kept."""
    try:
        data = writing.pack(value)
    except NotCacheable:
        return None
    return None if writing.slim and len(data) > _SLIM_BYTES else data


def keep_or_text(value: Any, writing: Writing) -> bytes:
    """One part of an error as bytes, or else what can be said of it."""
    data = keep(value, writing)
    return writing.pack(as_text(value)) if data is None else data


def as_text(value: Any) -> str:
    """What can be said of a value that cannot be kept: a text that is lazy or marked is itself, the rest its repr."""
    return printed(value, str if _is_text(value) else repr)


def _is_text(value: Any) -> bool:
    # gettext_lazy() makes objects of Promise.
    return issubclass(type(value), str | Promise)


def printed(value: Any, show: Callable[[Any], str]) -> str:
    """``show(value)``, or that it cannot be shown; cut to what an entry or a message can bear."""
    try:
        # A subclass of str may give itself.
        shown = str.__str__(show(value))
    except Exception:  # whatever a foreign __str__ or __repr__ raises: the error being stored matters more
        shown = f"<unprintable {type(value).__qualname__}>"
    return shown if len(shown) <= _MAX_TEXT else shown[: _MAX_TEXT - 1] + "…"


def write_exception(error: BaseException, writing: Writing) -> bytes:
    """The class path, the message, and each argument, attribute, cause and member of a group by itself."""
    if id(error) in writing.open or len(writing.open) >= _MAX_OPEN:
        error = _stand_in(error)
    writing.open.append(id(error))
    try:
        path = f"{type(error).__module__}:{type(error).__qualname__}"
        arguments, group = _arguments(error, writing), _group(error, writing)
        parts = [path, printed(error, str), arguments, _cause(error, writing), group, _state(error, writing)]
        return writing.pack(parts)
    finally:
        writing.open.pop()


def write_reference(error: BaseException, writing: Writing) -> bytes:
    """Where among the exceptions under way this one stands, for an attribute that refers back to it."""
    return bytes([writing.made.index(id(error))])


def _stand_in(error: BaseException) -> CachedStepError:
    return CachedStepError(f"{type(error).__module__}.{type(error).__qualname__}", printed(error, str))


def _arguments(error: BaseException, writing: Writing) -> list[bytes] | None:
    """``None`` for a group made the usual way, whose arguments are its message and its members."""
    args = _args_of(error)
    if isinstance(error, BaseExceptionGroup) and len(args) == 2 and isinstance(args[1], list | tuple):
        members = _members_of_group(error)
        if args[0] is _message_of_group(error) and [*map(id, args[1])] == [*map(id, members)]:
            return None
    return [keep_or_text(arg, writing) for arg in args]


def _group(error: BaseException, writing: Writing) -> list[Any] | None:
    if not isinstance(error, BaseExceptionGroup):
        return None
    given = [*_args_of(error), None, None][1]
    members = [_keep_error(member, writing) for member in _members_of_group(error)]
    return [printed(_message_of_group(error), str), members, isinstance(given, list)]


def _cause(error: BaseException, writing: Writing) -> bytes | None:
    cause = cause_of(error)
    return None if cause is None else _keep_error(cause, writing)


def _keep_error(error: BaseException, writing: Writing) -> bytes:
    data = keep(error, writing)
    return writing.pack(_stand_in(error)) if data is None else data


def _state(error: BaseException, writing: Writing) -> dict[str, bytes]:
    """Each attribute that can be kept. From here on the reader has made the exception, so they may refer to it."""
    writing.made.append(id(error))
    try:
        found = {name: _attribute(error, name, value, writing) for name, value in attributes(error).items()}
    finally:
        writing.made.pop()
    return {name: data for name, data in found.items() if data is not None}


def _attribute(error: BaseException, name: str, value: Any, writing: Writing) -> bytes | None:
    if any(isinstance(error, owner) and name in names for owner, names in _ELSEWHERE.items()):
        return None
    if _is_text(value):
        return keep_or_text(value, writing)
    data = keep(value, writing)
    if data is None:
        cls = type(error)
        logger.warning(
            "The stored %s.%s comes without its attribute %r: %s cannot be kept.",
            *(cls.__module__, cls.__qualname__, name, type(value).__qualname__),
        )
    return data
