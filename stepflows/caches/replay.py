"""Stored exceptions, made again: by the C code of the built-in base, never by their own ``__init__``."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from threading import local
from typing import Any

from stepflows.caches.classes import base_of, find, name_of, slots_of
from stepflows.caches.exceptions import write_exception, write_reference
from stepflows.caches.kind import Kind, Unpack, items, text
from stepflows.errors import CachedStepError, ClassNotLoaded

__all__ = ["EXCEPTION", "KINDS", "REFERENCE"]

_set_args = BaseException.__dict__["args"].__set__
_set_cause = BaseException.__dict__["__cause__"].__set__
_dict_of = BaseException.__dict__["__dict__"].__get__


class _Made(local):
    """The exceptions whose attributes this thread is reading, outermost first."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []


_made = _Made()


def _read_exception(body: bytes, unpack: Unpack) -> BaseException:
    path, message, arguments, cause, group, state = items(body, unpack, 6)
    args = None if arguments is None else tuple(_argument(data, unpack) for data in arguments)
    try:
        error = _make(text(path), args, group, unpack)
    except ClassNotLoaded:
        error = CachedStepError(name_of(path), text(message))
    else:
        _read_state(error, state, unpack)
    if cause is not None:
        _set_cause(error, unpack(cause))
    return error


def _argument(data: bytes, unpack: Unpack) -> Any:
    """An argument whose class is not loaded must not hide the error that has it."""
    try:
        return unpack(data)
    except ClassNotLoaded as exc:
        return f"<{exc.name}, not loaded>"


def _make(path: str, args: tuple[Any, ...] | None, group: list[Any] | None, unpack: Unpack) -> BaseException:
    cls = find(path)
    if not issubclass(cls, BaseException):
        raise ClassNotLoaded(path, "it is no exception any more")
    if issubclass(cls, BaseExceptionGroup) != (group is not None):
        raise ClassNotLoaded(path, "it was a group and is none, or the other way round")
    if group is not None:
        return _make_group(cls, path, args, group, unpack)
    if args is None:
        raise ValueError("an exception has no arguments")
    base: Any = base_of(cls)
    try:
        error: BaseException = base.__new__(cls)
    except TypeError as exc:
        raise ClassNotLoaded(path, str(exc)) from exc
    # What of the arguments belongs into C's own slots; a class may have others than its base wants.
    with suppress(TypeError, ValueError):
        base.__init__(error, *args)
    _set_args(error, args)
    return error


def _make_group(cls: type, path: str, args: tuple[Any, ...] | None, group: Any, unpack: Unpack) -> BaseException:
    message, members, as_list = group
    errors = [unpack(member) for member in members]
    try:
        made: BaseException = BaseExceptionGroup.__new__(cls, text(message), errors if as_list else tuple(errors))
    except TypeError as exc:
        raise ClassNotLoaded(path, str(exc)) from exc
    if args is not None:
        _set_args(made, args)
    return made


def _read_state(error: BaseException, state: dict[str, bytes], unpack: Unpack) -> None:
    slots = slots_of(type(error))
    _made.errors.append(error)
    try:
        for name, value in _loaded(state, unpack):
            if name not in slots:
                _dict_of(error)[text(name)] = value
                continue
            # Some of C's slots cannot be written, or not with a text that stands for something else.
            with suppress(TypeError, AttributeError):
                slots[name][0].__set__(error, value)
    finally:
        _made.errors.pop()


def _loaded(state: dict[str, bytes], unpack: Unpack) -> Iterable[tuple[str, Any]]:
    for name, data in state.items():
        with suppress(ClassNotLoaded):  # left out, as an attribute that cannot be kept is
            yield name, unpack(data)


def _read_reference(body: bytes, _: Unpack) -> BaseException:
    (position,) = body
    return _made.errors[position]


EXCEPTION = Kind(17, write_exception, _read_exception)
REFERENCE = Kind(18, write_reference, _read_reference)
KINDS = EXCEPTION, REFERENCE
