"""Redis: claiming, writing, renewing and releasing, in both voices."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches

from stepflows.caches import backend_for
from stepflows.caches.backend import Answer, Hold, Write
from stepflows.caches.names import Name, backend_key, lease_key
from stepflows.engine.cache import Busy

NAME = Name("checkout", "user:1")
OTHER = Name("checkout", "user:2")
WRITTEN, LATE, LOST, GRANTED = Answer.WRITTEN, Answer.LATE, Answer.LOST, Answer.GRANTED


class Voice:
    """A backend, asked as sync code does it, or on an event loop of each call's own."""

    def __init__(self, backend, is_async):
        self.backend = backend
        self.is_async = is_async

    def __getattr__(self, name):
        if not self.is_async or name == "renew":
            return getattr(self.backend, name)
        return async_to_sync(getattr(self.backend, f"a{name}"))


@pytest.fixture(params=["sync", "async"])
def voice(request, redis_alias):
    return Voice(backend_for(redis_alias), request.param == "async")


@pytest.fixture
def server(valkey):
    return valkey.client


@pytest.fixture
def place(redis_alias):
    return lambda name=NAME: caches[redis_alias].make_key(backend_key(name))


@pytest.fixture
def lease(redis_alias):
    return lambda name=NAME: caches[redis_alias].make_key(lease_key(name))


def test_claiming_what_is_not_there(voice, server, lease):
    """The first who claims a name has its lease, for as long as it asked."""
    assert voice.claim([NAME], "mine", 30) == [GRANTED]
    assert server.get(lease()) == b"mine"
    assert 29_000 < server.pttl(lease()) <= 30_000


def test_claiming_what_somebody_has(voice, server, lease):
    """Whoever claims after that is told who has it, and changes nothing."""
    voice.claim([NAME], "theirs", 5)

    assert voice.claim([NAME], "mine", 30) == [Busy("theirs")]
    assert voice.claim([NAME], "mine", 30, force=True) == [Busy("theirs")]
    assert server.pttl(lease()) <= 5_000


def test_claiming_again(voice, server, lease):
    """The same token is granted the lease again, as when its first reply was lost, and from now on."""
    voice.claim([NAME], "mine", 1)

    assert voice.claim([NAME], "mine", 30) == [GRANTED]
    assert server.pttl(lease()) > 29_000


def test_claiming_what_is_there(voice, server, lease):
    """An entry is the answer, and no lease is made."""
    voice.write([Write(NAME, b"data")])

    assert voice.claim([NAME], "mine", 30) == [b"data"]
    assert not server.exists(lease())


def test_claiming_by_force(voice):
    """By force the lease is granted whatever is there."""
    voice.write([Write(NAME, b"data")])

    assert voice.claim([NAME], "mine", 30, force=True) == [GRANTED]
    assert voice.read(NAME) == b"data"


def test_claiming_beside_something_foreign(voice, server, place):
    """A list of somebody's in an entry's place is no entry."""
    server.rpush(place(), "a")

    assert voice.read(NAME) == b""
    assert voice.claim([NAME], "mine", 30) == [GRANTED]
    assert voice.write([Write(NAME, b"data", token="mine")]) == [WRITTEN]
    assert voice.read(NAME) == b"data"


def test_claiming_many(voice, commandstats):
    """Answers come in the order asked; a thousand names are two scripts."""
    voice.write([Write(Name("checkout", "user:7"), b"data")])
    voice.claim([Name("checkout", "user:8")], "theirs", 30)
    names = [Name("checkout", f"user:{number}") for number in range(1000)]

    with commandstats() as asked:
        answers = voice.claim(names, "mine", 30)

    assert asked["evalsha"] + asked["eval"] == 2
    assert answers[7] == b"data"
    assert answers[8] == Busy("theirs")
    assert answers.count(GRANTED) == 998


def test_a_lease_ends_by_itself(voice):
    """When its time is over, somebody else gets it."""
    voice.claim([NAME], "theirs", 0.01)
    time.sleep(0.02)

    assert voice.claim([NAME], "mine", 30) == [GRANTED]


def test_of_many_at_once_one_gets_it(redis_alias):
    """Of threads that claim a name at the same time, one gets it and the others learn who."""
    backend = backend_for(redis_alias)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: backend.claim([NAME], f"token {number}", 30)[0], range(64)))

    winner = f"token {answers.index(GRANTED)}"
    assert answers.count(GRANTED) == 1
    assert answers.count(Busy(winner)) == 63


