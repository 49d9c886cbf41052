"""An entry holds a result with its stamp; anything else is damaged, whatever it is."""

from __future__ import annotations

import enum
import os
import pickle
import struct
import subprocess
import sys
import time
from pathlib import Path
from zlib import crc32
from zoneinfo import ZoneInfo

import msgpack  # type: ignore[import-untyped,unused-ignore]
import pytest
from django.utils.safestring import mark_safe
from hypothesis import given, settings
from hypothesis import strategies as st

from stepflows.caches.codec import Codec, Head, Signer, Truncated, current_codec, dumps, loads
from stepflows.engine.cache import Damaged
from stepflows.errors import ClassNotLoaded, DamagedEntry, InvalidUse
from stepflows.results import Err, Ok, Stamp
from tests.caches import codec_models as models
from tests.caches.codec_models import same
from tests.caches.test_codec_types import values

STAMP = Stamp("charge", 1790000000.25, 0.5, "run-1", 1790000600.0)
PLAIN = Codec()
SIGNED = Codec(signer=Signer("secret"))
SOME = Ok({"a": [1, (2, {3}), models.Money(4)], "e": ValueError("x", 1)}, stamp=STAMP)


def forged(payload: bytes, *, flags: int = 1, header: object = None, size: int | None = None) -> bytes:
    """An entry with a right checksum around any payload."""
    fields = ["", 0.0, 0.0, "", None, "", ""] if header is None else header
    packed = fields if isinstance(fields, bytes) else msgpack.packb(fields, default=str)
    length = len(payload) if size is None else size
    data = struct.pack(">4sBBHQ", b"\xc1sf\n", 1, flags, len(packed), length) + packed + payload
    return data + struct.pack(">I", crc32(data))


def ext(code: int, body: bytes) -> bytes:
    return bytes(msgpack.packb(msgpack.ExtType(code, body)))


def packed(value: object) -> bytes:
    return bytes(msgpack.packb(value))


def reason(data: object, codec: Codec = PLAIN, **options: str) -> str:
    found = codec.decode(data, **options)
    assert isinstance(found, Damaged), found
    assert not isinstance(codec.head(data), Truncated) or len(data) < 100
    return found.reason


# What an entry holds


@pytest.mark.parametrize("codec", [PLAIN, SIGNED], ids=["plain", "signed"])
@pytest.mark.parametrize(
    "stamp",
    [STAMP, Stamp(), Stamp("l\ud800", 1, 2, "r", 3), Stamp("x" * 200, float("inf"), -1.0, "ł" * 200, None)],
    ids=range(4),
)
def test_the_stamp_comes_back(codec, stamp):
    """Label, times, run and expiry come back with the result."""
    assert codec.decode(codec.encode(Ok(1, stamp=stamp), "s", "k"), "s", "k").stamp == stamp
    assert codec.decode(codec.encode(Err(1, stamp=stamp), "s", "k"), "s", "k").stamp == stamp


def test_a_result_without_a_stamp():
    """A result that never had a stamp comes back with an empty one."""
    assert PLAIN.decode(PLAIN.encode(Ok(1))).stamp == Stamp()


def test_subclasses_of_str_in_the_head_become_plain():
    """A label or key that is a member of a ``StrEnum`` is kept as its text."""

    class Steps(enum.StrEnum):
        CHARGE = "charge"

    data = PLAIN.encode(Ok(1, stamp=Stamp(Steps.CHARGE)), mark_safe("scope"), Steps.CHARGE)
    found = PLAIN.head(data)
    assert [type(part) for part in (found.scope, found.key, found.stamp.label)] == [str, str, str]
    assert PLAIN.decode(data, "scope", Steps.CHARGE).ok


