"""Redis: how often the server is asked, and what the index knows."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.cache import caches

from stepflows import CacheUnavailable, Ok, StepCache
from stepflows.caches.names import Name, backend_key
from stepflows.caches.redis import RedisBackend
from stepflows.engine.cache import MISSING, Damaged
from stepflows.results import Stamp

NEVER = {"scan", "keys", "flushdb", "flushall", "sscan", "zscan", "hscan"}


@pytest.fixture
def steps(redis_alias):
    return StepCache(redis_alias, "checkout")


@pytest.fixture
def server(valkey):
    return valkey.client


def place(steps, key):
    return caches[steps.alias].make_key(backend_key(Name(steps.scope, key)))


def index_of(steps, purpose="index"):
    return caches[steps.alias].make_key(f"stepflows:%.{purpose}")


def members(server, steps, purpose="index"):
    return server.zrange(index_of(steps, purpose), 0, -1)


def ghosts(server, steps, number):
    """Put into the index what entries leave there that expired long ago."""
    gone = [f"checkout\0old:{each}" for each in range(number)]
    server.zadd(index_of(steps), dict.fromkeys(gone, 0))
    server.zadd(index_of(steps, "expiry"), dict.fromkeys(gone, 1))


def expiring(seconds):
    now = time.time()
    return Stamp(stored_at=now, expires_at=now + seconds)


# Round trips.


def test_a_hit_is_one_get(steps, commandstats):
    """A step that is found costs exactly one command."""
    steps.set("user:1", Ok(1))

    with commandstats() as asked:
        assert steps.load("user:1") == Ok(1)

    assert asked == {"get": 1}


def test_a_miss_is_one_get(steps, commandstats):
    """So does one that is not there."""
    with commandstats() as asked:
        assert steps.load("user:1") is MISSING

    assert asked == {"get": 1}


def test_many_are_asked_by_five_hundred(steps, commandstats):
    """A thousand keys are two commands, in the order asked."""
    steps.set("user:7", Ok(7))
    keys = [f"user:{number}" for number in range(1000)]

    with commandstats() as asked:
        found = steps.load_many(keys)

    assert asked == {"mget": 2}
    assert [key for key, each in zip(keys, found, strict=True) if each == Ok(7)] == ["user:7"]


def test_storing_is_one_script(steps, commandstats):
    """Entry and index are written by one command of ours, and the server does the rest."""
    steps.store("warm:up", Ok(1))

    with commandstats() as asked:
        steps.store("user:1", Ok(1))

    assert asked == {"evalsha": 1, "time": 1, "get": 1, "set": 1, "zadd": 1, "zrem": 1}


def test_losing_is_one_script(steps, commandstats):
    """Whoever is not the first gets the first one's result in the same command."""
    steps.store("user:1", Ok("first"))

    with commandstats() as asked:
        assert steps.store("user:1", Ok("second")) == Ok("first")

    assert asked == {"evalsha": 1, "time": 1, "get": 1}


def test_a_page_is_two_scripts(steps, commandstats):
    """A page far in costs what the first one does, however many there are."""
    for number in range(300):
        steps.set(f"user:{number:03}", Ok(number))
    steps.backend.names("checkout", limit=1)

    with commandstats() as asked:
        names = steps.backend.names("checkout", start=250, limit=20)

    assert [name.key for name in names] == [f"user:{number}" for number in range(250, 270)]
    assert asked["evalsha"] == 2
    assert asked["zrange"] == 1
    assert asked["zrangebylex"] == 0


def test_heads_are_pipelined_ranges(steps, commandstats):
    """A listing's heads are parts of values, and no whole value is read."""
    steps.set("user:1", Ok("x" * 10_000))

    with commandstats() as asked:
        steps.backend.heads([Name("checkout", "user:1"), Name("checkout", "user:2")])

    assert asked == {"getrange": 2}


