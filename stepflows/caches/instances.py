"""Enums, dataclasses and named tuples: their class by name, and what the instance holds."""

from __future__ import annotations

import dataclasses
from enum import Enum, Flag
from typing import Any, NamedTuple

from stepflows.caches.classes import (
    attributes,
    base_of,
    fill,
    find,
    inherited,
    lasting_path,
    name_of,
    namespace_of,
    per_class,
)
from stepflows.caches.kind import Kind, Unpack, Writing, items, text
from stepflows.errors import ClassNotLoaded

__all__ = ["DATACLASS", "KINDS", "NAMED_TUPLE", "fields_of", "kind_of_class"]

_MAX_FLAG_BITS = 4096


def _write_enum(value: Enum, writing: Writing) -> bytes:
    return writing.pack([lasting_path(type(value)), value._name_])


def _read_enum(body: bytes, unpack: Unpack) -> Any:
    path, name = items(body, unpack, 2)
    members = namespace_of(_find(path, Enum, "an Enum")).get("_member_map_", {})
    if text(name) not in members:
        raise ClassNotLoaded(name_of(path), f"it has no member {name[:100]!r} any more")
    return members[name]


def _write_flag(value: Flag, writing: Writing) -> bytes:
    return writing.pack([lasting_path(type(value)), value._value_])


def _read_flag(body: bytes, unpack: Unpack) -> Any:
    path, value = items(body, unpack, 2)
    cls = _find(path, Flag, "a Flag")
    # Enum takes a flag apart bit by bit, which a huge number would make endless.
    if type(value) is not int or value.bit_length() > _MAX_FLAG_BITS:
        raise ValueError("the value of a flag is no whole number of a sensible size")
    found = namespace_of(cls).get("_value2member_map_", {}).get(value)
    if found is not None:
        return found
    try:
        return Flag._missing_.__func__(cls, value)  # type: ignore[attr-defined]  # the class may have its own
    except ValueError as exc:
        raise ClassNotLoaded(name_of(path), "it has other flags than it had") from exc


class _Shape(NamedTuple):
    path: str
    fields: tuple[str, ...]


@per_class
def _shape(cls: type) -> _Shape:
    return _Shape(lasting_path(cls), fields_of(cls))


@per_class
def fields_of(cls: Any) -> tuple[str, ...]:
    """The names of the fields of a dataclass or a named tuple."""
    if issubclass(cls, tuple):
        return tuple(inherited(cls, "_fields"))
    return tuple(field.name for field in dataclasses.fields(cls))


def _write_dataclass(value: Any, writing: Writing) -> bytes:
    path, fields = _shape(type(value))
    held = attributes(value)
    known = {name: held.pop(name) for name in fields if name in held}
    if len(known) == len(fields) and not held:
        return writing.pack([path, known])
    return writing.pack([path, known, held, [name for name in fields if name not in known]])


def _read_dataclass(body: bytes, unpack: Unpack) -> Any:
    path, known, *rest = items(body, unpack)
    cls = _find(path, object, "a dataclass")
    if inherited(cls, "__dataclass_fields__") is None or base_of(cls) is not object:
        raise ClassNotLoaded(name_of(path), "it is no dataclass any more")
    held, unset = rest or ({}, [])
    _same_fields(cls, path, [*known, *unset])
    instance = _new(cls, path)
    fill(instance, known)
    fill(instance, held)
    return instance


def _new(cls: type, path: str) -> Any:
    try:
        return object.__new__(cls)
    except TypeError as exc:
        raise ClassNotLoaded(name_of(path), str(exc)) from exc  # it has become abstract


def _write_named_tuple(value: Any, writing: Writing) -> bytes:
    path, fields = _shape(type(value))
    return writing.pack([path, dict(zip(fields, value, strict=True)), attributes(value)])


def _read_named_tuple(body: bytes, unpack: Unpack) -> Any:
    path, known, held = items(body, unpack, 3)
    cls = _find(path, tuple, "a named tuple")
    if inherited(cls, "_fields") is None:
        raise ClassNotLoaded(name_of(path), "it is no named tuple any more")
    _same_fields(cls, path, list(known))
    instance: Any = tuple.__new__(cls, [known[name] for name in fields_of(cls)])
    fill(instance, held)
    return instance


def _same_fields(cls: type, path: str, stored: list[str]) -> None:
    now = fields_of(cls)
    if len(stored) != len(now) or set(stored) != set(now):
        was = ", ".join(map(text, stored))[:200]
        raise ClassNotLoaded(name_of(path), f"its fields were {was} and are {', '.join(now)}")


def _find(path: Any, base: type, what: str) -> type:
    cls = find(text(path))
    if not issubclass(cls, base):
        raise ClassNotLoaded(name_of(path), f"it is not {what} any more")
    return cls


_ENUM = Kind(13, _write_enum, _read_enum)
_FLAG = Kind(14, _write_flag, _read_flag)
DATACLASS = Kind(15, _write_dataclass, _read_dataclass)
NAMED_TUPLE = Kind(16, _write_named_tuple, _read_named_tuple)
KINDS = _ENUM, _FLAG, DATACLASS, NAMED_TUPLE


def kind_of_class(cls: type) -> Kind | None:
    """Which of the kinds here the instances of a class are, if any."""
    if issubclass(cls, Enum):
        return _FLAG if issubclass(cls, Flag) else _ENUM
    if issubclass(cls, tuple):
        return NAMED_TUPLE if inherited(cls, "_fields") is not None else None
    if inherited(cls, "__dataclass_fields__") is not None and base_of(cls) is object:
        return DATACLASS
    return None