def test_what_is_no_result_is_refused():
    """Only results with a sensible stamp can be encoded."""
    with pytest.raises(InvalidUse, match="Only Ok"):
        PLAIN.encode(5)
    with pytest.raises(InvalidUse, match="a stamp of texts and numbers"):
        PLAIN.encode(Ok(1, stamp=Stamp("a", "b")))
    with pytest.raises(InvalidUse, match="more than"):
        PLAIN.encode(Ok(1, stamp=Stamp("a" * 70_000)))


@pytest.mark.parametrize("codec", [PLAIN, SIGNED], ids=["plain", "signed"])
def test_an_entry_belongs_to_its_key(codec):
    """An entry that was moved to another key or scope is damaged."""
    data = codec.encode(SOME, "shop", "order:1")
    assert codec.decode(data).ok
    assert codec.decode(data, "shop").ok
    assert codec.decode(data, "shop", "order:1").ok
    for place in ({"scope": "shop", "key": "order:2"}, {"scope": "shop2", "key": "order:1"}, {"key": "order:1"}):
        assert "belongs to another key, 'order:1' of 'shop'" in reason(data, codec, **place)
    assert "another key" in reason(data, codec, scope="other")


def test_a_class_that_is_gone_keeps_stamp_and_key(monkeypatch):
    """A value of a missing class is an error with the stamp, but only under its own key."""
    data = PLAIN.encode(SOME, "s", "k")
    monkeypatch.delattr(models, "Money")
    found = PLAIN.decode(data, "s", "k")
    assert isinstance(found, Err)
    assert isinstance(found.error, ClassNotLoaded)
    assert found.stamp == STAMP
    assert "another key" in reason(data, scope="s", key="other")


def test_a_class_that_cannot_be_hashed_any_more(monkeypatch):
    """Members of a set and keys of a dict whose class has lost its hash make a changed class, not a damaged entry."""
    entries = [PLAIN.encode(Ok({models.Money(1)})), PLAIN.encode(Ok({models.Money(1): 1}))]
    monkeypatch.setattr(models.Money, "__hash__", None)
    for data in entries:
        found = PLAIN.decode(data)
        assert isinstance(found, Err)
        assert isinstance(found.error, ClassNotLoaded)
        assert "unhashable type: 'Money'" in str(found.error)


# The head


def test_the_head_is_read_from_the_first_bytes():
    """Scope, key, outcome, stamp and size come from the first 512 bytes of an entry of megabytes."""
    for result in (Ok("x" * 1_000_000, stamp=STAMP), Err("x" * 1_000_000, stamp=STAMP)):
        data = PLAIN.encode(result, "shop", "order:1")
        head = PLAIN.head(data[:512])
        assert head == Head("shop", "order:1", result.ok, STAMP, head.size)
        assert 1_000_000 < head.size < len(data)
        assert PLAIN.head(memoryview(data)[:512]) == head


def test_a_head_that_is_longer_says_how_long():
    """A head that does not fit into the bytes given says how many it takes."""
    data = PLAIN.encode(Ok(1, stamp=Stamp("ł" * 200)), "s", "ż" * 200)
    short = PLAIN.head(data[:512])
    assert isinstance(short, Truncated)
    assert 512 < short.size < len(data)
    assert isinstance(PLAIN.head(data[: short.size]), Head)
    assert isinstance(PLAIN.head(data[: short.size - 1]), Truncated)


@pytest.mark.parametrize(
    "data",
    [
        *[None, 5, "text", b"", b"x" * 600, PLAIN.encode(SOME)[:10], pickle.dumps(SOME.value["a"][:2])],
        forged(b"\xc0", header=[1, 2]),
        forged(b"\xc0", header=b"\x98\x01"),
        forged(b"\xc0", header=ext(10, b"../../etc/passwd")),
        forged(b"\xc0", header=ext(13, packed(["nowhere:Thing", "A"]))),
    ],
    ids=range(11),
)
def test_a_damaged_head_is_damaged(data):
    """Anything else than the beginning of an entry is damaged and asks for no more bytes."""
    found = PLAIN.head(data)
    assert isinstance(found, Damaged)
    assert not isinstance(found, Truncated)
    assert isinstance(PLAIN.decode(data), Damaged)