def test_clearing_walks_the_index(steps, commandstats, server):
    """Clearing unlinks by thousands, searches nothing and flushes nothing."""
    for number in range(1001):
        steps.set(f"user:{number}", Ok(number))
    server.set("foreign", "1")

    with commandstats() as asked:
        assert steps.clear("user:") == 1001
        steps.clear()
        steps.keys()
        len(steps)
        list(steps)
        steps.backend.scopes()

    assert asked["unlink"] == 2
    assert not NEVER & set(asked)
    assert server.keys("*") == [b"foreign"]


def test_values_are_bytes_on_the_server(steps, server):
    """The serializer of the alias has no part in what is stored."""
    steps.set("user:1", Ok(1))

    assert server.get(place(steps, "user:1")) == steps.backend.read(Name("checkout", "user:1"))
    assert b"pickle" not in server.get(place(steps, "user:1"))


def test_a_restarted_server_is_given_the_scripts_again(steps, server):
    """A server that has forgotten the scripts is told them."""
    steps.set("user:1", Ok(1))
    server.script_flush()

    assert steps.store("user:2", Ok(2)) == Ok(2)
    server.script_flush()
    assert steps.keys() == ["user:1", "user:2"]


def test_of_many_at_once_one_is_the_first(steps):
    """Of threads that store under one key at the same time, all are told the same result."""
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda number: steps.store("user:1", Ok(number)), range(40)))

    assert len({result.value for result in told}) == 1
    assert steps.get("user:1") == told[0]


# The ttl.


def test_the_server_ends_an_entry(steps, server):
    """An entry with a ttl has one on the server, to the millisecond, and one without has none."""
    steps.set("user:1", Ok(1), ttl=100.25)
    steps.set("user:2", Ok(2))

    assert 90_000 < server.pttl(place(steps, "user:1")) <= 100_250
    assert server.pttl(place(steps, "user:2")) == -1


def test_replacing_takes_the_end_away(steps, server):
    """An entry that is replaced by one without ttl stays, and so does its member in the index."""
    steps.set("user:1", Ok(1), ttl=0.03)
    steps.set("user:1", Ok(2))
    time.sleep(0.04)

    assert steps.keys() == ["user:1"]
    assert members(server, steps, "expiry") == []


def test_expired_entries_leave_the_index(steps, server):
    """Counting drops what is past, from both sets."""
    steps.set("user:1", Ok(1), ttl=0.02)
    steps.set("user:2", Ok(2), ttl=60)
    steps.set("user:3", Ok(3))
    time.sleep(0.03)

    assert len(steps) == 2
    assert members(server, steps) == [b"checkout\0user:2", b"checkout\0user:3"]
    assert members(server, steps, "expiry") == [b"checkout\0user:2"]


def test_storing_drops_a_few_expired(steps, server):
    """An index that nobody lists does not grow without end: whoever stores with a ttl sweeps a little."""
    ghosts(server, steps, 8)

    steps.set("new:1", Ok(1), ttl=60)
    assert server.zcard(index_of(steps)) == 4
    steps.set("new:2", Ok(1), ttl=60)
    assert members(server, steps) == [b"checkout\0new:1", b"checkout\0new:2"]


@pytest.mark.parametrize("call", [len, lambda steps: len(steps.keys()), lambda steps: len(steps.backend.scopes())])
def test_more_expired_than_one_sweep_takes(steps, server, call):
    """What is listed is right however many have expired since."""
    steps.set("user:1", Ok(1))
    ghosts(server, steps, 2500)

    assert call(steps) == 1
    assert members(server, steps) == [b"checkout\0user:1"]


# What happens behind its back.


def test_entries_deleted_elsewhere_leave_the_listing(steps, server):
    """A page leaves out what is gone, is filled up, and the index forgets."""
    for number in range(10):
        steps.set(f"user:{number}", Ok(number), ttl=60)
    server.delete(*[place(steps, f"user:{number}") for number in (0, 2, 3)])

    names = steps.backend.names("checkout", limit=3)

    assert [name.key for name in names] == ["user:1", "user:4", "user:5"]
    assert len(steps) == 7
    assert server.zcard(index_of(steps, "expiry")) == 7


