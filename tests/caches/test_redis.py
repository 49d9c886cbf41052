"""Redis: how often the server is asked, what lies there, and what the index knows."""

import time

import pytest
from django.core.cache import caches

from stepflows import CacheUnavailable, Ok, StepCache
from stepflows.caches import backend_for
from stepflows.caches.backend import Answer, Write
from stepflows.caches.codec import current_codec
from stepflows.caches.names import Name, backend_key, reserved_key
from stepflows.results import Stamp, stamped

NEVER = {"scan", "keys", "flushdb", "flushall", "sscan", "zscan", "hscan"}
TOP = b"\xff"


@pytest.fixture
def backend(redis_alias):
    return backend_for(redis_alias)


@pytest.fixture
def server(valkey):
    return valkey.client


@pytest.fixture
def put(backend):
    """Stores entries under keys of the scope ``checkout``."""

    def put(*keys, ttl=None, scope="checkout"):
        names = [Name(scope, key) for key in keys]
        backend.write([Write(name, entry(name), ttl, replace=True) for name in names])

    return put


@pytest.fixture
def place(redis_alias):
    """Where the server has an entry, or something of stepflows' own."""
    return lambda key: caches[redis_alias].make_key(backend_key(Name("checkout", key)))


@pytest.fixture
def own(redis_alias):
    return lambda purpose: caches[redis_alias].make_key(reserved_key(purpose))


@pytest.fixture
def members(server, own):
    """What is in the index, without the one that says that it is complete."""
    return lambda purpose="index": [each for each in server.zrange(own(purpose), 0, -1) if each != TOP]


@pytest.fixture
def ghosts(server, own):
    """Puts into the index what entries leave there that expired long ago."""

    def ghosts(number):
        gone = [f"checkout\0old:{each}" for each in range(number)]
        server.zadd(own("index"), dict.fromkeys(gone, 0))
        server.zadd(own("expiry"), dict.fromkeys(gone, 1))

    return ghosts


def entry(name):
    return current_codec().encode(stamped(Ok("done"), Stamp("step", time.time())), *name)


def keys(backend, *args, **kwargs):
    return [name.key for name in backend.names(*args, **kwargs)]


# Round trips.


def test_a_hit_is_one_get(backend, put, commandstats):
    """A step that is found costs exactly one command, and so does one that is not there."""
    put("user:1")

    with commandstats() as asked:
        assert backend.read(Name("checkout", "user:1")) is not None
    assert asked == {"get": 1}
    with commandstats() as asked:
        assert backend.read(Name("checkout", "user:2")) is None
    assert asked == {"get": 1}


def test_many_are_asked_by_five_hundred(backend, put, commandstats):
    """A thousand keys are two commands, in the order asked."""
    put("user:7")
    names = [Name("checkout", f"user:{number}") for number in range(1000)]

    with commandstats() as asked:
        found = backend.read_many(names)

    assert asked == {"mget": 2}
    assert [name.key for name, data in zip(names, found, strict=True) if data] == ["user:7"]


def test_storing_is_one_script(put, commandstats):
    """Entry and index are written by one command of ours, and the server does the rest."""
    put("warm:up")

    with commandstats() as asked:
        put("user:1")

    assert asked == {"evalsha": 1, "time": 1, "exists": 1, "set": 1, "zadd": 1, "zrem": 1}


def test_losing_is_one_script(backend, put, commandstats):
    """Whoever is not the first gets the first one's bytes in the same command."""
    put("user:1")

    with commandstats() as asked:
        (first,) = backend.write([Write(Name("checkout", "user:1"), b"second")])

    assert first == backend.read(Name("checkout", "user:1"))
    assert asked == {"evalsha": 1, "time": 1, "get": 1}


def test_a_page_is_two_scripts(backend, put, commandstats):
    """A page far in costs what the first one does, however many there are."""
    put(*(f"user:{number:03}" for number in range(300)))
    backend.names("checkout", limit=1)

    with commandstats() as asked:
        found = keys(backend, "checkout", start=250, limit=20)

    assert found == [f"user:{number}" for number in range(250, 270)]
    assert asked["evalsha"] == 2
    assert asked["zrange"] == 1
    assert asked["zrangebylex"] == 0


