"""Mappings in memory."""

from typing import Any

import pytest

from stepflows import CacheUnavailable, Err, Ok
from stepflows.caches.mapping import MappingCache
from stepflows.engine.cache import Damaged
from tests.maplikes import OwnMapping


def test_results_are_kept_as_they_are():
    """The very object that was stored is the one in the mapping and the one loaded, under the very key."""
    given: dict[str, Any] = {}
    cache = MappingCache(given)
    result = Ok([1])

    assert cache.store("user:1", result) is result
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


class Failing(OwnMapping):
    """A mapping over something that is down."""

    def __getitem__(self, key):
        raise OSError("disk")

    def __setitem__(self, key, value):
        raise OSError("disk")


def test_a_mapping_that_raises_is_unavailable():
    """Its own exception is the cause."""
    cache = MappingCache(Failing())

    with pytest.raises(CacheUnavailable, match="mapping Failing failed to read: OSError"):
        cache.load("user:1")
    with pytest.raises(CacheUnavailable, match="failed to write"):
        cache.store("user:1", Ok(1))


def test_it_says_what_it_is():
    """The repr does not spill the contents."""
    assert repr(MappingCache({"a": Ok(1)})) == "MappingCache(dict)"
