"""Without SIGN, nothing that is read takes more memory than what an entry of that size may hold."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from msgpack import ExtType  # type: ignore[import-untyped,unused-ignore]

from stepflows import Err, NotCacheable, Ok, create_workflow
from stepflows.caches.codec import Codec
from stepflows.engine.cache import Damaged
from stepflows.errors import ClassNotLoaded
from tests.security.forging import entry, exception, ext, failure, packed, plant

SET, INT, DATETIME, DATE, TIMEDELTA, TIMEZONE, DECIMAL, UUID = 2, 4, 5, 6, 8, 9, 11, 12
MOST = 2**32 - 1
SIZE = 200_000


def decoded(data: bytes, codec: Codec | None = None) -> tuple[Any, int]:
    """What an entry comes to, and how many bytes that took at the most."""
    tracemalloc.start()
    try:
        found = (codec or Codec()).decode(data, "checkout", "user:1")
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def claim(mark: int, length: int = MOST, form: str = ">BI") -> bytes:
    return struct.pack(form, mark, length)


LIST, MAP, TEXT, BYTES, EXT = 0xDD, 0xDF, 0xDB, 0xC6, 0xC9
LISTS = claim(LIST, SIZE // 2) * 400 + b"\xc0" * SIZE
CLAIMS = {
    "a list of 4 billion": claim(LIST),
    "a dict of 4 billion": claim(MAP),
    "a text of 4 GB": claim(TEXT),
    "bytes of 4 GB": claim(BYTES),
    "an extension of 4 GB": claim(EXT) + b"\x01",
    "lists that each claim the rest": LISTS,
    "dicts that each claim the rest": (claim(MAP, SIZE // 2) + b"\xc0") * 400 + b"\xc0" * SIZE,
    "such lists in an extension": packed(ExtType(1, LISTS)),
    "such lists in extensions in each other": packed(ExtType(1, packed([ExtType(1, LISTS)]))),
    "such lists in an argument of an error": packed([exception("builtins:ValueError", ExtType(1, LISTS))]),
    "65,535 in short lists": claim(LIST - 1, 0xFFFF, ">BH") * 500 + b"\xc0" * 70_000,
}


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize("ok", [True, False], ids=["value", "error"])
def test_no_room_is_made_for_what_is_only_claimed(name: str, ok: bool):
    """A head of a few bytes that claims billions of things is damaged, before there is any room for them."""
    payload = CLAIMS[name]
    found, peak = decoded(entry(payload, ok=ok))
    assert isinstance(found, Damaged | Err)
    assert peak < 4 * len(payload) + 100_000


@pytest.mark.parametrize("name", ["a list of 4 billion", "lists that each claim the rest", "65,535 in short lists"])
def test_no_room_is_made_for_what_a_head_claims(name: str):
    """Nor for the head of an entry, which a listing reads without the checksum."""
    head = CLAIMS[name][:60_000]
    data = struct.pack(">4sBBHQ", b"\xc1sf\n", 1, 1, len(head), 2**63) + head
    tracemalloc.start()
    try:
        assert isinstance(Codec().head(data), Damaged)
        assert isinstance(Codec().decode(data), Damaged)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(data) + 100_000
    finally:
        tracemalloc.stop()


def test_no_room_is_made_where_the_place_of_an_error_is_looked_for():
    """The page of a cached step reads where an error was raised; the same holds there."""
    data = failure(ExtType(15, LISTS))
    tracemalloc.start()
    try:
        assert Codec().origin(data) == []
        assert tracemalloc.get_traced_memory()[1] < 8 * len(data)
    finally:
        tracemalloc.stop()


MANY: dict[str, Callable[[int], bytes]] = {
    "dicts": lambda size: claim(LIST, size) + b"\x80" * size,
    "lists": lambda size: claim(LIST, size) + b"\x90" * size,
    "sets": lambda size: claim(LIST, size // 3) + b"\xd4\x02\x90" * (size // 3),
    "tuples of dicts": lambda size: packed(ExtType(1, claim(LIST, size) + b"\x80" * size)),
    "errors": lambda size: packed([exception("builtins:KeyError") for _ in range(size // 40)]),
}


@pytest.mark.parametrize("name", MANY)
def test_what_is_there_takes_at_most_a_hundred_times_its_bytes(name: str):
    """The most that a byte can stand for is an empty set or dict."""
    found, peak = decoded(entry(MANY[name](SIZE)))
    assert isinstance(found, Ok)
    assert peak < 100 * SIZE


@pytest.mark.parametrize("name", MANY)
def test_no_more_is_read_than_may_be_stored(name: str):
    """A larger one than MAX_VALUE_BYTES is not unpacked. Its step has run, so it fails and does not run again."""
    data = entry(MANY[name](SIZE), ok=name != "errors")
    found, peak = decoded(data, Codec(max_bytes=10_000))
    assert isinstance(found, Err)
    assert isinstance(found.error, NotCacheable)
    assert peak < 20_000
    assert Codec(max_bytes=10_000).origin(data) == []


def test_what_is_too_large_to_be_read_says_so(settings: Any):
    """The error names the limit and what to do, and the step is not run, which may have charged a card."""
    settings.STEPFLOWS = {"MAX_VALUE_BYTES": 1000}
    plant("locmem", entry(packed("x" * 2000)))
    flow = create_workflow("checkout", {}, cache="locmem")
    result = flow.run(lambda step, deps: step("load", lambda: "ran", key="user:1"))
    assert isinstance(result, Err)
    assert "what is stored takes 2,003 bytes and the limit is 1,000. Clear the key, or raise" in str(result.error)


#: Each is at most 1 kB, and would be huge, or take long, if it were worked out.
TINY = {
    "an exponent": ext(DECIMAL, "1E+999999999999999999"),
    "an exponent beyond all": ext(DECIMAL, "1E+" + "9" * 200),
    "a span beyond all": ext(TIMEDELTA, 10**15, 0, 0),
    "a span of no number": ext(TIMEDELTA, float("nan"), float("inf"), 0),
    "a span of seven parts": ext(TIMEDELTA, *[2**63] * 7),
    "a day beyond all": ext(DATE, 2**63),
    "a year beyond all": ext(DATETIME, 2**63, 1, 1, 0, 0, 0, 0, 0, None),
    "an offset of years": ext(TIMEZONE, ext(TIMEDELTA, 999_999_999, 0, 0)),
    "an offset that is text": ext(TIMEZONE, "x" * 100, "y" * 100),
    "a number as text": ext(INT, "0b" + "1" * 500),
    "a UUID of text": ext(UUID, "x" * 16),
    "a UUID of numbers": ext(UUID, [1] * 16),
    "a decimal of an int": ext(DECIMAL, ext(INT, "f" * 500)),
    "a decimal of a tuple": ext(DECIMAL, ext(1, 0, [1], 10**18)),
}


@pytest.mark.parametrize("name", TINY)
def test_small_things_stay_small(name: str):
    """An exponent, a span or a date of any size is a number of that size, or damaged; it is not worked out."""
    began = time.monotonic()
    found, peak = decoded(entry(packed(TINY[name])))
    assert isinstance(found, Ok | Damaged) or isinstance(found.error, ClassNotLoaded)
    assert peak < 100_000
    assert time.monotonic() - began < 5


def test_a_number_of_a_million_digits_takes_no_time():
    """The digits are hexadecimal, which is quick; as a Decimal, an int would take as long as the square of that."""
    for kind in (INT, DECIMAL):
        found, peak = decoded(entry(packed(ext(kind, "7" * 1_000_000))))
        assert isinstance(found, Ok)
        assert peak < 10_000_000
    found, _ = decoded(entry(packed(ext(DECIMAL, ext(INT, "7" * 1_000_000)))))
    assert isinstance(found, Damaged)


DEEP = """
import sys, threading
from msgpack import ExtType, packb
from stepflows.caches.codec import Codec
from tests.security.forging import entry, exception, packed

def nested(depth, lists, code):
    payload = b"\\x90"
    for _ in range(depth):
        payload = packb(ExtType(code, b"\\x91" * lists + payload))
    return payload

def read():
    for depth, lists in [(1, 100_000), (1, 500), (63, 1), (64, 500), (65, 1), (10_000, 1), (300, 400)]:
        for code in (1, 2, 14, 15):
            Codec().decode(entry(nested(depth, lists, code)), "checkout", "user:1")
            Codec().origin(entry(nested(depth, lists, code), ok=False))
    error = exception("builtins:ValueError")
    for _ in range(200):
        error = exception("builtins:ExceptionGroup", "x", [error], state={"a": error})
        if len(packed(error)) > 500_000:
            break
        Codec().decode(entry(packed([error]), ok=False), "checkout", "user:1")
    print("alive")

threading.stack_size(1024 * 1024)
thread = threading.Thread(target=read)
thread.start()
thread.join()
"""


def test_no_depth_exhausts_the_stack():
    """Lists in extensions in lists, however deep, do not end the process, in a thread with 1 MB of stack either."""
    done = subprocess.run([sys.executable, "-c", DEEP], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr[-2000:]
