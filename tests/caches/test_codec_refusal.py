"""What cannot be cached is refused with its place, its type and what to return instead."""

from __future__ import annotations

import array
import asyncio
import collections
import datetime as dt
import fractions
import functools
import io
import pathlib
import re
import tempfile
import threading
import types
from typing import Any

import httpx
import msgpack  # type: ignore[import-untyped,unused-ignore]
import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.http import HttpResponse
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from stepflows.caches.codec import Codec
from stepflows.errors import NotCacheable
from stepflows.results import Err, Ok
from tests.caches.codec_models import Money, Point, Row, again


def refused(value: Any) -> NotCacheable:
    with pytest.raises(NotCacheable) as caught:
        Codec().encode(Ok(value))
    return caught.value


class Text(str):
    __slots__ = ()


class Date(dt.date):
    pass


class Zone(dt.tzinfo):
    """A time zone of one's own."""

    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=1)

    dst = utcoffset

    def tzname(self, when: dt.datetime | None) -> str:
        return "own"


class Thing:
    pass


async def _coroutine() -> None:
    pass


async def _async_generator() -> Any:
    yield 1


AS_LIST = "Return list(value)."
CASES = [
    (lambda: User(username="a"), "a model instance (django.contrib.auth.models.User)", "Return its primary key"),
    (lambda: User.objects.filter(pk=1), "a queryset", "Return list(queryset.values(...))."),
    (lambda: User.objects, "a manager", "Return list(manager.values(...))."),
    (lambda: gettext_lazy("a"), "a lazy text", "Return str(value)."),
    (lambda: SimpleLazyObject(lambda: 1 / 0), "a lazy object", "Return the data you need"),
    (lambda: mark_safe("a"), "a text marked safe", 'Return "".join(value)'),
    (HttpResponse, "a response", "Return its status and its content"),
    (lambda: httpx.Response(200), "a response", "Return its status and its content"),
    (lambda: ContentFile(b""), "an open file", "Return its path or its contents."),
    (lambda: io.BytesIO(b"a"), "a buffer", "Return value.getvalue()."),
    (lambda: (x for x in "a"), "a generator", AS_LIST),
    (lambda: iter([1]), "an iterable (list_iterator)", AS_LIST),
    (lambda: map(str, []), "an iterable (map)", AS_LIST),
    (_async_generator, "an async generator", "async for"),
    (lambda: len, "a function", "Call it"),
    (lambda: lambda: 1, "a function", "Call it"),
    (lambda: [].append, "a function", "Call it"),
    (lambda: functools.partial(len), "a function", "Call it"),
    (lambda: Thing, "a class", "Return its name"),
    (lambda: re, "an object (module)", "Return plain data"),
    (threading.Lock, "an object (_thread.lock)", "Return plain data"),
    (Thing, "an object", "make the class a dataclass"),
    (lambda: bytearray(b"a"), "a buffer of bytes (bytearray)", "Return bytes(value)."),
    (lambda: memoryview(b"a"), "a buffer of bytes (memoryview)", "Return bytes(value)."),
    (lambda: 1j, "an object (complex)", "Return plain data"),
    (lambda: fractions.Fraction(1, 2), "an object (fractions.Fraction)", "Return plain data"),
    (lambda: pathlib.Path("a"), "a path", "Return str(value)."),
    (Zone, "a time zone of another kind", "Use zoneinfo.ZoneInfo"),
    (lambda: re.compile("a"), "an object (re.Pattern)", "Return plain data"),
    (lambda: range(3), "an iterable (range)", AS_LIST),
    (lambda: {}.keys(), "an iterable (dict_keys)", AS_LIST),
    (lambda: collections.deque([1]), "an iterable (collections.deque)", AS_LIST),
    (lambda: array.array("i", [1]), "an array", "Return value.tolist()."),
    (lambda: types.MappingProxyType({}), "a view of a dict", "Return dict(value)."),
    (lambda: types.SimpleNamespace(), "an object (types.SimpleNamespace)", "Return plain data"),
    (lambda: Text("a"), "a subclass of str", "Return str(value)."),
    (lambda: Date(2026, 1, 1), "a subclass of date", "Return a plain datetime.date."),
    (lambda: collections.OrderedDict(a=1), "a subclass of dict (collections.OrderedDict)", "Return dict(value)."),
    (lambda: collections.defaultdict(list), "a subclass of dict", "Return dict(value)."),
    (lambda: collections.Counter("a"), "a subclass of dict", "Return dict(value)."),
    (lambda: msgpack.ExtType(1, b""), "ExtType", "Return"),
    (lambda: msgpack.Timestamp(1), "Timestamp", "Return"),
]


@pytest.mark.parametrize(("make", "reason", "remedy"), CASES, ids=[case[1] + str(i) for i, case in enumerate(CASES)])
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [1.5, {"a": (v,)}]], ids=["alone", "inside"])
def test_what_cannot_be_cached_names_its_remedy(make, reason, remedy, wrap):
    """Each is refused with what it is and what to return instead, wherever in the value it lies."""
    found = refused(wrap(make()))
    assert reason in found.reason
    assert remedy in found.remedy
    assert found.path == ("" if wrap(1) == 1 else '[1]["a"][0]')


def test_files_are_refused(tmp_path):
    """Open files are refused, temporary ones too."""
    with (tmp_path / "a").open("w") as file, tempfile.NamedTemporaryFile() as temporary:
        assert "an open file (_io.TextIOWrapper)" in refused(file).reason
        assert "an open file" in refused(temporary).reason


async def test_awaitables_are_refused():
    """A coroutine or a future was not awaited, and the remedy says so."""
    coroutine = _coroutine()
    future = asyncio.get_running_loop().create_future()
    assert "Await it" in refused(coroutine).remedy
    assert "Await it" in refused([future]).remedy
    coroutine.close()


