"""Values of every supported type come back equal and of the same type."""

from __future__ import annotations

import datetime as dt
import sys
import uuid
from decimal import Decimal, localcontext
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stepflows.caches.codec import Codec
from stepflows.errors import ClassNotLoaded
from stepflows.results import Err, Ok
from tests.caches.codec_models import (
    Access,
    Colour,
    Mode,
    Money,
    Outer,
    Pair,
    Point,
    Row,
    Size,
    Slim,
    Word,
    again,
    same,
)

_surrogates = st.text(st.characters(exclude_categories=[]), max_size=8)
_offsets = st.builds(dt.timedelta, minutes=st.integers(-1439, 1439), seconds=st.integers(0, 59))
_zones = st.one_of(
    st.builds(dt.timezone, _offsets.filter(lambda o: abs(o) < dt.timedelta(hours=24))),
    st.just(dt.timezone(dt.timedelta(hours=2), "Here")),
    st.just(dt.UTC),
    st.sampled_from(["Europe/Rome", "UTC", "America/New_York"]).map(ZoneInfo),
)
_maybe_zone = st.none() | _zones
_enums = st.sampled_from([*Colour, *Size, *Word, *Access, *Mode, Outer.Inner.ONE]) | st.builds(
    Access, st.integers(0, 7)
)
_hashable_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    _surrogates,
    st.binary(max_size=8),
    st.datetimes(timezones=st.none()),
    st.builds(lambda d, z, f: d.replace(tzinfo=z, fold=f), st.datetimes(), _maybe_zone, st.integers(0, 1)),
    st.dates(),
    st.builds(lambda t, z, f: t.replace(tzinfo=z, fold=f), st.times(), _maybe_zone, st.integers(0, 1)),
    st.timedeltas(),
    _zones,
    st.decimals(),
    st.uuids(),
    _enums,
)
# Deferred, because the names of these strategies would be whole pages in a report.
_leaf_keys: st.SearchStrategy[Any] = st.deferred(lambda: _hashable_leaves)
_hashable: st.SearchStrategy[Any] = st.deferred(lambda: _all_hashable)
values: st.SearchStrategy[Any] = st.deferred(lambda: _all_values)
_all_hashable: st.SearchStrategy[Any] = st.recursive(
    _leaf_keys.filter(lambda v: not (isinstance(v, Decimal) and v.is_snan())),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(inner, max_size=3),
        st.builds(Money, inner),
        st.builds(Slim, inner, inner),
        st.builds(Row, inner, inner),
    ),
    max_leaves=5,
)
_all_values: st.SearchStrategy[Any] = st.recursive(
    _hashable | st.just(Decimal("sNaN")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.sets(_hashable, max_size=4),
        st.dictionaries(_hashable, inner, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(Slim, inner, inner),
        st.builds(Pair, inner, inner),
    ),
    max_leaves=12,
)


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(values)
@example({1: "a", "1": 2, (1, True): {frozenset({b"x"}): [None]}})
@example("\ud83d\ude00 \udc00")
def test_any_value_comes_back(value):
    """Whatever is built of the supported types comes back equal and of the same type at every depth."""
    assert same(again(value), value)


@settings(max_examples=60)
@given(_hashable)
def test_any_hashable_value_is_a_key(key):
    """Whatever can be hashed may be the key of a dict and the member of a set."""
    assert same(again({key: 1}), {key: 1})
    assert same(again({key}), {key})


@pytest.mark.parametrize(
    "value",
    [
        *[2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**5000, -(10**5000), 127, 128, -128, -129],
        *[float("nan"), float("inf"), -float("inf"), -0.0, 5e-324],
        *[Decimal(text) for text in ("NaN", "-NaN123", "sNaN7", "Infinity", "-Infinity", "-0E+5", "1E-999999", "1.50")],
        *[dt.timedelta.min, dt.timedelta.max, dt.date.min, dt.date.max, dt.time.max],
        *[dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999)],  # noqa: DTZ001
        dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Rome")),
        dt.time(2, 30, tzinfo=dt.UTC, fold=1),
        dt.timezone(dt.timedelta(0), "UTC"),
        *["", b"", [], (), set(), frozenset(), {}, None, False, 0],
        "\ud800",
        [True, 1, 1.0],
        ((((),),),),
        Access.READ | Access.WRITE,
        Access(0),
        Mode(3),
        Mode(64),
    ],
    ids=lambda value: (
        f"{type(value).__name__} {value!r:.30}" if type(value) is not int else f"{value.bit_length()} bits"
    ),
)
def test_a_corner_comes_back(value):
    """Values at the ends of their types' ranges come back as they are."""
    assert same(again(value), value)
    if isinstance(value, Decimal):
        assert str(again(value)) == str(value)


def test_order_and_types_of_keys_are_kept():
    """A dict comes back in its order, with keys of the types they had."""
    keys = [3, "3", 2.5, None, (1, 2), b"3", Size.LARGE, Word.YES, Colour.RED, uuid.UUID(int=3), dt.date(2026, 1, 1)]
    found = again(dict.fromkeys(keys))
    assert [(key, type(key)) for key in found] == [(key, type(key)) for key in keys]


def test_utc_is_the_one_utc():
    """``timezone.utc`` and a flag or member of an enum come back as the very objects."""
    assert again(dt.UTC) is dt.UTC
    assert again(Colour.CRIMSON) is Colour.RED
    assert again(Access.READ | Access.EXECUTE) is (Access.READ | Access.EXECUTE)


def test_decimals_do_not_depend_on_the_context():
    """A decimal keeps all its digits whatever the precision in force."""
    value = Decimal("1." + "3" * 60)
    with localcontext() as context:
        context.prec = 5
        context.capitals = 0
        assert same(again(value * 1), value * 1)
        assert same(again(value), value)


@settings(max_examples=50)
@given(value=values, cause=values)
def test_an_error_that_is_data_comes_back_with_its_cause(value, cause):
    """``Err(error, cause)`` comes back with both, equal and of the same types."""
    found = Codec().decode(Codec().encode(Err(value, cause)))
    assert isinstance(found, Err)
    assert same(found.error, value)
    assert same(found.cause, cause)


def test_deep_values_come_back():
    """Four hundred lists in each other, and fifty tuples in each other, are not too deep."""
    deep: object = 1
    for _ in range(50):
        deep = (deep,)
    for _ in range(400):
        deep = [deep]
    assert again(deep) == deep


def test_every_time_zone_comes_back():
    """Every zone of the database comes back as itself."""
    zones = {ZoneInfo(key) for key in available_timezones()}
    assert again(zones) == zones


def test_an_unknown_time_zone_is_a_missing_class(monkeypatch):
    """A zone that this machine does not have leaves the entry intact, and its name never picks a file."""
    data = Codec().encode(Ok(ZoneInfo("Europe/Rome")))
    monkeypatch.setattr("stepflows.caches.codec.types._known_zones", set)
    found = Codec().decode(data)
    assert isinstance(found, Err)
    assert isinstance(found.error, ClassNotLoaded)
    assert "Europe/Rome" in str(found.error)


def test_nothing_is_imported_for_a_type():
    """Reading standard types loads no module."""
    data = Codec().encode(Ok([dt.datetime(2026, 1, 1, tzinfo=dt.UTC), Decimal(1), uuid.uuid4(), ZoneInfo("UTC")]))
    before = set(sys.modules)
    assert Codec().decode(data).ok
    assert set(sys.modules) == before
