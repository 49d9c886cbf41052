"""Tests for whoever writes a cache of their own: subclass a suite, say how a cache is made, and run pytest or unittest.

::

    class TestMyCache(CacheConformance):
        def make_cache(self):
            return MyCache(url)
"""

# ruff: noqa: S101 - tests assert

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, MutableMapping
from typing import Any

from stepflows.engine.cache import MISSING, Busy, Damaged, Entry, Lease
from stepflows.results import Err, Ok
from stepflows.testing.voice import Voice, stamp

__all__ = ["CacheConformance", "DamageConformance"]

ODD_KEYS = ["a:b", "*", "[a]", "50%", "%2A", "a@1", "a b", "ключ", "鍵" * 200, "k" * 200, "\u00a0.", "{a}", "a\\b", "'"]
FALSY: list[Any] = [None, False, 0, 0.0, "", b"", [], (), {}]


class CacheConformance:
    """What a workflow relies on. Each test asks a new cache by its sync methods and another by the async ones."""

    def make_cache(self) -> Any:
        """A new cache, of whatever ``cache=`` takes. A Map-like or mapping must be empty."""
        raise NotImplementedError("Return a cache of the kind that is to be tested.")

    def dispose(self, given: Any) -> Any:
        """Give back what the cache holds open; may be async."""

    def delete(self, voice: Voice, key: str) -> None:
        """Delete a key as the cache's users do."""
        target = voice.cache if hasattr(voice.cache, "delete") else voice.given
        if isinstance(target, MutableMapping):
            del target[key]
        else:
            voice.finish(target.delete(key))

    def voices(self) -> Iterator[Voice]:
        """The cache by its sync methods, then another one by its async methods."""
        voice = Voice(self.make_cache())
        yield voice
        voice.finish(self.dispose(voice.given))
        with asyncio.Runner() as runner:
            voice = Voice(self.make_cache(), runner.run)
            yield voice
            voice.finish(self.dispose(voice.given))

    def test_a_key_is_claimed_once(self) -> None:
        """Of two who claim a missing key one gets a lease, and the other is told whose it is."""
        for cache in self.voices():
            [lease] = cache.claim("user:1")
            assert isinstance(lease, Lease)
            assert cache.claim("user:1") == [Busy(lease.token)]
            cache.release(lease)
            assert isinstance(cache.claim("user:1")[0], Lease)

    def test_a_claimed_key_may_have_been_stored(self) -> None:
        """Whoever claims a key that is stored by now is given the result and no lease; unless it is to be refreshed."""
        for cache in self.voices():
            cache.store("user:1", Ok(1))
            leases = cache.claim("user:1", "user:2")
            assert leases[0] == Ok(1)
            assert isinstance(leases[1], Lease)
            [lease] = cache.claim("user:1", refresh=True)
            assert isinstance(lease, Lease)

    def test_storing_ends_the_lease(self) -> None:
        """What was claimed and is stored can be claimed again once it is deleted."""
        for cache in self.voices():
            [lease] = cache.claim("user:1")
            assert isinstance(lease, Lease)
            assert cache.store_many([Entry("user:1", Ok(1, stamp=stamp()), lease=lease)]) == [Ok(1)]
            self.delete(cache, "user:1")
            assert isinstance(cache.claim("user:1")[0], Lease)

    def test_a_lease_that_is_dropped_ends(self) -> None:
        """Whoever forgets to give it back does not keep the others waiting for longer than it lasts."""
        for cache in self.voices():
            cache.claim("user:1", seconds=0.2)
            began = time.monotonic()
            while isinstance(cache.claim("user:1", seconds=0.2)[0], Busy):
                assert time.monotonic() - began < 5
                time.sleep(0.01)

    def test_what_was_never_stored_is_missing(self) -> None:
        """A key under which nothing is stored is answered by the sentinel."""
        for cache in self.voices():
            assert cache.load("user:1") is MISSING

    def test_what_is_stored_comes_back(self) -> None:
        """A stored value is loaded again, equal and of the same type."""
        value = {"name": "Ada", "born": 1815, "tags": ["a", ("b", 1.5)]}
        for cache in self.voices():
            assert cache.store("user:1", Ok(value)) == Ok(value)
            assert cache.load("user:1") == Ok(value)

    def test_it_works_on_one_event_loop_after_another(self) -> None:
        """As under WSGI, where each async view has a loop of its own; and from sync code in between."""
        given = self.make_cache()
        for number in range(3):
            Voice(given).store(f"sync:{number}", Ok(number))
            with asyncio.Runner() as runner:
                voice = Voice(given, runner.run)
                voice.store(f"async:{number}", Ok(number))
                assert voice.load(f"async:{number}") == Ok(number)
        Voice(given).finish(self.dispose(given))

    def test_falsy_values_are_values(self) -> None:
        """None, False, 0 and what is empty are stored like any other value."""
        for cache in self.voices():
            for number, value in enumerate(FALSY):
                cache.store(f"falsy:{number}", Ok(value))
                found = cache.load(f"falsy:{number}")
                assert isinstance(found, Ok)
                assert (type(found.value), found.value) == (type(value), value)

    def test_an_error_value_comes_back(self) -> None:
        """A failure that is data is loaded with its cause."""
        for cache in self.voices():
            cache.store("user:1", Err("NOT_FOUND", cause="no row"))
            assert cache.load("user:1") == Err("NOT_FOUND", cause="no row")

    def test_an_exception_comes_back(self) -> None:
        """A failure that is an exception is loaded as one of its class with its arguments."""
        for cache in self.voices():
            cache.store("user:1", Err(LookupError("user", 1)))
            found = cache.load("user:1")
            assert isinstance(found, Err)
            assert (type(found.error), found.error.args) == (LookupError, ("user", 1))

    def test_the_stamp_comes_back(self) -> None:
        """Label, times and run are loaded with the result."""
        for cache in self.voices():
            given = stamp(ttl=3600)
            cache.store("user:1", Ok(1, stamp=given))
            found = cache.load("user:1")
            assert isinstance(found, Ok)
            assert found.stamp == given

    def test_the_first_stored_wins(self) -> None:
        """Storing again changes nothing and returns what was there first."""
        for cache in self.voices():
            cache.store("user:1", Ok("first"))
            assert cache.store("user:1", Ok("second")) == Ok("first")
            assert cache.load("user:1") == Ok("first")

    def test_replace_replaces(self) -> None:
        """With replace, the new result stands."""
        for cache in self.voices():
            cache.store("user:1", Ok("first"))
            assert cache.store("user:1", Ok("second"), replace=True) == Ok("second")
            assert cache.load("user:1") == Ok("second")

    def test_replace_stores_where_nothing_is(self) -> None:
        """With replace, nothing has to be there."""
        for cache in self.voices():
            assert cache.store("user:1", Ok(1), replace=True) == Ok(1)
            assert cache.load("user:1") == Ok(1)

    def test_keys_are_apart(self) -> None:
        """Every key has its own entry, whatever signs it is made of."""
        for cache in self.voices():
            for key in ODD_KEYS:
                assert cache.store(key, Ok(key)) == Ok(key)
            assert cache.load_many(ODD_KEYS) == [Ok(key) for key in ODD_KEYS]

    def test_many_are_loaded_in_the_order_asked(self) -> None:
        """Answers stand in the order of the keys, with gaps for what is missing."""
        for cache in self.voices():
            cache.store("a", Ok(1))
            cache.store("b", Ok(2))
            assert cache.load_many(["b", "none", "a", "b"]) == [Ok(2), MISSING, Ok(1), Ok(2)]
            assert cache.load_many([]) == []

    def test_a_deleted_entry_is_missing(self) -> None:
        """What was deleted can be stored again."""
        for cache in self.voices():
            cache.store("user:1", Ok(1))
            self.delete(cache, "user:1")
            assert cache.load("user:1") is MISSING
            assert cache.store("user:1", Ok(2)) == Ok(2)

    def test_an_entry_within_its_ttl_is_there(self) -> None:
        """A ttl that has not passed changes nothing."""
        for cache in self.voices():
            cache.store("user:1", Ok(1), ttl=3600.5)
            assert cache.load("user:1") == Ok(1)

    def test_an_expired_entry_is_missing(self) -> None:
        """Once its ttl has passed an entry is not loaded, and another can be stored."""
        for cache in self.voices():
            cache.store("user:1", Ok("old"), ttl=0.02)
            _pass(0.02)
            assert cache.load_many(["user:1"]) == [MISSING]
            assert cache.load("user:1") is MISSING
            assert cache.store("user:1", Ok("new")) == Ok("new")
            assert cache.load("user:1") == Ok("new")

    def test_replacing_takes_the_old_ttl_away(self) -> None:
        """What replaces an entry with a ttl stays as long as itself says."""
        for cache in self.voices():
            cache.store("user:1", Ok("old"), ttl=0.02)
            cache.store("user:1", Ok("new"), replace=True)
            _pass(0.02)
            assert cache.load("user:1") == Ok("new")

    def test_a_result_without_time_is_not_stored(self) -> None:
        """A ttl of 0 stores nothing and returns the result."""
        for cache in self.voices():
            assert cache.store("user:1", Ok(1), ttl=0) == Ok(1)
            assert cache.load("user:1") is MISSING

    def test_a_result_without_time_replaces_by_nothing(self) -> None:
        """With replace, a ttl of 0 takes away what is there."""
        for cache in self.voices():
            cache.store("user:1", Ok("old"))
            assert cache.store("user:1", Ok("new"), ttl=0, replace=True) == Ok("new")
            assert cache.load("user:1") is MISSING


class DamageConformance(CacheConformance):
    """The same for a cache in whose place something else can be put."""

    def damage(self, voice: Voice, key: str) -> None:
        """Put something that is no entry under the key."""
        raise NotImplementedError("Put something that is no entry under the key.")

    def test_a_damaged_entry_is_told_apart(self) -> None:
        """What is no entry is neither a result nor missing, and its neighbours are not hurt."""
        for cache in self.voices():
            cache.store("user:2", Ok(2))
            self.damage(cache, "user:1")
            assert isinstance(cache.load("user:1"), Damaged)
            found = cache.load_many(["user:1", "user:2"])
            assert isinstance(found[0], Damaged)
            assert found[1] == Ok(2)

    def test_a_damaged_entry_is_stored_over(self) -> None:
        """What is no entry does not count as the first stored."""
        for cache in self.voices():
            self.damage(cache, "user:1")
            assert cache.store("user:1", Ok(1)) == Ok(1)
            assert cache.load("user:1") == Ok(1)


def _pass(seconds: float) -> None:
    """Wait until that much time has gone by on the wall clock."""
    end = time.time() + seconds
    while (left := end - time.time()) >= 0:
        time.sleep(left + 0.001)