@settings(max_examples=100)
@given(st.binary(max_size=80))
def test_any_bytes_have_a_head_or_none(data):
    """Reading a head never raises."""
    assert isinstance(PLAIN.head(data), Head | Damaged)
    assert isinstance(PLAIN.head(b"\xc1sf\n\x01" + data), Head | Damaged)


# Total decoding


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes_are_damaged(data):
    """Any bytes at all give a result or ``Damaged``."""
    assert isinstance(PLAIN.decode(data), Damaged)
    assert isinstance(SIGNED.decode(data), Damaged)


@settings(max_examples=150)
@given(st.binary(max_size=100), st.integers(0, 3))
def test_any_payload_gives_a_result_or_damaged(payload, flags):
    """A right checksum around any payload gives a result or ``Damaged``, and raises nothing."""
    assert isinstance(PLAIN.decode(forged(payload, flags=flags)), Ok | Err | Damaged)


@settings(max_examples=150)
@given(st.integers(0, 20), values, st.binary(max_size=20))
def test_any_body_of_an_extension_gives_a_result_or_damaged(code, value, noise):
    """Extension types with any value, or with noise, for a body give a result or ``Damaged``."""
    inner = PLAIN.encode(Ok(value))
    body = inner[PLAIN.head(inner[:512]).size * -1 - 4 : -4]
    for each in (
        body,
        noise,
        packed([noise, 1]),
        packed(["builtins:ValueError", "m", [body], None, {"a": body}]),
    ):
        assert isinstance(PLAIN.decode(forged(ext(code, each))), Ok | Err | Damaged)
        assert isinstance(PLAIN.decode(forged(b"\x81" + ext(code, each) + b"\xc0")), Ok | Err | Damaged)


@st.composite
def _mutations(draw):
    value = draw(values)
    data = bytearray(draw(st.sampled_from([PLAIN, SIGNED])).encode(Ok(value, stamp=STAMP), "s", "k"))
    place = draw(st.integers(0, len(data) - 1))
    how = draw(st.sampled_from(["flip", "truncate", "insert", "remove"]))
    if how == "flip":
        data[place] ^= 1 << draw(st.integers(0, 7))
    elif how == "truncate":
        del data[place:]
    elif how == "insert":
        data[place:place] = draw(st.binary(min_size=1, max_size=5))
    else:
        del data[place]
    return value, bytes(data)


@settings(max_examples=150)
@given(_mutations())
def test_any_mutation_is_damaged(mutation):
    """A bit that flips, a byte that is lost or comes in, an end that is cut off: found every time."""
    value, data = mutation
    assert isinstance(SIGNED.decode(data), Damaged)
    found = PLAIN.decode(data)
    # Without a signer a signature is not looked at.
    assert isinstance(found, Damaged) or (same(found.value, value) and found.stamp == STAMP)


