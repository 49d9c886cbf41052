"""Classes by name: how one is found again, and how its instances are taken apart and rebuilt.

A class is found only if its module is loaded already, and by reading namespaces: ``getattr`` could run a module's
``__getattr__``, a descriptor or a metaclass. An instance is rebuilt by the C code of ``object`` or ``tuple`` and by
filling its ``__dict__`` and slots; nothing that the class itself defines is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import BuiltinFunctionType, MemberDescriptorType, ModuleType
from typing import Any, TypeVar

from stepflows.caches.kind import text
from stepflows.errors import ClassNotLoaded, NotCacheable

__all__ = [
    "attributes",
    "base_of",
    "fill",
    "find",
    "inherited",
    "lasting_path",
    "name_of",
    "namespace_of",
    "per_class",
    "slots_of",
]

T = TypeVar("T")

namespace_of = type.__dict__["__dict__"].__get__
_mro = type.__dict__["__mro__"].__get__
_base = type.__dict__["__base__"].__get__
_contents = vars(ModuleType)["__dict__"].__get__


def per_class(function: Callable[[type], T]) -> Callable[[type], T]:
    """Remember what a function says of a class; not for ever, because classes made on the fly come and go."""
    return lru_cache(maxsize=512)(function)


def find(path: str) -> type:
    """The loaded class of this path. Raises :exc:`ClassNotLoaded`, and never imports or runs anything."""
    module_name, _, qualname = path.partition(":")
    module = sys.modules.get(module_name)
    if module is None or not issubclass(type(module), ModuleType):
        raise ClassNotLoaded(name_of(path), f"the module {module_name[:200]!r} is not loaded")
    found: Any = None
    namespace: Mapping[str, Any] = _contents(module)
    for name in qualname.split("."):
        found = namespace.get(name)
        if not issubclass(type(found), type):
            raise ClassNotLoaded(name_of(path), "there is no class of that name any more")
        namespace = namespace_of(found)
    return found  # type: ignore[no-any-return]


def name_of(path: str) -> str:
    """A path as Python writes it, cut to what a message can bear."""
    return path.replace(":", ".")[:200]


@per_class
def lasting_path(cls: type) -> str:
    """``module:qualname``, by which :func:`find` finds the class. Raises :exc:`NotCacheable` if it would not."""
    path = f"{cls.__module__}:{cls.__qualname__}"
    try:
        if find(path) is cls:
            return path
    except ClassNotLoaded:
        pass  # the same answer as finding another class there
    reason = f"an instance of {name_of(path)}, a class that cannot be found again by its name"
    raise NotCacheable(reason, remedy="Define the class at module level, under its own name.")


@per_class
def base_of(cls: type) -> type:
    """The nearest base whose ``__new__`` is C code; that one alone may make instances (``object``, ``OSError``)."""
    while type(namespace_of(cls).get("__new__")) is not BuiltinFunctionType:
        cls = _base(cls)
    return cls


@per_class
def slots_of(cls: type) -> dict[str, tuple[MemberDescriptorType, bool]]:
    """The slots of a class and its bases, and whether each is one of C's, where ``None`` stands for "not set"."""
    found: dict[str, tuple[MemberDescriptorType, bool]] = {}
    for owner in _mro(cls):
        if owner in (object, Exception, BaseException):
            continue
        namespace = namespace_of(owner)
        for name, member in namespace.items():
            if type(member) is MemberDescriptorType:
                found.setdefault(name, (member, "__slots__" not in namespace))
    return found


def attributes(instance: Any) -> dict[str, Any]:
    """What an instance holds, in its ``__dict__`` and in its slots."""
    found = dict(getattr(instance, "__dict__", ()))
    # Left by calling a parametrised generic, Box[int](1): a note of typing's, no part of the value.
    found.pop("__orig_class__", None)
    for name, (member, of_c) in slots_of(type(instance)).items():
        try:
            value = member.__get__(instance)
        except AttributeError:
            continue  # not set, and so it stays
        if value is not None or not of_c:
            found[name] = value
    return found


def fill(instance: Any, values: Mapping[str, Any]) -> None:
    """Give an instance back what it held. Raises :exc:`ClassNotLoaded` if there is no place for it any more."""
    slots = slots_of(type(instance))
    for name, value in values.items():
        if name in slots:
            slots[name][0].__set__(instance, value)
        else:
            _dict_of(instance)[text(name)] = value


def _dict_of(instance: Any) -> dict[str, Any]:
    try:
        return object.__getattribute__(instance, "__dict__")  # type: ignore[no-any-return]
    except AttributeError as exc:
        cls = type(instance)
        raise ClassNotLoaded(f"{cls.__module__}.{cls.__qualname__}", "it has other slots than it had") from exc


def inherited(cls: type, name: str) -> Any:
    """What the class or a base of it has under this name in its namespace, or ``None``."""
    return next((namespace_of(owner)[name] for owner in _mro(cls) if name in namespace_of(owner)), None)
