"""Whatever bytes lie in a cache, reading them gives a result or says that they are damaged, and no more."""

from __future__ import annotations

import builtins
import struct
import traceback
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgpack import ExtType  # type: ignore[import-untyped,unused-ignore]

from stepflows import Err, NotCacheable, Ok, dumps
from stepflows.admin.values import shown_outcome
from stepflows.caches.codec import Codec, Head
from stepflows.engine.cache import Damaged
from stepflows.results import Stamp
from tests.caches import codec_models as models
from tests.security.forging import CLASS_NAMES, entry, exception, ext, packed

BUILT_IN = [f"builtins:{name}" for name, value in vars(builtins).items() if isinstance(value, type)]
OWN = [f"{models.__name__}:{name}" for name, value in vars(models).items() if isinstance(value, type)]
OTHERS = [
    "django.core.exceptions:ValidationError",
    "stepflows.results:Ok",
    "stepflows.errors:StepFailed",
    "decimal:Decimal",
]
PATHS = st.sampled_from([*BUILT_IN, *OWN, *OTHERS, *CLASS_NAMES]) | st.text(max_size=8)
ATTRIBUTES = st.sampled_from(
    [
        *(
            "args",
            "start",
            "end",
            "object",
            "reason",
            "encoding",
            "name",
            "obj",
            "name_from",
            "msg",
            "errno",
            "strerror",
        ),
        *("filename", "filename2", "lineno", "offset", "text", "print_file_and_line", "code", "value", "__notes__"),
        *("__cause__", "__context__", "__class__", "__dict__", "characters_written", "message", "exceptions"),
    ]
)

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=6)
    | st.binary(max_size=6)
    | st.just(-(10**12))
)


def _more(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=4)
    state = st.dictionaries(ATTRIBUTES, inner, max_size=4)
    return (
        lists
        | st.dictionaries(PLAIN, inner, max_size=3)
        | st.builds(lambda code, parts: ext(code, *parts), st.integers(0, 17), lists)
        | st.builds(lambda path, name: ext(13, path, name), PATHS, PLAIN)
        | st.builds(
            lambda path, held: ext(14, path, " ".join(held), held), PATHS, st.dictionaries(st.text(max_size=4), inner)
        )
        | st.builds(lambda path, args, held: exception(path, *args, state=held), PATHS, lists, state)
        | st.builds(ExtType, st.integers(0, 17), st.binary(max_size=12))
    )


VALUES = st.recursive(PLAIN, _more, max_leaves=12)
SAMPLES = [
    Codec().encode(result, "checkout", "user:1")
    for result in (
        Ok({"a": [1, (2, {3}), models.Money(4)], "e": ValueError("x", 1)}, stamp=Stamp("load", 1.0, 2.0, "run", 3.0)),
        Err(ExceptionGroup("g", [OSError(2, "no", "file"), UnicodeDecodeError("utf-8", b"xyz", 1, 2, "r")]), "cause"),
    )
]


def look(data: bytes) -> None:
    """Read an entry, and do with it what logs and pages do."""
    codec = Codec(max_bytes=1_000_000)
    found = codec.decode(data, "checkout", "user:1")
    assert isinstance(found, Ok | Err | Damaged)
    assert isinstance(codec.head(data), Head | Damaged)
    shown_outcome(found, codec.origin(data))
    if isinstance(found, Damaged):
        assert found.reason.isprintable()
    if isinstance(found, Err) and isinstance(found.error, BaseException):
        _print(found.error)


def _print(error: BaseException) -> None:
    try:
        "".join(traceback.format_exception(error))
    except (AttributeError, TypeError, ValueError):  # what logging reports, and goes on
        return


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes):
    """Most are no entry."""
    look(data)


@given(VALUES, st.booleans())
def test_any_value_of_any_class(value: Any, ok: bool):
    """Right entries around values such as no step returns: of any class, with any arguments and attributes."""
    look(entry(packed(value if ok else [value]), ok=ok))


@given(st.binary(max_size=60), st.booleans())
def test_any_payload(payload: bytes, ok: bool):
    """Right entries around any bytes."""
    look(entry(payload, ok=ok))


@given(st.data(), st.sampled_from(SAMPLES))
def test_any_change_of_an_entry_with_its_checksum_made_right(data: st.DataObject, sample: bytes):
    """What somebody makes who changes an entry and knows how it is made."""
    head, size = struct.unpack_from(">HQ", sample, 6)
    payload = bytearray(sample[16 + head : 16 + head + size])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(payload)))
        payload[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    look(entry(bytes(payload), ok=bool(sample[5] & 1)))


@given(VALUES)
def test_what_is_read_may_be_stored_again(value: Any):
    """A forged value that a step hands on is stored or refused like any other."""
    found = Codec().decode(entry(packed(value)), "checkout", "user:1")
    if isinstance(found, Ok):
        with suppress(NotCacheable):
            dumps(found)