def test_a_count_is_one_script(backend, put, commandstats):
    """How many there are is asked at once, whatever else the index holds."""
    put("user:1", "user:2")
    assert backend.count() == 2

    with commandstats() as asked:
        assert backend.count("checkout") == 2

    assert asked["evalsha"] == 1


def test_heads_are_parts(backend, put, commandstats):
    """A listing's heads are parts of values, asked for at once, and no whole value is read."""
    put("user:1")
    names = [Name("checkout", "user:1"), Name("checkout", "user:2")]
    backend.heads(names)

    with commandstats() as asked:
        first, second = backend.heads(names, 16)

    assert asked == {"evalsha": 1, "getrange": 2}
    assert backend.read(names[0]).startswith(first)
    assert len(first) == 16
    assert second is None


def test_clearing_walks_the_index(backend, put, commandstats, server, own):
    """Clearing unlinks by thousands, searches nothing and flushes nothing."""
    put(*(f"user:{number}" for number in range(1001)))
    server.set("foreign", "1")

    with commandstats() as asked:
        assert sum(backend.remove(names) for names in backend.walk("checkout", "user:")) == 1001
        assert backend.names() == backend.names(prefix="x") == list(backend.walk()) == backend.scopes() == []
        assert backend.survey() == ({}, 0, [], [], True)
        assert backend.count() == 0

    assert asked["unlink"] == 2
    assert not NEVER & set(asked)
    assert {key.decode() for key in server.keys("*")} == {"foreign", own("index"), own("indexed")}


def test_values_are_bytes_on_the_server(redis_alias, server, place):
    """The serializer of the alias has no part in what is stored."""
    backend_for(redis_alias).write([Write(Name("checkout", "user:1"), b"data")])

    assert server.get(place("user:1")) == b"data"


# The ttl.


def test_the_server_ends_an_entry(put, server, place):
    """An entry with a ttl has one on the server, to the millisecond, and one without has none."""
    put("user:1", ttl=100.25)
    put("user:2")

    assert 90_000 < server.pttl(place("user:1")) <= 100_250
    assert server.pttl(place("user:2")) == -1


def test_replacing_takes_the_end_away(backend, put, members):
    """An entry that is replaced by one without ttl stays, and so does its member in the index."""
    put("user:1", ttl=0.03)
    put("user:1")
    time.sleep(0.04)

    assert keys(backend) == ["user:1"]
    assert members("expiry") == []


def test_expired_entries_leave_the_index(backend, put, members):
    """Counting drops what is past, from both sets."""
    put("user:1", ttl=0.02)
    put("user:2", ttl=60)
    put("user:3")
    time.sleep(0.03)

    assert backend.count() == 2
    assert members() == [b"checkout\0user:2", b"checkout\0user:3"]
    assert members("expiry") == [b"checkout\0user:2"]


def test_storing_drops_a_few_expired(put, ghosts, members):
    """An index that nobody lists does not grow without end: whoever stores with a ttl sweeps a little."""
    ghosts(8)

    put("new:1", ttl=60)
    assert len(members()) == 4
    put("new:2", ttl=60)
    assert members() == [b"checkout\0new:1", b"checkout\0new:2"]


@pytest.mark.parametrize(
    "call",
    [
        lambda backend: backend.count(),
        lambda backend: len(backend.names()),
        lambda backend: len(backend.scopes()),
        lambda backend: backend.survey().matching,
    ],
    ids=["count", "names", "scopes", "survey"],
)
def test_more_expired_than_one_sweep_takes(backend, put, ghosts, members, call):
    """What is listed is right however many have expired since."""
    put("user:1")
    ghosts(2500)

    assert call(backend) == 1
    assert members() == [b"checkout\0user:1"]


# What happens behind its back.


def test_entries_deleted_elsewhere_leave_the_listing(backend, put, server, place, own):
    """A page leaves out what is gone, is filled up, and the index forgets."""
    put(*(f"user:{number}" for number in range(10)), ttl=60)
    server.delete(*[place(f"user:{number}") for number in (0, 2, 3)])

    assert keys(backend, "checkout", limit=3) == ["user:1", "user:4", "user:5"]
    assert backend.count() == 7
    assert server.zcard(own("expiry")) == 7


