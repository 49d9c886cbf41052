"""Mappings in memory."""

from typing import Any

import pytest
from asgiref.sync import async_to_sync

from stepflows import CacheUnavailable, Err, Ok
from stepflows.caches.mapping import MappingCache
from stepflows.engine.cache import Busy, Damaged, Entry, Lease
from tests.maplikes import OwnMapping


def store(steps, key, result):
    """What stands once this has been stored."""
    [standing] = steps.store([Entry(key, result)])
    return standing


def test_results_are_kept_as_they_are():
    """The very object that was stored is the one in the mapping and the one loaded, under the very key."""
    given: dict[str, Any] = {}
    cache = MappingCache(given)
    result = Ok([1])

    assert store(cache, "user:1", result) is result
    assert given["user:1"] is result
    assert cache.load("user:1") is result


def test_the_user_may_put_results_there():
    """What the user writes into the mapping is what a step finds."""
    cache = MappingCache({"user:1": Err("NOT_FOUND")})

    assert cache.load("user:1") == Err("NOT_FOUND")


@pytest.mark.parametrize(
    ("value", "reason"), [(17, "holds an int, not a Result"), (None, "holds a NoneType, not a Result")]
)
def test_what_is_no_result_is_damaged(value, reason):
    """Anything else in the mapping is told by its type."""
    assert MappingCache({"user:1": value}).load("user:1") == Damaged(reason)


def test_what_is_stored_by_now_is_the_answer_to_a_claim():
    """Whether the key is free or somebody has its lease, which stays."""
    given: dict[str, Any] = {}
    cache = MappingCache(given)
    [lease] = MappingCache(given).claim(["user:1"], 60)
    assert isinstance(lease, Lease)
    given |= {"user:1": Ok(1), "user:2": Ok(2)}

    assert cache.claim(["user:1", "user:2"], 60) == [Ok(1), Ok(2)]
    assert cache.claim(["user:1"], 60, refresh=True) == [Busy(lease.token)]
    assert isinstance(cache.claim(["user:2"], 60, refresh=True)[0], Lease)


def test_keys_are_listed():
    """Those that have the prefix; what is no text is nobody's step."""
    given: dict[Any, Any] = {"user:1": Ok(1), "order:1": Ok(2), 7: "else"}
    cache = MappingCache(given)

    assert cache.keys() == ["user:1", "order:1"]
    assert cache.keys("user:") == ["user:1"]
    assert async_to_sync(cache.akeys)("order:") == ["order:1"]


class Failing(OwnMapping):
    """A mapping over something that is down."""

    def __getitem__(self, key):
        raise OSError("disk")

    def __setitem__(self, key, value):
        raise OSError("disk")

    def __iter__(self):
        raise OSError("disk")


def test_a_mapping_that_raises_is_unavailable():
    """Its own exception is the cause."""
    cache = MappingCache(Failing())

    with pytest.raises(CacheUnavailable, match="mapping Failing failed to read: OSError"):
        cache.load("user:1")
    with pytest.raises(CacheUnavailable, match="failed to write"):
        store(cache, "user:1", Ok(1))
    with pytest.raises(CacheUnavailable, match="failed to list keys"):
        cache.keys()


def test_it_says_what_it_is():
    """The repr does not spill the contents."""
    assert repr(MappingCache({"a": Ok(1)})) == "MappingCache(dict)"
