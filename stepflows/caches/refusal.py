"""Finding the place inside a value that cannot be cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from stepflows.caches.classes import attributes, lasting_path
from stepflows.caches.exceptions import printed
from stepflows.caches.instances import DATACLASS, NAMED_TUPLE, fields_of
from stepflows.caches.wire import LOOKALIKES, Writer, kind_of
from stepflows.errors import NotCacheable

__all__ = ["located"]

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_MAX_SHOWN = 60
#: More than any value may have that can be packed; what lies deeper is refused for lying there.
_MAX_LEVEL = 3000


class _Place(NamedTuple):
    """A part of the value and how it is reached. Only the path of the one that is reported is ever spelt out."""

    value: Any
    parent: _Place | None = None
    form: str = ""
    label: Any = None
    level: int = 0

    def way(self) -> list[_Place]:
        """The places from the whole value to this one."""
        places: list[_Place] = []
        here: _Place | None = self
        while here is not None:
            places.append(here)
            here = here.parent
        return places[::-1]

    def path(self) -> str:
        return "".join(place.form % _shown(place.label) for place in self.way() if place.form)

    def closes_a_circle(self) -> bool:
        return any(place.value is self.value for place in self.way()[:-1])


def _shown(label: Any) -> str:
    if isinstance(label, _Name):
        return label
    shown = f'"{label}"' if type(label) is str and label.isprintable() and '"' not in label else printed(label, repr)
    return shown if len(shown) <= _MAX_SHOWN else shown[: _MAX_SHOWN - 1] + "…"


class _Name(str):
    """The name of an attribute, which is shown without quotes."""

    __slots__ = ()


def located(value: Any, refused: NotCacheable, prefix: str = "") -> NotCacheable:
    """``refused``, with the path of the first part of the value that cannot be cached."""
    rest = [_Place(value)]
    while rest:
        place = rest.pop()
        found = _refusal(place)
        if found is not None:
            return NotCacheable(found.reason, prefix + place.path(), found.remedy)
        parts = _parts_of(place.value)
        if parts is not None and place.level < _MAX_LEVEL:
            inner = (_Place(item, place, form, label, place.level + 1) for item, form, label in parts(place.value))
            rest.extend([part for part in inner if type(part.value) not in _SCALARS][::-1])
    return NotCacheable(refused.reason, prefix, refused.remedy)


def _refusal(place: _Place) -> NotCacheable | None:
    """Why this very part cannot be cached, leaving aside what lies in it."""
    value = place.value
    if _parts_of(value) is not None and place.closes_a_circle():
        return NotCacheable("it refers to itself", remedy="Return data without circles.")
    try:
        if _parts_of(value) is None:
            Writer().pack(value)
        elif type(value) not in _PARTS:
            lasting_path(type(value))
    except NotCacheable as exc:
        return exc
    return None


_Part = tuple[Any, str, Any]
_Parts = Callable[[Any], Iterator[_Part]]


def _parts_of(value: Any) -> _Parts | None:
    cls = type(value)
    kind = None if cls in LOOKALIKES else kind_of(cls)
    return _PARTS.get(cls) or (_attributes if kind is DATACLASS else _fields if kind is NAMED_TUPLE else None)


def _entries(value: dict[Any, Any]) -> Iterator[_Part]:
    for key, item in value.items():
        yield key, "[%s]", key
        yield item, "[%s]", key


def _items(value: list[Any]) -> Iterator[_Part]:
    return ((item, "[%s]", index) for index, item in enumerate(value))


def _members(value: set[Any]) -> Iterator[_Part]:
    return ((item, "{%s}", item) for item in value)


def _attributes(value: Any) -> Iterator[_Part]:
    return ((item, ".%s", _Name(name)) for name, item in attributes(value).items())


def _fields(value: Any) -> Iterator[_Part]:
    yield from ((item, ".%s", _Name(name)) for name, item in zip(fields_of(type(value)), value, strict=True))
    yield from _attributes(value)


_PARTS: dict[type, _Parts] = {dict: _entries, list: _items, tuple: _items, set: _members, frozenset: _members}