def test_a_batch_of_nothing_but_ghosts(backend, put, server, place):
    """Walking goes on past a batch in which nothing is left."""
    put(*(f"user:{number}" for number in range(6)))
    server.delete(*[place(f"user:{number}") for number in range(4)])

    walked = [[name.key for name in names] for names in backend.walk("checkout", size=2)]

    assert walked == [["user:4", "user:5"]]


def test_an_entry_stored_meanwhile_stays_listed(backend, put, server, place, members):
    """What is stored again between the look at the index and the look at the entry is not dropped."""
    put("user:1")
    backend.names()
    server.delete(place("user:1"))
    page = backend._index.page((b"", TOP), 0, 10)

    looks_at_entries = page.send(server.execute_command(*next(page)))
    put("user:1")
    with pytest.raises(StopIteration) as end:
        page.send(server.execute_command(*looks_at_entries))

    assert end.value.value == ([Name("checkout", "user:1")], None)
    assert members() == [b"checkout\0user:1"]


def test_entries_stored_and_removed_while_walking(backend, put):
    """Whoever removes each batch as it comes sees every entry once."""
    put(*(f"user:{number:02}" for number in range(25)))
    seen = []
    for names in backend.walk("checkout", size=10):
        seen += [name.key for name in names]
        backend.remove(names)
        put("another")

    assert seen == [f"user:{number:02}" for number in range(25)]
    assert keys(backend) == ["another"]


def test_pages_over_several_scopes(backend, put):
    """A prefix among all scopes is counted and paged in each of them, one after the other."""
    for scope in ("a", "b", "c"):
        put("user:1", "user:2", "x", scope=scope)

    assert backend.count(prefix="user:") == 6
    assert backend.names(prefix="user:", start=3, limit=2) == [Name("b", "user:2"), Name("c", "user:1")]
    assert backend.names(prefix="user:", limit=0) == []


def test_a_survey_drops_what_is_gone_and_is_filled_up(backend, put, server, place, own):
    """However much more than a page that is; the numbers are right at once."""
    put(*(f"user:{number:04}" for number in range(2300)), ttl=60)
    server.delete(*[place(f"user:{number:04}") for number in range(1, 2200)])

    found = backend.survey(limit=3)
    assert [name.key for name in found.names] == ["user:0000", "user:2200", "user:2201"]
    assert (found.matching, found.sizes) == (101, {"checkout": 101})
    assert server.zcard(own("expiry")) == 101


def test_a_survey_of_foreign_things(backend, put, server, place, own):
    """What is no string is no entry; an empty string is there; members that are no names are dropped."""
    put("user:1", "user:2", "user:3")
    server.delete(place("user:1"), place("user:2"))
    server.rpush(place("user:1"), "a")
    server.set(place("user:2"), "")
    server.zadd(own("index"), {b"checkout\0\xff\xfe": 0, b"nothing": 0})

    found = backend.survey()
    assert found.names == [Name("checkout", f"user:{number}") for number in (1, 2, 3)]
    assert found.heads[:2] == [b"", b""]
    assert (found.matching, found.sizes) == (3, {"checkout": 3})


def test_a_survey_says_when_the_index_was_lost(backend, put, server, own):
    """The mark tells that there was one."""
    put("user:1")
    assert backend.survey().is_complete
    server.delete(own("index"))
    assert not backend.survey().is_complete
    put("user:2")
    assert not backend.survey().is_complete
    backend.rebuild()
    assert (backend.survey().is_complete, backend.survey().matching) == (True, 2)


def test_members_that_are_no_names(backend, put, server, own, members):
    """What somebody else wrote into the index is not listed, and dropped."""
    put("user:1")
    server.zadd(own("index"), {b"checkout\0\xff\xfe": 0, b"nothing": 0})

    assert keys(backend, "checkout") == ["user:1"]
    assert backend.names() == [Name("checkout", "user:1")]
    assert members() == [b"checkout\0user:1"]