def test_every_bit_counts():
    """Each single bit of an entry, signed or not, is covered."""
    for codec in (PLAIN, SIGNED):
        data = codec.encode(Ok([1, "a"], stamp=STAMP), "s", "k")
        for bit in range(len(data) * 8):
            mutant = bytearray(data)
            mutant[bit // 8] ^= 1 << bit % 8
            assert isinstance(codec.decode(bytes(mutant)), Damaged), bit


@pytest.mark.parametrize("data", [None, 5, "text", [1], object(), 1.5, {}, Ok(1), type], ids=range(9))
def test_what_is_no_bytes_is_damaged(data):
    """A cache that hands out something else than bytes holds no entry."""
    assert "it is no bytes but" in reason_of_object(data)


def reason_of_object(data: object) -> str:
    found = PLAIN.decode(data)
    assert isinstance(found, Damaged)
    return found.reason


def test_bytes_of_other_kinds_are_read():
    """``bytearray`` and ``memoryview``, as databases give them, are read."""
    data = PLAIN.encode(Ok(1))
    assert PLAIN.decode(bytearray(data)) == PLAIN.decode(memoryview(data)) == Ok(1)
    released = memoryview(data)
    released.release()
    assert isinstance(PLAIN.decode(released), Damaged)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no entry of stepflows"),
        (b"\x80\x04N.", "no entry of stepflows"),
        (struct.pack(">4sBBHQ", b"\xc1sf\n", 7, 1, 0, 0), "format 7 is newer than the 1"),
        (struct.pack(">4sBBHQ", b"\xc1sf\n", 0, 1, 0, 0), "format 0 is other than the 1"),
        (forged(b"\xc0", flags=0x81), "head makes no sense"),
        (PLAIN.encode(Ok(1))[:-1], "lengths do not add up"),
        (forged(b"\xc0", size=2), "lengths do not add up"),
        (forged(b"\xc0", size=2**63), "lengths do not add up"),
        (forged(b"\xc0", header=["", 0.0, 0.0, "", None, ""]), "header is of the wrong shape"),
        (forged(b"\xc0", header="1234567"), "header is of the wrong shape"),
        (forged(b"\xc0", header=[1, 0.0, 0.0, "", None, "", ""]), "header is of the wrong shape"),
        (forged(b"\xc0\xc0"), "extra"),
        (forged(b"\xc0", flags=0), "TypeError"),
        (forged(b"\x90", flags=0), "ValueError"),
        (forged(b"\x91\xc0", flags=0), "TypeError"),
        (forged(b"\x91\xc0", flags=4), "head makes no sense"),
        (forged(b"\xc1"), "FormatError"),
        (forged(b"\xa1\xff"), "UnicodeDecodeError"),
        (forged(ext(99, b"")), "unknown extension type 99"),
        (forged(ext(1, packed("abc"))), "wrong shape"),
        (forged(ext(1, packed([1]) + b"\xc0")), "xtra"),
        (forged(ext(1, ext(1, ext(1, ext(1, packed([1]) + b"\xc0"))))), "too many values"),
        (forged(ext(1, ext(1, ext(1, ext(1, b"\x92\xc0"))))), "not enough values"),
        (forged(ext(5, packed([0] * 8 + [None]))), "ValueError"),
        (forged(ext(5, packed([b"\x07\xea\x01\x01\x00\x00\x00\x00\x00\x00"]))), "TypeError"),
        (forged(ext(5, packed([2026, 1, 1, 0, 0, 0, 0, 0, "UTC"]))), "tzinfo"),
        (forged(ext(5, packed([2026, 1, 1, 99, 0, 0, 0, 0, None]))), "hour"),
        (forged(ext(8, packed([999999999, 2**31, 0]))), "OverflowError"),
        (forged(ext(9, packed([5]))), "TypeError"),
        (forged(ext(11, packed(["1E+99999999999999999999"]))), "InvalidOperation"),
        (forged(ext(11, packed(["not a number"]))), "InvalidOperation"),
        (forged(ext(12, packed([b"123"]))), "ValueError"),
        (forged(ext(13, packed([5, "A"]))), "AttributeError"),
        (forged(ext(13, packed(["tests.caches.codec_models:Colour"]))), "TypeError"),
        (forged(ext(14, packed(["tests.caches.codec_models:Money", "amount currency", [1, 2]]))), "AttributeError"),
        (forged(ext(14, packed(["tests.caches.codec_models:Row", "id name", {}]))), "KeyError"),
        (forged(ext(15, packed(["builtins:ValueError", "", [b"\xc1"], None, {}]))), "FormatError"),
        (forged(ext(15, packed(["builtins:ValueError", "", [], b"\x05", {}]))), "TypeError"),
        (forged(ext(15, packed([["a"], "", [], None, {}]))), "AttributeError"),
        (forged(ext(16, b"\x00")), "unknown extension type"),
        (forged(packed(1), header=ext(13, packed(["nowhere:Thing", "A"]))), "header is of the wrong shape"),
    ],
    ids=range(41),
)
def test_damage_says_what_is_wrong(data, says):
    """The reason names what is wrong with the bytes."""
    found = PLAIN.decode(data)
    assert isinstance(found, Damaged), found
    assert says.lower() in found.reason.lower()


