"""The types of the standard library that msgpack does not know, each with its own code.

Every value is rebuilt through a constructor that checks ranges, which the pickle state of a ``datetime`` does not.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from stepflows.errors import ClassNotLoaded, NotCacheable

__all__ = ["KINDS", "Kind"]

T = TypeVar("T")


class Kind(NamedTuple):
    """One kind of value that msgpack does not know."""

    code: int
    #: The parts of a value, which msgpack or other kinds know.
    write: Callable[[Any], list[Any]]
    #: The value of such parts. Raises ``ValueError`` and its like for other parts.
    read: Callable[..., Any]


def _write_datetime(value: datetime) -> list[Any]:
    return [value.year, value.month, value.day, *_write_time(value)]


def _read_datetime(
    year: int, month: int, day: int, hour: int, minute: int, second: int, microsecond: int, fold: int, zone: Any
) -> datetime:
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _write_time(value: datetime | time) -> list[Any]:
    return [value.hour, value.minute, value.second, value.microsecond, value.fold, value.tzinfo]


def _read_time(hour: int, minute: int, second: int, microsecond: int, fold: int, zone: Any) -> time:
    return time(hour, minute, second, microsecond, zone, fold=fold)


def _write_timezone(value: timezone) -> list[Any]:
    # What pickle asks for: (offset,) or (offset, name). There is no other way to tell whether a name was given.
    return list(value.__getinitargs__())  # type: ignore[attr-defined]


def _write_zoneinfo(value: ZoneInfo) -> list[Any]:
    if value.key not in _known_zones():
        reason = f"a time zone that is not in the time zone database ({value!r})"
        raise NotCacheable(reason, remedy="Use a zone of zoneinfo.available_timezones().")
    return [value.key]


def _read_zoneinfo(key: str) -> ZoneInfo:
    # A key from outside must not choose a file, so the database is asked for its names first.
    if key not in _known_zones():
        raise ClassNotLoaded(f"time zone {key[:100]!r}", "the time zone database of this machine does not have it")
    return ZoneInfo(key)


def _read_decimal(text: str) -> Decimal:
    # Of a huge int, Decimal would take as long as the square of its length.
    return Decimal(_plain(str, text))


def _read_uuid(data: bytes) -> UUID:
    # UUID would only assert it.
    return UUID(bytes=_plain(bytes, data))


def _plain(cls: type[T], part: T) -> T:
    if type(part) is not cls:
        raise TypeError(f"{cls.__name__} is needed and not {type(part).__name__}")
    return part


@lru_cache(maxsize=1)
def _known_zones() -> set[str]:
    return available_timezones()


#: By exact type: a subclass would come back as something else. The codes are part of the format and never change.
KINDS: dict[type, Kind] = {
    tuple: Kind(1, list, lambda *items: items),
    set: Kind(2, list, lambda *items: set(items)),
    frozenset: Kind(3, list, lambda *items: frozenset(items)),
    # Hexadecimal, because it takes no time and has no limit.
    int: Kind(4, lambda value: [hex(value)], lambda text: int(text, 16)),
    datetime: Kind(5, _write_datetime, _read_datetime),
    date: Kind(6, lambda value: [value.toordinal()], date.fromordinal),
    time: Kind(7, _write_time, _read_time),
    timedelta: Kind(8, lambda value: [value.days, value.seconds, value.microseconds], timedelta),
    timezone: Kind(9, _write_timezone, timezone),
    ZoneInfo: Kind(10, _write_zoneinfo, _read_zoneinfo),
    Decimal: Kind(11, lambda value: [str(value)], _read_decimal),
    UUID: Kind(12, lambda value: [value.bytes], _read_uuid),
}