@pytest.mark.parametrize("value", [mark_safe("a"), Text("b"), collections.OrderedDict(a=1)])
def test_the_remedies_work(value):
    """What the remedy says gives a value that can be cached."""
    remedy = refused(value).remedy.removeprefix("Return ").split(", ")[0].rstrip(".")
    assert again(eval(remedy)) == value


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"rows": [1, 2, 3, Point(1, LOCK)]}, '["rows"][3].y'),
        ([Row(1, {"k": LOCK})], '[0].name["k"]'),
        ({1: LOCK}, "[1]"),
        ({(1, 2): LOCK}, "[(1, 2)]"),
        ({'a"b': LOCK}, "['a\"b']"),
        ({"a\n": LOCK}, "['a\\n']"),
        ({LOCK: 1}, f"[{LOCK!r:.59}…]" if len(repr(LOCK)) > 60 else f"[{LOCK!r}]"),
        ({pathlib.PurePosixPath("a")}, "{PurePosixPath('a')}"),
        (frozenset([Money(pathlib.PurePosixPath("a"))]), None),
        ((1, (2, LOCK)), "[1][1]"),
        ([[bytearray(1)], LOCK], "[0][0]"),
        ({"x" * 100: LOCK}, '["' + "x" * 58 + "…]"),
        ({10**5000: LOCK}, "[<unprintable int>]"),
        (dt.datetime(2026, 1, 1, tzinfo=Zone()), ""),
        ([dt.time(1, tzinfo=Zone())], "[0]"),
        ([Point(1), {"a": [Point(Point(LOCK))]}], '[1]["a"][0].x.x'),
    ],
    ids=range(16),
)
def test_the_place_is_named(value, path):
    """The path leads to the first part that cannot be cached, in the order of the value."""
    found = refused(value)
    if path is None:
        assert found.path.endswith("}.amount")
    else:
        assert found.path == path


def test_the_message_reads_as_a_sentence():
    """The message names place, type and remedy."""
    found = refused({"rows": [{"owner": User(username="a")}]})
    assert str(found) == (
        "The value cannot be cached: a model instance (django.contrib.auth.models.User) at "
        'value["rows"][0]["owner"]. Return its primary key, or a dict of the fields you need.'
    )


def test_the_place_in_an_error_is_named():
    """An ``Err`` whose error is data that cannot be cached is refused too."""
    with pytest.raises(NotCacheable) as caught:
        Codec().encode(Err({"a": LOCK}))
    assert caught.value.path == '.error["a"]'


def _ring(kind: str) -> Any:
    ring: Any = {"list": [], "dict": {}, "dataclass": Point(1)}[kind]
    if kind == "list":
        ring.append([ring])
    elif kind == "dict":
        ring["a"] = (ring,)
    else:
        ring.y = [ring]
    return ring


@pytest.mark.parametrize(("kind", "path"), [("list", "[0][0]"), ("dict", '["a"][0]'), ("dataclass", ".y[0]")])
def test_circles_are_refused(kind, path):
    """A value that holds itself is refused, at the place where it does."""
    found = refused(_ring(kind))
    assert (found.reason, found.path) == ("it refers to itself", path)


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"a": v}, Point])
def test_depth_is_refused(wrap):
    """A value that is nested too deeply to be read again is refused, and says so."""
    value: Any = 1
    for _ in range(5000):
        value = wrap(value)
    found = refused(value)
    assert (found.reason, found.remedy) == ("it is nested too deeply", "Return flatter data.")


def test_one_level_too_many_is_refused():
    """A dict that is too deep although what lies in it is not is refused as a whole."""
    value: Any = 1
    with pytest.raises(NotCacheable, match="nested too deeply") as caught:
        while True:
            value = {"a": value}
            Codec().encode(Ok(value))
    assert caught.value.path == ""
    assert again(value["a"])


def test_depth_of_both_kinds_does_not_exhaust_the_stack():
    """Tuples and lists in each other to the limits of both are refused or kept, and crash nothing."""
    value: Any = 1
    for _ in range(60):
        value = (value,)
        for _ in range(500):
            value = [value]
    outcome: list[Any] = []

    def attempt() -> None:
        try:
            outcome.append(Codec().decode(Codec().encode(Ok(value))).ok)
        except NotCacheable as exc:
            outcome.append(exc)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert len(outcome) == 1


def test_bytes_that_look_like_marks_are_kept():
    """Bytes and texts that hold msgpack's own marks are no reason to refuse."""
    value = {"a": [b"\xc4\xc5", "ńąż", 1e300, {"b": [[bytes(range(256))]]}], b"\xc7": ["א"]}
    assert again(value) == value


def test_a_sequence_with_foreign_keys_is_refused():
    """A memoryview as the key of a dict is refused."""
    assert "memoryview" in refused({memoryview(b"a"): 1}).reason


def test_a_time_zone_that_is_a_file_is_refused():
    """A zone made from a file has no name to find it by."""
    from importlib.resources import files
    from zoneinfo import ZoneInfo

    with files("tzdata.zoneinfo").joinpath("UTC").open("rb") as file:
        zone = ZoneInfo.from_file(file)
    assert "not in the time zone database" in refused([zone]).reason


def test_too_large_a_value_names_size_and_limit():
    """A value above the limit is refused with its size, the limit and the setting."""
    with pytest.raises(NotCacheable) as caught:
        Codec(max_bytes=1000).encode(Ok("x" * 2000))
    assert re.search(r"it takes 2,\d\d\d bytes and the limit is 1,000", str(caught.value))
    assert "STEPFLOWS['MAX_VALUE_BYTES']" in caught.value.remedy
    assert Codec(max_bytes=3000).encode(Ok("x" * 2000))