def test_more_scopes_than_one_leap_takes(backend):
    """All scopes are found, however many there are."""
    scopes = [f"workflow%20{number:04}" for number in range(1001)]
    backend.write([Write(Name(scope, "user:1"), b"data") for scope in scopes])

    assert backend.scopes() == scopes
    survey = backend.survey(prefix="user:", start=999, limit=10)
    assert survey.sizes == dict.fromkeys(scopes, 1)
    assert (survey.matching, survey.names) == (1001, [Name(scope, "user:1") for scope in scopes[999:]])


def test_something_of_another_type_in_an_entrys_place(backend, put, server, place):
    """A list of somebody's is read as bytes that are no entry, stored over, and no trouble in a listing."""
    name = Name("checkout", "user:1")
    server.rpush(place("user:1"), "a")

    assert backend.read(name) == b""
    assert backend.read_many([name]) == [None]
    assert backend.heads([name]) == [b""]
    assert backend.write([Write(name, b"data")]) == [Answer.WRITTEN]
    assert backend.read(name) == b"data"


def test_any_other_refusal_is_an_outage(backend, server):
    """An error of the server that says nothing of the entry is not taken for damage."""
    name = Name("checkout", "user:1")
    server.execute_command("ACL", "SETUSER", "default", "resetkeys", "~foreign*")
    try:
        for call in [backend.read, lambda name: backend.read_many([name]), lambda name: backend.heads([name])]:
            with pytest.raises(CacheUnavailable, match=r"failed to read: NoPermission"):
                call(name)
    finally:
        server.execute_command("ACL", "SETUSER", "default", "allkeys")


def test_a_full_server(backend, put, server):
    """A server that takes no more says so, and what it holds can be read, listed and removed."""
    put("user:1")
    server.config_set("maxmemory", 1)
    try:
        with pytest.raises(CacheUnavailable, match="failed to write: OutOfMemory"):
            put("user:2")
        assert keys(backend) == ["user:1"]
        assert backend.remove(backend.names()) == 1
    finally:
        server.config_set("maxmemory", 0)
    assert backend.is_complete()


# Whether the index knows of everything, and how to find it anew.


def test_an_index_is_complete_from_the_first(backend, put):
    """As long as nothing happens to it, the index knows of all there is, also when that is nothing."""
    assert backend.is_complete()
    put("user:1")
    assert backend.is_complete()
    backend.remove(backend.names())
    assert backend.is_complete()
    put("user:2")
    assert backend.is_complete()


def test_a_flushed_server_is_complete(backend, put, server):
    """When entries and index are gone together, nothing is missing."""
    put("user:1")
    server.flushdb()

    assert backend.is_complete()
    put("user:2")
    assert backend.is_complete()


def test_a_lost_index(backend, put, server, own):
    """One that was evicted or deleted is known to be lost, also when new entries are in it, until it is rebuilt."""
    put("user:1", "user:2")
    server.delete(own("index"))

    assert not backend.is_complete()
    put("user:3")
    assert not backend.is_complete()
    assert keys(backend) == ["user:3"]
    backend.remove(backend.names())
    put("user:4")
    assert not backend.is_complete()

    assert backend.rebuild() == 3
    assert backend.is_complete()
    assert keys(backend) == ["user:1", "user:2", "user:4"]


def test_a_lost_mark(backend, put, server, own):
    """An index that says of itself that it is complete needs no mark, and gets it back when it is rebuilt."""
    put("user:1")
    server.delete(own("indexed"))

    assert backend.is_complete()
    assert backend.rebuild() == 1
    server.delete(own("index"))
    assert not backend.is_complete()


def test_rebuilding_finds_every_name(backend, put, server, own):
    """Names are found whatever they are: those too long for a key, those that are quoted, those of all scopes."""
    found = ["x" * 200, "ü" * 100, "white space", "user:1", "%41"]
    put(*found)
    put("user:1", scope="other%20one@2")
    server.delete(own("index"), own("expiry"))

    assert backend.rebuild() == 6
    assert backend.names() == sorted([*(Name("checkout", key) for key in found), Name("other%20one@2", "user:1")])


