"""Nothing that lies in a cache is ever unpickled, whoever put it there."""

import base64
import pickle
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.db import connection

from stepflows import Ok, StepCache
from stepflows.caches.names import Name, backend_key
from stepflows.engine.cache import MISSING, Damaged, Entry

unpickled: list[str] = []


def spring(name):
    unpickled.append(name)
    return b""


class Trap:
    """Notes that it was unpickled."""

    def __reduce__(self):
        return (spring, ("sprung",))


@pytest.fixture(autouse=True)
def _unsprung():
    unpickled.clear()
    yield
    assert unpickled == []


@pytest.fixture
def steps(cache_alias):
    return StepCache(cache_alias, "checkout")


def store(steps, key, result):
    """What stands once this has been stored."""
    [standing] = steps.store([Entry(key, result)])
    return standing


def place(key):
    return backend_key(Name("checkout", key))


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_trap_in_the_place_of_an_entry(steps, timeout):
    """No method unpickles what the backend's own set() has pickled there."""
    caches[steps.alias].set(place("user:1"), Trap(), timeout=timeout)

    assert isinstance(steps.load("user:1"), Damaged)
    assert isinstance(steps.load_many(["user:1"])[0], Damaged)
    assert steps.get("user:1") is None
    assert steps.has("user:1") is False
    assert steps.backend.read(Name("checkout", "user:1")) is not None
    assert steps.backend.heads([Name("checkout", "user:1")])[0]
    assert (steps.keys(), len(steps), list(steps), steps.backend.scopes(), steps.clear()) == ([], 0, [], [], 0)
    assert store(steps, "user:1", Ok(1)) == Ok(1)
    assert steps.get("user:1") == Ok(1)


def test_a_trap_is_deleted_unopened(steps):
    """Deleting does not look inside."""
    caches[steps.alias].set(place("user:1"), Trap(), timeout=None)

    assert steps.delete("user:1") is True
    assert steps.load("user:1") is MISSING


def test_a_trap_would_be_sprung_by_the_cache_itself(cache_alias):
    """The trap works: Django's own get() falls into it."""
    caches[cache_alias].set("trap", Trap())
    caches[cache_alias].get("trap")

    assert unpickled == ["sprung"]
    unpickled.clear()


def file_of(key):
    cache: Any = caches["file"]
    return Path(cache._key_to_file(place(key)))


@pytest.fixture
def file_steps():
    caches["file"].clear()
    return StepCache("file", "checkout")


def file_head(moment):
    return pickle.dumps(moment, pickle.HIGHEST_PROTOCOL)


def test_a_trap_in_the_head_of_a_file(file_steps):
    """The time of expiry with which a file begins is a pickle too, and not loaded either."""
    file_steps.set("user:2", Ok(2))
    file_of("user:1").write_bytes(pickle.dumps(Trap()) + zlib.compress(pickle.dumps(b"")))

    assert isinstance(file_steps.load("user:1"), Damaged)
    assert file_steps.keys() == ["user:2"]
    assert store(file_steps, "user:1", Ok(1)) == Ok(1)
    assert file_steps.get("user:1") == Ok(1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        file_head(None),
        file_head(None) + b"junk",
        file_head(None) + zlib.compress(b"junk"),
        file_head(None) + zlib.compress(pickle.dumps(b"x" * 100))[:-1],
        file_head(None) + zlib.compress(b"\x80\x05B\xff\xff\xff\x03" + b"\0" * 2**26),
    ],
    ids=["empty", "junk", "head", "no-zlib", "no-pickle", "cut-off", "bomb"],
)
def test_a_damaged_file(file_steps, content):
    """Whatever a file holds, it is damaged at worst and neither an error nor more memory than an entry may take."""
    file_steps.set("user:2", Ok(2))
    file_of("user:1").write_bytes(content)

    assert isinstance(file_steps.load("user:1"), Damaged)
    assert file_steps.keys() == ["user:2"]


def test_a_file_that_unpacks_to_too_much(file_steps, settings):
    """No more is unpacked than an entry may be."""
    settings.STEPFLOWS = {"MAX_VALUE_BYTES": 1000}
    file_of("user:1").write_bytes(file_head(None) + zlib.compress(b"\x80\x05B\xff\xff\xff\x03" + b"\0" * 2**26))
    tracemalloc.start()
    try:
        assert isinstance(file_steps.load("user:1"), Damaged)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_an_expired_file_is_missing(file_steps):
    """The file's own time of expiry holds, and makes room."""
    raw = pickle.dumps(b"x")
    file_of("user:1").write_bytes(file_head(time.time() - 1) + zlib.compress(raw))

    assert file_steps.load("user:1") is MISSING
    assert file_steps.keys() == []
    assert store(file_steps, "user:1", Ok(1)) == Ok(1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("value", ["", "?", "é", "abc", base64.b64encode(b"junk").decode()])
def test_a_damaged_row(value):
    """Whatever a row of the database cache holds, it is damaged at worst."""
    caches["database"].clear()
    steps = StepCache("database", "checkout")
    steps.set("user:1", Ok(1))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE stepflows_cache SET value = %s", [value])

    assert isinstance(steps.load("user:1"), Damaged)
    assert steps.keys() == []


def test_an_end_that_the_cache_was_given_holds(steps):
    """What the cache itself has let expire is gone, although the entry says nothing of it."""
    steps.set("user:1", Ok(1))
    cache = caches[steps.alias]
    cache.touch(place("user:1"), timeout=0)

    assert steps.load("user:1") is MISSING
    assert steps.backend.read(Name("checkout", "user:1")) is None
    assert steps.keys() == []
    assert store(steps, "user:1", Ok(2)) == Ok(2)


def test_an_entry_that_claims_another_name(steps):
    """An entry put in a place that is not its name's is not listed."""
    steps.set("user:1", Ok(1))
    data = steps.backend.read(Name("checkout", "user:1"))
    if steps.alias in ("locmem", "database", "file"):
        caches[steps.alias].set(place("user:2"), data, timeout=None)

    assert steps.keys() == ["user:1"]