# Writing.


def test_writing_with_the_lease(voice, server, lease):
    """What is written by the holder stands, and the lease is over."""
    voice.claim([NAME], "mine", 30)

    assert voice.write([Write(NAME, b"data", token="mine")]) == [WRITTEN]
    assert voice.read(NAME) == b"data"
    assert not server.exists(lease())


def test_writing_without_any_lease(voice, server, lease):
    """Whoever has none, and needs none, leaves that of somebody else alone."""
    voice.claim([NAME], "theirs", 30)

    assert voice.write([Write(NAME, b"data")]) == [WRITTEN]
    assert server.get(lease()) == b"theirs"


def test_the_first_stands(voice, server, lease):
    """What was there first is the answer, and the second keeps its lease, because it may have to write again."""
    voice.write([Write(NAME, b"first")])
    voice.claim([NAME], "mine", 30, force=True)

    assert voice.write([Write(NAME, b"second", token="mine")]) == [b"first"]
    assert voice.read(NAME) == b"first"
    assert server.get(lease()) == b"mine"


def test_replacing(voice):
    """Unless it is to be replaced."""
    voice.write([Write(NAME, b"first")])
    voice.claim([NAME], "mine", 30, force=True)

    assert voice.write([Write(NAME, b"second", replace=True, token="mine")]) == [WRITTEN]
    assert voice.read(NAME) == b"second"


def test_writing_too_late(voice, server, lease):
    """A lease that has ended, or is another's by now, does not keep from writing, but is told."""
    assert voice.write([Write(NAME, b"data", token="mine")]) == [LATE]

    voice.claim([OTHER], "theirs", 30)
    assert voice.write([Write(OTHER, b"data", token="mine")]) == [LATE]
    assert voice.read(OTHER) == b"data"
    assert server.get(lease(OTHER)) == b"theirs"


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("token", ["", "mine"])
def test_yielding(voice, server, lease, replace, token):
    """What yields is not written while somebody else has the lease."""
    voice.claim([NAME], "theirs", 30)

    assert voice.write([Write(NAME, b"data", replace=replace, token=token, yields=True)]) == [LOST]
    assert voice.read(NAME) is None
    assert server.get(lease()) == b"theirs"


def test_yielding_to_nobody(voice):
    """It is written when nobody has the lease, and what was there first comes before all."""
    assert voice.write([Write(NAME, b"data", yields=True)]) == [WRITTEN]
    assert voice.write([Write(OTHER, b"data", token="mine", yields=True)]) == [LATE]
    voice.claim([NAME], "theirs", 30, force=True)
    assert voice.write([Write(NAME, b"second", token="mine", yields=True)]) == [b"data"]


def test_written_twice(voice):
    """A write whose reply was lost and that is sent again is answered its own bytes."""
    voice.claim([NAME], "mine", 30)
    write = Write(NAME, b"data", token="mine")
    voice.write([write])

    assert voice.write([write]) == [b"data"]


def test_writing_many(voice, commandstats):
    """Each has its own answer, in the order given; a thousand are two scripts."""
    voice.write([Write(Name("checkout", "user:7"), b"first")])
    names = [Name("checkout", f"user:{number}") for number in range(1000)]
    voice.claim(names, "mine", 30)

    with commandstats() as asked:
        answers = voice.write([Write(name, name.key.encode(), token="mine") for name in names])

    assert asked["evalsha"] == 2
    assert asked["zadd"] == 2
    assert answers[7] == b"first"
    assert answers.count(WRITTEN) == 999
    assert voice.read_many(names)[990:] == [f"user:{number}".encode() for number in range(990, 1000)]
    assert voice.backend.count() == 1000


def test_large_entries_are_written_a_few_at_a_time(voice, commandstats):
    """A script is not given more than about a megabyte, and an entry of more than that alone."""
    sizes = [400_000, 400_000, 400_000, 2_000_000, 10, 10]
    writes = [Write(Name("large", str(number)), b"x" * size) for number, size in enumerate(sizes)]
    voice.write([Write(NAME, b"warm")])

    with commandstats() as asked:
        assert voice.write(writes) == [WRITTEN] * 6

    assert asked["evalsha"] == 4
    assert [len(data) for data in voice.read_many([write.name for write in writes])] == sizes