def test_rebuilding_by_thousands(backend, put, server, own, commandstats):
    """However many there are, no command is about more than a thousand or so."""
    put(*(f"user:{number}" for number in range(3000)))
    server.mset({f"foreign:{number}": "x" for number in range(3000)})
    server.delete(own("index"))

    with commandstats() as asked:
        assert backend.rebuild() == 3000

    assert asked["scan"] >= 6
    assert asked["getrange"] < 3100
    assert asked["keys"] == 0


def test_rebuilding_restores_the_ends(backend, put, server, own, members):
    """Entries with a ttl are in the companion again, with the time that is left to them."""
    put("user:1", ttl=0.1)
    put("user:2", ttl=60)
    put("user:3")
    ends = dict(server.zrange(own("expiry"), 0, -1, withscores=True))
    server.delete(own("index"), own("expiry"))
    server.zadd(own("expiry"), {b"checkout\0user:3": 1})

    assert backend.rebuild() == 3
    again = dict(server.zrange(own("expiry"), 0, -1, withscores=True))
    assert again == {member: pytest.approx(end, abs=20) for member, end in ends.items()}
    time.sleep(0.11)
    assert backend.count() == 2
    assert members() == [b"checkout\0user:2", b"checkout\0user:3"]


def test_rebuilding_takes_no_foreign_things(backend, put, server, redis_alias):
    """Under our own prefix, too, only entries count that lie where their names belong."""
    put("user:1")
    make_key = caches[redis_alias].make_key
    copied = entry(Name("checkout", "user:2"))
    server.set(make_key("stepflows:checkout:copied"), copied)
    server.set(f"elsewhere:{make_key('stepflows:checkout:user:2')}", copied)
    server.set(make_key("stepflows:checkout:text"), "text")
    server.rpush(make_key("stepflows:checkout:list"), "a")
    server.set(b"%s\xff" % make_key("stepflows:").encode(), copied)
    backend.claim([Name("checkout", "user:3")], "token", 30)

    assert backend.rebuild() == 1
    assert keys(backend) == ["user:1"]


def test_an_entry_that_goes_while_the_index_is_rebuilt(backend, put, server, place, own, members):
    """What is deleted after it was seen is not listed."""
    put("user:1", "user:2")
    backend.rebuild()
    flow = backend._index.rebuild()
    command = next(flow)
    while command[0] != "EVALSHA" or b"checkout\0user:1" not in command:
        command = flow.send(server.execute_command(*command))

    server.delete(place("user:1"), own("index"))
    flow.send(server.execute_command(*command))

    assert members() == [b"checkout\0user:2"]


@pytest.mark.parametrize("prefix", ["shop", "s?[o]*p\\", "s*"])
def test_rebuilding_looks_at_no_more_than_the_alias_own(settings, valkey, commandstats, prefix):
    """A pattern is made of the alias's prefix, whose signs mean themselves."""
    alias = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": valkey.url, "KEY_PREFIX": prefix}
    settings.CACHES = {**settings.CACHES, "mine": alias, "other": {**alias, "KEY_PREFIX": "sxop"}}
    for name in ("mine", "other"):
        backend_for(name).write([Write(Name("checkout", "user:1"), entry(Name("checkout", "user:1")))])
    valkey.client.delete(*valkey.client.keys("*indexed"), *valkey.client.keys("*index"))

    with commandstats() as asked:
        assert backend_for("mine").rebuild() == 1
    assert asked["getrange"] == 1


def test_a_key_function_that_mixes(settings, valkey):
    """Where keys do not begin with a prefix, everything is looked at."""
    settings.CACHES = {
        **settings.CACHES,
        "mixed": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": valkey.url,
            "KEY_FUNCTION": lambda key, key_prefix, version: f"{len(key)}:{key[::-1]}",
        },
    }
    backend = backend_for("mixed")
    names = [Name("checkout", f"user:{number}") for number in range(20)]
    backend.write([Write(name, entry(name)) for name in names])
    valkey.client.delete(backend._connection.make_key(reserved_key("index")))

    assert backend.rebuild() == 20
    assert backend.names() == sorted(names)


def test_the_map_over_it(redis_alias):
    """What the public Map says it has is what the index has."""
    steps = StepCache(redis_alias, "checkout")
    steps.set("user:1", Ok(1))

    assert steps.keys() == ["user:1"]
    assert steps.clear() == 1
    assert len(steps) == 0
