"""Leases on what lives in this process."""

from __future__ import annotations

import gc
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from stepflows import CacheUnavailable, Ok
from stepflows.caches import local, resolve
from stepflows.caches.foreign import ForeignCache
from stepflows.caches.mapping import MappingCache
from stepflows.engine.cache import Busy, Entry, Lease
from tests.maplikes import AsyncMap, OwnMapping, SyncMap

#: Seconds until what has to happen counts as not happening.
PATIENCE = 10


@pytest.fixture(params=[dict, OwnMapping, SyncMap, AsyncMap])
def kind(request):
    """Whatever a workflow may be given that lives in this process."""
    return request.param


def take(given, key="user:1"):
    """A lease, which has to be free."""
    [lease] = local.take(given, [key])
    assert isinstance(lease, Lease)
    return lease


def is_free(given, key="user:1"):
    [taken] = local.take(given, [key])
    return isinstance(taken, Lease)


def test_a_key_of_an_object_is_taken_once():
    """Whoever comes second is told whose lease it is, until it is given back."""
    given: dict[str, str] = {}
    lease = take(given)
    assert local.take(given, ["user:1"]) == [Busy(lease.token)]
    local.give_back([lease])
    assert take(given).token != lease.token


def test_each_key_has_a_lease_of_its_own():
    """Answers come in the order asked, for those that are free and those that are not."""
    given: dict[str, str] = {}
    taken = take(given, "b")
    first, second, third = local.take(given, ["a", "b", "c"])

    assert isinstance(first, Lease)
    assert isinstance(third, Lease)
    assert (first.key, second, third.key) == ("a", Busy(taken.token), "c")
    assert first.token == third.token


def test_each_object_has_leases_of_its_own():
    """Also those that are equal: it is the object that counts."""
    first: dict[str, str] = {}
    second: dict[str, str] = {}
    held = take(first)
    assert is_free(second)
    assert not is_free(first)
    local.give_back([held])


def test_a_lease_that_is_dropped_is_free():
    """Whoever forgets to give it back keeps nobody waiting."""
    given: dict[str, str] = {}
    lease = take(given)
    assert not is_free(given)
    del lease
    assert is_free(given)


def test_a_lease_that_is_dropped_leaves_nothing():
    """A process that goes on for months does not fill up with what it once held."""
    given: dict[str, str] = {}

    def places():
        return [key for place, key in list(local._taken) if place == id(given)]

    held = [take(given, f"user:{number}") for number in range(100)]
    assert len(places()) == 100
    held.clear()
    assert places() == []


def test_giving_back_twice_does_not_end_anothers():
    """A lease that was given back, and is somebody else's by now, stays that one's."""
    given: dict[str, str] = {}
    first = take(given)
    local.give_back([first])
    local.give_back([first])
    second = take(given)
    local.give_back([first])
    assert local.take(given, ["user:1"]) == [Busy(second.token)]


def test_an_object_lives_as_long_as_a_lease_on_it():
    """Else another object might have its place in memory, and seem to be taken."""
    given = OwnMapping()
    lease = take(given)
    place = id(given)
    del given
    others = [OwnMapping() for _ in range(1000)]
    assert place not in map(id, others)
    assert all(is_free(other) for other in others)
    local.give_back([lease])


def test_threads_take_each_key_once():
    """Eight of them want the same two hundred."""
    given: dict[str, str] = {}
    keys = [f"user:{number}" for number in range(200)]
    barrier = Barrier(8)

    def ask(_):
        barrier.wait(PATIENCE)
        return [taken for key in keys for taken in local.take(given, [key]) if isinstance(taken, Lease)]

    with ThreadPoolExecutor(8) as pool:
        leases = [lease for taken in pool.map(ask, range(8)) for lease in taken]
    assert sorted(lease.key for lease in leases) == sorted(keys)


class Holder:
    """Gives its lease back when it is collected, as a transaction that nobody has ended does."""

    def __init__(self, lease):
        self.lease = lease
        # Only the collector of cycles finds it.
        self.itself = self

    def __del__(self):
        local.give_back([self.lease])


@pytest.mark.timeout(20)
def test_a_lease_may_be_given_back_while_another_is_taken():
    """The garbage collector may strike anywhere, also in the middle of a taking in the same thread."""
    given: dict[str, str] = {}
    Holder(take(given, "dropped"))

    def keys():
        yield "first"
        gc.collect()
        yield "dropped"

    taken = local.take(given, keys())
    assert [type(each) for each in taken] == [local._LocalLease, local._LocalLease]


def test_a_forked_child_has_taken_nothing():
    """Even if another thread was taking something at that moment; and the parent's leases stay."""
    given: dict[str, str] = {}
    lease = take(given)
    held, done = threading.Event(), threading.Event()

    def hold():
        with local._lock:
            held.set()
            done.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE)
    child = forked(lambda: is_free(given))
    done.set()
    thread.join()

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert local.take(given, ["user:1"]) == [Busy(lease.token)]


def forked(holds):
    """The process id of a child that leaves with 0 if this holds there."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.alarm(PATIENCE)
        code = 0 if holds() else 2
    finally:
        os._exit(code)


# The caches that rely on it.


def test_workflows_over_one_object_share_its_leases(kind):
    """Whatever they are called, as they share its entries; over two objects, equal or not, they share nothing."""
    given = kind()
    first, second, other = resolve(given, "checkout"), resolve(given, "billing", 2), resolve(kind(), "checkout")
    [lease] = first.claim(["user:1"], 60)

    assert second.claim(["user:1"], 60) == [Busy(lease.token)]
    [free] = other.claim(["user:1"], 60)
    assert isinstance(free, Lease)


def test_leases_that_are_abandoned_are_free(kind):
    """At once, because there is nobody to wait for."""
    cache = resolve(kind(), "checkout")
    leases = cache.claim(["user:1", "user:2"], 60)
    cache.abandon(leases)
    assert all(isinstance(taken, Lease) for taken in cache.claim(["user:1", "user:2"], 60))


def test_storing_ends_each_lease_that_came_with_it(kind):
    """Whatever becomes of the entry: stored, not the first, or without a lease at all."""
    cache = resolve(kind(), "checkout")
    leases = cache.claim(["a", "b"], 60)
    cache.store([Entry("b", Ok("first"))])
    entries = [Entry("a", Ok(1), lease=leases[0]), Entry("b", Ok(2), lease=leases[1]), Entry("c", Ok(3))]

    assert cache.store(entries) == [Ok(1), Ok("first"), Ok(3)]
    assert all(isinstance(taken, Lease) for taken in cache.claim(["a", "b", "c"], 60, refresh=True))


class FailingMapping(OwnMapping):
    """Fails for one of its keys."""

    def __getitem__(self, key):
        if key == "broken":
            raise OSError("disk")
        return super().__getitem__(key)


class FailingMap(SyncMap):
    def get(self, key):
        if key == "broken":
            raise OSError("disk")
        return super().get(key)


@pytest.mark.parametrize(
    "cache", [MappingCache(FailingMapping()), ForeignCache(FailingMap())], ids=["mapping", "foreign"]
)
def test_a_claim_that_fails_leaves_no_lease(cache):
    """Also while somebody still has the error, and with it the frames that it came through."""
    with pytest.raises(CacheUnavailable) as caught:
        cache.claim(["user:1", "broken", "user:2"], 60)
    again = cache.claim(["user:1", "user:2"], 60)

    assert all(isinstance(taken, Lease) for taken in again)
    assert caught.value.__traceback__