def test_one_name_twice(voice, server, place):
    """Of two writes under one name in one call, the second is the second."""
    writes = [Write(NAME, b"first", ttl=60), Write(NAME, b"second"), Write(NAME, b"third", replace=True)]

    assert voice.write(writes) == [WRITTEN, b"first", WRITTEN]
    assert voice.read(NAME) == b"third"
    assert server.pttl(place()) == -1
    assert voice.backend.names() == [NAME]


def test_nothing_at_all(voice, commandstats):
    """To be asked for nothing is no reason to ask the server."""
    with commandstats() as asked:
        assert voice.read_many([]) == voice.claim([], "mine", 30) == voice.write([]) == voice.renew([], 30) == []
        voice.release([])

    assert asked == {}


def test_removing(voice, server):
    """What is removed is neither there nor listed, and whether it was there is counted."""
    voice.write([Write(NAME, b"data", ttl=60)])

    assert voice.remove([NAME, OTHER]) == 1
    assert voice.read(NAME) is None
    assert voice.backend.names() == []
    assert voice.remove([]) == 0


# Renewing and releasing.


def test_renewing(voice, server, lease):
    """A lease that is renewed lasts from now on."""
    voice.claim([NAME], "mine", 1)

    assert voice.renew([Hold(NAME, "mine")], 30) == [True]
    assert server.pttl(lease()) > 29_000


def test_renewing_what_is_nobodys(voice, server, lease):
    """A lease that the server has lost is taken again, and one that is somebody else's stays so."""
    voice.claim([OTHER], "theirs", 5)

    assert voice.renew([Hold(NAME, "mine"), Hold(OTHER, "mine")], 30) == [True, False]
    assert server.get(lease()) == b"mine"
    assert 0 < server.pttl(lease()) <= 30_000
    assert server.get(lease(OTHER)) == b"theirs"
    assert server.pttl(lease(OTHER)) <= 5_000


def test_releasing(voice, server, lease):
    """Only one's own lease is released."""
    voice.claim([NAME], "mine", 30)
    voice.claim([OTHER], "theirs", 30)

    voice.release([Hold(NAME, "mine"), Hold(OTHER, "mine")])

    assert not server.exists(lease())
    assert server.get(lease(OTHER)) == b"theirs"


def test_leases_are_no_entries(voice):
    """A lease is neither listed nor counted, nor has it a name that an entry could have."""
    voice.claim([NAME], "mine", 30)

    assert voice.backend.names() == []
    assert voice.backend.count() == 0
    assert voice.backend.rebuild() == 0


# What it costs.


def test_a_lone_miss_is_three_round_trips(voice, commandstats):
    """To look, to get the lease and to write, with the index and the end of the lease, are three commands."""
    voice.claim([OTHER], "mine", 30)
    voice.write([Write(OTHER, b"warm", token="mine")])

    with commandstats() as asked:
        assert voice.read(NAME) is None
        voice.claim([NAME], "mine", 30)
        voice.write([Write(NAME, b"data", token="mine")])

    sent = {"get": 1, "evalsha": 2}
    by_scripts = {"get": 4, "set": 2, "del": 1, "exists": 1, "zadd": 1, "zrem": 1, "time": 1}
    assert asked == {**by_scripts, **sent, "get": sent["get"] + by_scripts["get"]}


@pytest.mark.parametrize("forget", ["flush", "all but the first"])
def test_a_server_that_forgot_the_scripts(voice, server, forget):
    """A server that has been restarted, or told to forget its scripts, is given them again."""
    if forget != "flush":
        voice.claim([NAME], "mine", 30)
    server.script_flush()

    assert voice.claim([NAME], "mine", 30) == [GRANTED]
    server.script_flush()
    assert voice.write([Write(NAME, b"data", token="mine")]) == [WRITTEN]
    server.script_flush()
    voice.release([Hold(NAME, "mine")])
    assert voice.backend.names() == [NAME]


async def test_tasks_that_claim_at_the_same_time(redis_alias):
    """Of tasks on one loop, too, one gets the lease."""
    backend = backend_for(redis_alias)

    answers = await asyncio.gather(*(backend.aclaim([NAME], f"token {number}", 30) for number in range(100)))

    assert [answer for (answer,) in answers].count(GRANTED) == 1