@pytest.mark.parametrize(
    "payload",
    [
        *[b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"],
        b"\xc9\xff\xff\xff\xff\x01",
        b"\x91" * 100_000 + b"\xc0",
        b"\x81\xc0" * 100_000 + b"\xc0",
        b"\xdd\x00\x0f\x00\x00" * 200_000,
        ext(13, packed(["tests.caches.codec_models:Mode", 1])[:-1] + ext(4, packed(["7f" * 100_000]))),
    ],
    ids=["array", "map", "str", "bin", "ext", "deep arrays", "deep maps", "large arrays", "huge flag"],
)
def test_hostile_sizes_are_refused_at_once(payload):
    """Declared sizes and endless nesting cost neither time nor memory."""
    started = time.perf_counter()
    assert isinstance(PLAIN.decode(forged(payload)), Damaged)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("depth", [50, 5000])
def test_extensions_in_extensions_end(depth):
    """Extension types in each other are followed so far and no further, in any thread."""
    payload = packed([1])
    for _ in range(depth):
        payload = ext(1, b"\x91" + payload)
    found = PLAIN.decode(forged(payload))
    assert isinstance(found, Ok if depth == 50 else Damaged)


def test_huge_numbers_are_read_in_no_time():
    """A whole number or decimal of a million digits is read at once."""
    started = time.perf_counter()
    assert PLAIN.decode(forged(ext(4, packed(["7f" * 1_000_000])))).ok
    assert PLAIN.decode(forged(ext(11, packed(["9" * 1_000_000])))).ok
    assert time.perf_counter() - started < 5


def test_a_time_limit_is_not_taken_for_damage(monkeypatch):
    """What a task's time limit raises while an entry is read comes through; a step must not run again for it."""

    class SoftTimeLimit(Exception):
        pass

    def strike():
        raise SoftTimeLimit

    entries = [
        PLAIN.encode(Ok(value)) for value in (ZoneInfo("UTC"), ((((ZoneInfo("UTC"),),),),), ValueError(ZoneInfo("UTC")))
    ]
    monkeypatch.setattr("stepflows.caches.codec.types._known_zones", strike)
    for data in entries:
        with pytest.raises(SoftTimeLimit):
            PLAIN.decode(data)


class Bomb:
    def __reduce__(self):
        return (models.explode, ())


def test_a_pickle_does_not_run():
    """A pickle in the place of an entry, or inside one, is never unpickled."""
    models.RAN.clear()
    bomb = pickle.dumps(Bomb())
    assert isinstance(PLAIN.decode(bomb), Damaged)
    assert PLAIN.decode(forged(packed(bomb))) == Ok(bomb)
    assert isinstance(PLAIN.decode(forged(bomb)), Damaged)
    assert models.RAN == []
    pickle.loads(bomb)
    assert models.RAN == ["exploded"]


@pytest.mark.parametrize("code", [13, 14, 15])
def test_nothing_is_imported(code):
    """A class path in an entry never imports its module."""
    assert "this" not in sys.modules
    bodies: list[list[object]] = [
        ["this:Thing", "A"],
        ["this:Thing", "a", {"a": 1}],
        ["this:T", "m", [], None, {}],
    ]
    for body in bodies:
        PLAIN.decode(forged(ext(code, packed(body))))
        PLAIN.head(forged(b"\xc0", header=ext(code, packed(body))))
    assert "this" not in sys.modules


@pytest.mark.parametrize("path", ["os:system", "builtins:dict", "builtins:object", "builtins:type", "subprocess:Popen"])
@pytest.mark.parametrize("code", [13, 14, 15])
def test_other_classes_are_not_made(code, path):
    """Only classes of the kind that was written are made: nothing is called, whatever the path names."""
    for body in ([path, "A"], [path, 1], [path, "", {}], [path, "a", {"a": 1}], [path, "m", [], None, {}]):
        found = PLAIN.decode(forged(ext(code, packed(body))))
        assert isinstance(found, Err | Damaged) or type(found.value).__name__ == "CachedStepError"


# Signatures


def test_a_signed_entry_needs_the_key():
    """With a signer only entries signed with its key or a fallback are read."""
    data = SIGNED.encode(SOME, "s", "k")
    assert SIGNED.decode(data, "s", "k").ok
    assert Codec(signer=Signer("new", [b"older", "secret"])).decode(data, "s", "k").ok
    assert "signature" in reason(data, Codec(signer=Signer("other", ["more"])))
    assert "not signed" in reason(PLAIN.encode(SOME), SIGNED)
    assert "signature" in reason(forged(b"\xc0", flags=3) + bytes(32), SIGNED)
    assert "lengths" in reason(forged(b"\xc0", flags=3), SIGNED)


def test_a_signed_entry_is_read_without_a_signer():
    """Turning signatures off leaves the entries readable, and their checksum still holds."""
    data = SIGNED.encode(SOME)
    found = PLAIN.decode(data)
    assert same(found.value["a"], SOME.value["a"])
    assert "checksum" in reason(data[:40] + bytes([data[40] ^ 1]) + data[41:])


def test_a_signature_made_for_something_else_is_none():
    """A signature with the same key that Django makes elsewhere does not pass."""
    import hashlib
    import hmac

    body = forged(b"\xc0", flags=3)
    assert "signature" in reason(body + hmac.digest(b"secret", body, hashlib.sha256), SIGNED)


# Settings


def test_dumps_and_loads():
    """``dumps`` and ``loads`` take a result with its stamp there and back."""
    found = loads(dumps(SOME))
    assert same(found.value["a"], SOME.value["a"])
    assert found.stamp == STAMP
    assert loads(dumps(Err("x", stamp=STAMP))) == Err("x")


@pytest.mark.parametrize("data", [b"", b"no entry", None])
def test_loads_says_what_is_wrong(data):
    """``loads`` raises DamagedEntry, a ValueError, for what is no entry."""
    with pytest.raises(DamagedEntry, match=r"^These bytes hold no result: it is no "):
        loads(data)


def test_the_settings_hold(settings):
    """``MAX_VALUE_BYTES`` and ``SIGN`` hold as soon as they change, and so do the keys."""
    assert current_codec() is current_codec()
    assert current_codec() == Codec(16 * 1024 * 1024)
    settings.STEPFLOWS = {"MAX_VALUE_BYTES": 1000}
    assert current_codec().max_bytes == 1000
    settings.STEPFLOWS = {"SIGN": True}
    data = dumps(Ok(1))
    settings.SECRET_KEY = "another"
    with pytest.raises(DamagedEntry, match="SECRET_KEY"):
        loads(data)
    settings.SECRET_KEY_FALLBACKS = ["tests"]
    assert loads(data) == Ok(1)
    with pytest.raises(DamagedEntry, match="not signed"):
        loads(PLAIN.encode(Ok(1)))
    settings.USE_TZ = False
    assert current_codec().signer


def test_without_django_settings():
    """Where Django is not configured, entries are plain; as soon as it is, its settings hold."""
    code = """
from stepflows.caches.codec import dumps, loads, current_codec
from stepflows.results import Ok
assert loads(dumps(Ok((1,)))) == Ok((1,))
assert current_codec().max_bytes is None
from django.conf import settings
settings.configure(STEPFLOWS={"SIGN": True}, SECRET_KEY="k")
assert current_codec().signer
"""
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=Path(__file__).parents[2])
