"""Classes by name: enums, dataclasses and named tuples, and how any instance is taken apart and rebuilt.

A class is found only if its module is loaded already, and by reading namespaces: ``getattr`` could run a module's
``__getattr__``, a descriptor or a metaclass. An instance is rebuilt by the C code of ``object`` or ``tuple`` and by
filling its ``__dict__`` and slots; nothing that the class itself defines is called, but for ``__hash__`` and ``__eq__``
of what is in a set or the key of a dict.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum, Flag
from functools import lru_cache
from types import BuiltinFunctionType, MemberDescriptorType, ModuleType
from typing import Any, TypeVar

from stepflows.caches.codec.types import Kind
from stepflows.errors import ClassNotLoaded, NotCacheable

__all__ = ["ENUM", "RECORD", "attributes", "create", "fields_of", "fill", "find", "kind_of_class", "maker_of"]
__all__ += ["changed", "name_of", "path_of", "per_class"]

_namespace_of = type.__dict__["__dict__"].__get__
_mro = type.__dict__["__mro__"].__get__
_base = type.__dict__["__base__"].__get__
_contents = vars(ModuleType)["__dict__"].__get__

#: Enum takes a flag apart bit by bit, which a huge number would make endless.
_MAX_FLAG = 1 << 4096

T = TypeVar("T")


def per_class(function: Callable[[type], T]) -> Callable[[type], T]:
    """Remember what a function says of a class; not for ever, because classes made on the fly come and go."""
    return lru_cache(maxsize=512)(function)


def find(path: str) -> type:
    """The loaded class of this path. Raises :exc:`ClassNotLoaded`, and never imports or runs anything."""
    module_name, _, qualname = path.partition(":")
    module = sys.modules.get(module_name)
    if module is None or not issubclass(type(module), ModuleType):
        raise changed(path, f"the module {module_name[:200]!r} is not loaded")
    found: Any = None
    namespace: Mapping[str, Any] = _contents(module)
    for name in qualname.split("."):
        found = namespace.get(name)
        if not issubclass(type(found), type):
            raise changed(path, "there is no class of that name any more")
        namespace = _namespace_of(found)
    return found  # type: ignore[no-any-return]


def changed(path: str, reason: str) -> ClassNotLoaded:
    """The error for a class that is not, or not as it was when a value was stored."""
    return ClassNotLoaded(name_of(path), reason)


def path_of(cls: type) -> str:
    """``module:qualname``, whether or not that leads back to the class."""
    return f"{cls.__module__}:{cls.__qualname__}"


def name_of(path: str) -> str:
    """A path as Python writes it, cut to what a message can bear."""
    return path.replace(":", ".")[:200]


@per_class
def _has_finalizer(cls: type) -> bool:
    return _inherited(cls, "__del__") is not None


@per_class
def _lasting_path(cls: type) -> str:
    """The path by which :func:`find` finds the class. Raises :exc:`NotCacheable` if it would not."""
    path = path_of(cls)
    if _has_finalizer(cls):
        reason = f"an instance of {name_of(path)}, whose __del__ would run for each copy"
        raise NotCacheable(reason, remedy="Return the data in it.")
    with suppress(ClassNotLoaded):  # the same answer as finding another class there
        if find(path) is cls:
            return path
    reason = f"an instance of {name_of(path)}, a class that cannot be found again by its name"
    raise NotCacheable(reason, remedy="Define the class at module level, under its own name.")


@per_class
def maker_of(cls: type) -> Any:
    """The nearest base whose ``__new__`` is C code; that one alone may make instances (``object``, ``OSError``)."""
    while type(_namespace_of(cls).get("__new__")) is not BuiltinFunctionType:
        cls = _base(cls)
    return cls


def create(cls: type, path: str, *args: Any) -> Any:
    """An instance, made by C code alone. Raises :exc:`ClassNotLoaded` for a class that cannot be made so any more."""
    if _has_finalizer(cls):
        # It would run in the end, on whatever the entry says that the instance holds.
        raise changed(path, "it has a __del__")
    try:
        return maker_of(cls).__new__(cls, *args)
    except TypeError as exc:
        raise changed(path, str(exc)) from exc  # abstract by now, say


@per_class
def _slots_of(cls: type) -> dict[str, MemberDescriptorType]:
    """The slots of a class and its bases."""
    owners = [owner for owner in reversed(_mro(cls)) if owner is not BaseException]
    members = [(name, member) for owner in owners for name, member in _namespace_of(owner).items()]
    return {name: member for name, member in members if type(member) is MemberDescriptorType}


def attributes(instance: Any) -> dict[str, Any]:
    """What an instance holds, in its ``__dict__`` and in its slots."""
    found = dict(getattr(instance, "__dict__", ()))
    # Left by calling a parametrised generic, Box[int](1): a note of typing's, no part of the value.
    found.pop("__orig_class__", None)
    for name, member in _slots_of(type(instance)).items():
        with suppress(AttributeError):  # not set, and so it stays
            value = member.__get__(instance)
            if value is not None or _is_declared(member):
                found[name] = value
    return found


def _is_declared(member: MemberDescriptorType) -> bool:
    """Whether it is a slot of Python's. In one of C's own, None stands for "not set"."""
    return "__slots__" in _namespace_of(member.__objclass__)


def fill(instance: Any, values: Mapping[str, Any]) -> None:
    """Give an instance back what it held. Raises :exc:`ClassNotLoaded` if there is no place for it any more."""
    slots = _slots_of(type(instance))
    for name, value in values.items():
        if name in slots:
            if value is not None or _is_declared(slots[name]):
                slots[name].__set__(instance, value)
            continue
        try:
            object.__getattribute__(instance, "__dict__")[name] = value
        except AttributeError as exc:
            raise changed(path_of(type(instance)), "it has other slots than it had") from exc


@per_class
def fields_of(cls: Any) -> tuple[str, ...] | None:
    """The names of the fields of a dataclass or a named tuple; ``None`` for other classes."""
    if issubclass(cls, tuple):
        return _inherited(cls, "_fields")  # type: ignore[no-any-return]
    if _inherited(cls, "__dataclass_fields__") is None or maker_of(cls) is not object:
        return None
    return tuple(field.name for field in dataclasses.fields(cls))


def _inherited(cls: type, name: str) -> Any:
    return next((_namespace_of(owner)[name] for owner in _mro(cls) if name in _namespace_of(owner)), None)


@per_class
def _signature(cls: type) -> list[str]:
    return [_lasting_path(cls), " ".join(fields_of(cls) or ())]


def _write_record(value: Any) -> list[Any]:
    cls, held = type(value), attributes(value)
    if issubclass(cls, tuple):
        held |= zip(fields_of(cls) or (), value, strict=True)
    return [*_signature(cls), held]


def _read_record(path: str, stored: str, held: dict[str, Any]) -> Any:
    cls = find(path)
    fields = fields_of(cls)
    if fields is None:
        raise changed(path, "it is no dataclass or named tuple any more")
    if sorted(stored.split()) != sorted(fields):
        raise changed(path, f"its fields were {', '.join(stored.split())[:200]} and are {', '.join(fields)}")
    instance = create(cls, path, *([[held.pop(name) for name in fields]] if issubclass(cls, tuple) else []))
    fill(instance, held)
    return instance


def _write_enum(value: Enum) -> list[Any]:
    return [_lasting_path(type(value)), value._value_ if isinstance(value, Flag) else value._name_]


def _read_enum(path: str, key: str | int) -> Any:
    """The member of this name, or the flag of this value."""
    cls = find(path)
    if not issubclass(cls, Enum):
        raise changed(path, "it is not an Enum any more")
    found = _namespace_of(cls)["_member_map_" if isinstance(key, str) else "_value2member_map_"].get(key)
    if found is None and issubclass(cls, Flag) and isinstance(key, int) and abs(key) < _MAX_FLAG:
        with suppress(ValueError):
            found = Flag._missing_.__func__(cls, key)  # type: ignore[attr-defined]  # the class may have its own
    if found is None:
        raise changed(path, f"it has no member {key!r:.100} any more")
    return found


ENUM = Kind(13, _write_enum, _read_enum)
RECORD = Kind(14, _write_record, _read_record)


def kind_of_class(cls: type) -> Kind | None:
    """Which of the kinds here the instances of a class are, if any."""
    return ENUM if issubclass(cls, Enum) else RECORD if fields_of(cls) is not None else None