def test_a_batch_of_nothing_but_ghosts(steps, server):
    """Walking goes on past a batch in which nothing is left."""
    for number in range(6):
        steps.set(f"user:{number}", Ok(number))
    server.delete(*[place(steps, f"user:{number}") for number in range(4)])

    walked = [[name.key for name in names] for names in steps.backend.walk("checkout", size=2)]

    assert walked == [["user:4", "user:5"]]


def test_an_entry_stored_meanwhile_stays_listed(steps, server, monkeypatch):
    """What is stored again between the look at the index and the look at the entry is not dropped."""
    steps.set("user:1", Ok(1))
    server.delete(place(steps, "user:1"))
    look = RedisBackend._index

    class Meanwhile:
        def __init__(self, index):
            self.index = index

        def __getattr__(self, name):
            return getattr(self.index, name)

        def page(self, *args):
            page = self.index.page(*args)
            monkeypatch.setattr(RedisBackend, "_index", look)
            steps.set("user:1", Ok(2))
            return page

    monkeypatch.setattr(RedisBackend, "_index", lambda self, cache: Meanwhile(look(self, cache)))

    assert steps.keys() == ["user:1"]
    assert members(server, steps) == [b"checkout\0user:1"]


def test_entries_stored_and_removed_while_walking(steps):
    """Whoever removes each batch as it comes sees every entry once."""
    for number in range(25):
        steps.set(f"user:{number:02}", Ok(number))
    seen = []
    for names in steps.backend.walk("checkout", size=10):
        seen += [name.key for name in names]
        steps.backend.remove(names)
        steps.set("another", Ok(1))

    assert seen == [f"user:{number:02}" for number in range(25)]
    assert steps.keys() == ["another"]


def test_members_that_are_no_names(steps, server):
    """What somebody else wrote into the index is not listed, and dropped."""
    steps.set("user:1", Ok(1))
    server.zadd(index_of(steps), {b"checkout\0\xff\xfe": 0, b"nothing": 0, b"\xff": 0})

    assert steps.keys() == ["user:1"]
    assert steps.backend.names() == [Name("checkout", "user:1")]
    assert members(server, steps) == [b"checkout\0user:1"]


def test_more_scopes_than_one_leap_takes(redis_alias):
    """All scopes are found, however many there are."""
    caches[redis_alias]
    for number in range(1001):
        StepCache(redis_alias, f"workflow {number:04}").set("user:1", Ok(1))

    scopes = StepCache(redis_alias).backend.scopes()

    assert scopes == [f"workflow%20{number:04}" for number in range(1001)]


def test_something_of_another_type_in_an_entrys_place(steps, server):
    """A list of somebody's is a damaged entry: read as such, stored over, and no trouble in a listing."""
    server.rpush(place(steps, "user:1"), "a")

    assert isinstance(steps.load("user:1"), Damaged)
    assert steps.backend.heads([Name("checkout", "user:1")]) == [b""]
    assert steps.store("user:1", Ok(1)) == Ok(1)
    assert steps.load("user:1") == Ok(1)


def test_any_other_refusal_is_an_outage(steps, server):
    """An error of the server that says nothing of the entry is not taken for damage."""
    server.execute_command("ACL", "SETUSER", "default", "resetkeys", "~foreign*")
    try:
        for call in [steps.load, steps.has, lambda key: steps.backend.heads([Name("checkout", key)])]:
            with pytest.raises(CacheUnavailable, match=r"failed to read: NoPermission"):
                call("user:1")
    finally:
        server.execute_command("ACL", "SETUSER", "default", "allkeys")


def test_retried_by_the_client(steps):
    """A store that the client sends twice, because the answer was lost, finds its own entry and is content."""
    result = Ok(1, stamp=expiring(60))

    assert steps.store("user:1", result) == Ok(1)
    assert steps.store("user:1", result) is result
