"""The types of the standard library that msgpack does not know, each with its own code.

Every value is rebuilt through its constructor, because a constructor checks ranges and the pickle state of a
``datetime`` does not.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import lru_cache
from struct import Struct
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from stepflows.caches.kind import Kind, Unpack, Writing, items
from stepflows.errors import ClassNotLoaded, NotCacheable

__all__ = ["KINDS"]

_DATETIME = Struct(">HBBBBBIB")
_DATE = Struct(">HBB")
_TIME = Struct(">BBBIB")
_TIMEDELTA = Struct(">iII")


def _write_items(value: Any, writing: Writing) -> bytes:
    return writing.pack(list(value))


def _read_tuple(body: bytes, unpack: Unpack) -> tuple[Any, ...]:
    return tuple(items(body, unpack))


def _read_set(body: bytes, unpack: Unpack) -> set[Any]:
    return set(items(body, unpack))


def _read_frozenset(body: bytes, unpack: Unpack) -> frozenset[Any]:
    return frozenset(items(body, unpack))


def _write_int(value: int, _: Writing) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _read_int(body: bytes, _: Unpack) -> int:
    return int.from_bytes(body, "big", signed=True)


def _write_datetime(value: datetime, writing: Writing) -> bytes:
    moment = value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond
    return _DATETIME.pack(*moment, value.fold) + _write_zone_of(value.tzinfo, writing)


def _read_datetime(body: bytes, unpack: Unpack) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold = _DATETIME.unpack_from(body)
    zone = _read_zone_of(body[_DATETIME.size :], unpack)
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _write_date(value: date, _: Writing) -> bytes:
    return _DATE.pack(value.year, value.month, value.day)


def _read_date(body: bytes, unpack: Unpack) -> date:
    return date(*_DATE.unpack(body))


def _write_time(value: time, writing: Writing) -> bytes:
    clock = _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return clock + _write_zone_of(value.tzinfo, writing)


def _read_time(body: bytes, unpack: Unpack) -> time:
    hour, minute, second, microsecond, fold = _TIME.unpack_from(body)
    return time(hour, minute, second, microsecond, _read_zone_of(body[_TIME.size :], unpack), fold=fold)


def _write_zone_of(zone: tzinfo | None, writing: Writing) -> bytes:
    return b"" if zone is None else writing.pack(zone)


def _read_zone_of(body: bytes, unpack: Unpack) -> Any:
    return unpack(body) if body else None


def _write_timedelta(value: timedelta, _: Writing) -> bytes:
    return _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)


def _read_timedelta(body: bytes, unpack: Unpack) -> timedelta:
    days, seconds, microseconds = _TIMEDELTA.unpack(body)
    return timedelta(days, seconds, microseconds)


def _write_timezone(value: timezone, writing: Writing) -> bytes:
    # What pickle asks for: (offset,) or (offset, name). There is no other way to tell whether a name was given.
    return writing.pack(list(value.__getinitargs__()))  # type: ignore[attr-defined]


def _read_timezone(body: bytes, unpack: Unpack) -> timezone:
    return timezone(*items(body, unpack))


def _write_zoneinfo(value: ZoneInfo, _: Writing) -> bytes:
    if value.key not in _known_zones():
        reason = f"a time zone that is not in the time zone database ({value!r})"
        raise NotCacheable(reason, remedy="Use a zone of zoneinfo.available_timezones().")
    return value.key.encode()


def _read_zoneinfo(body: bytes, _: Unpack) -> ZoneInfo:
    key = body.decode()
    # A key from outside must not choose a file, so the database is asked for its names first.
    if key not in _known_zones():
        raise ClassNotLoaded(f"time zone {key[:100]!r}", "the time zone database of this machine does not have it")
    return ZoneInfo(key)


@lru_cache(maxsize=1)
def _known_zones() -> set[str]:
    return available_timezones()


def _write_decimal(value: Decimal, _: Writing) -> bytes:
    return str(value).encode()


def _read_decimal(body: bytes, _: Unpack) -> Decimal:
    return Decimal(body.decode("ascii"))


def _write_uuid(value: UUID, _: Writing) -> bytes:
    return value.bytes


def _read_uuid(body: bytes, _: Unpack) -> UUID:
    return UUID(bytes=body)


#: By exact type: a subclass would come back as something else. The codes are part of the format and never change.
KINDS: dict[type, Kind] = {
    tuple: Kind(1, _write_items, _read_tuple),
    set: Kind(2, _write_items, _read_set),
    frozenset: Kind(3, _write_items, _read_frozenset),
    int: Kind(4, _write_int, _read_int),
    datetime: Kind(5, _write_datetime, _read_datetime),
    date: Kind(6, _write_date, _read_date),
    time: Kind(7, _write_time, _read_time),
    timedelta: Kind(8, _write_timedelta, _read_timedelta),
    timezone: Kind(9, _write_timezone, _read_timezone),
    ZoneInfo: Kind(10, _write_zoneinfo, _read_zoneinfo),
    Decimal: Kind(11, _write_decimal, _read_decimal),
    UUID: Kind(12, _write_uuid, _read_uuid),
}
