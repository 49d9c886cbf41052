"""Leases and writes of every backend but the Redis one, straight through the backend."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.db import connection, connections, transaction

from stepflows.caches import backend_for
from stepflows.caches.aliases import backend_of
from stepflows.caches.backend import Answer, Hold, Write
from stepflows.caches.django import BaseCacheBackend
from stepflows.caches.names import Name, lease_key
from stepflows.engine.cache import Busy
from stepflows.errors import CacheUnavailable, CannotList
from tests.workers import ROOT

GRANTED, UNGUARDED = Answer.GRANTED, Answer.UNGUARDED
WRITTEN, LATE, LOST = Answer.WRITTEN, Answer.LATE, Answer.LOST
NAME = Name("checkout", "user:1")
OTHER = Name("checkout", "user:2")
#: Seconds: as short as a lease can be, and one that no test sees the end of.
SHORT, LONG = 0.05, 600
#: Seconds until what has to happen counts as not happening.
PATIENCE = 30


class Unknown(LocMemCache):
    """Somebody's own cache, of which nothing is known but that it is one of Django's."""

    def get(self, key, default=None, version=None):
        return super().get(key, default, version)


@pytest.fixture(
    params=[
        "locmem",
        pytest.param("database", marks=pytest.mark.django_db(transaction=True)),
        "file",
        "unknown",
    ]
)
def backend(request):
    """Each in turn, empty."""
    if request.param == "unknown":
        cache = Unknown("unknown", {})
        cache.clear()
        return backend_of(cache)
    caches[request.param].clear()
    return backend_for(request.param)


class Twins:
    """The same backend through its async methods."""

    def __init__(self, backend) -> None:
        self.read = async_to_sync(backend.aread)
        self.read_many = async_to_sync(backend.aread_many)
        self.claim = async_to_sync(backend.aclaim)
        self.write = async_to_sync(backend.awrite)
        self.release = async_to_sync(backend.arelease)


@pytest.fixture(params=["sync", "async"])
def voice(request, backend):
    """Each backend in both voices."""
    return backend if request.param == "sync" else Twins(backend)


def claim(backend, token, seconds=LONG, **options):
    (answer,) = backend.claim([NAME], token, seconds, **options)
    return answer


def write(backend, data=b"entry", **options):
    (answer,) = backend.write([Write(NAME, data, **options)])
    return answer


def holder(backend):
    """Who has the lease, as one who comes with force finds out and does not stay."""
    answer = claim(backend, "visitor", force=True)
    if isinstance(answer, Busy):
        return answer.token
    backend.release([Hold(NAME, "visitor")])
    return None


def until(happened):
    """Ask again and again until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "It did not happen."
        time.sleep(0.005)


def asked_until_it_changes(ask, first):
    """The answer that comes after any number of the first one."""
    answers = [first]

    def changed():
        answers.append(ask())
        return answers[-1] != first

    until(changed)
    return answers[-1]


# Claiming.


def test_the_first_has_the_lease(voice):
    """The second is told by whose token it is taken."""
    assert claim(voice, "a") is GRANTED
    assert claim(voice, "b") == Busy("a")


def test_asked_again_the_answer_is_the_same(voice):
    """Who has the lease is granted it again."""
    assert [claim(voice, "a"), claim(voice, "a")] == [GRANTED, GRANTED]
    assert voice.claim([OTHER, OTHER], "a", LONG) == [GRANTED, GRANTED]
    assert claim(voice, "b") == Busy("a")


def test_many_names_are_claimed_in_one_go(voice):
    """Answers come in the order asked: what is there, a lease, or who has it."""
    stored, free, taken = names = [Name("checkout", key) for key in ("stored", "free", "taken")]
    voice.write([Write(stored, b"entry")])
    voice.claim([taken], "a", LONG)

    assert voice.claim(names, "b", LONG) == [b"entry", GRANTED, Busy("a")]
    assert voice.claim([free], "a", LONG) == [Busy("b")]


def test_an_entry_that_is_there_is_the_answer(voice):
    """The lease is not kept then; and who has one does not matter."""
    write(voice)
    assert claim(voice, "a") == b"entry"
    assert holder(voice) is None

    claim(voice, "a", force=True)
    assert claim(voice, "b") == b"entry"
    assert holder(voice) == "a"


def test_with_force_the_entry_does_not_matter(voice):
    """The lease does."""
    write(voice)
    assert claim(voice, "a", force=True) is GRANTED
    assert claim(voice, "b", force=True) == Busy("a")


def test_a_lease_ends_by_itself(backend):
    """Until then whoever asks is told that it is taken; no moment between the two is anything else."""
    claim(backend, "a", SHORT)
    assert asked_until_it_changes(lambda: claim(backend, "b"), Busy("a")) is GRANTED


# Renewing and releasing.


def test_renewing_makes_a_lease_last(backend):
    """It is there when one that was taken later, for as long, has ended."""
    claim(backend, "a", SHORT)
    backend.claim([OTHER], "a", SHORT)
    assert backend.renew([Hold(NAME, "a")], LONG) == [True]

    until(lambda: backend.claim([OTHER], "b", LONG) == [GRANTED])
    assert holder(backend) == "a"


def test_a_claim_makes_its_own_lease_last(backend):
    """Asked again, it is granted for that long from then on."""
    claim(backend, "a", SHORT)
    backend.claim([OTHER], "a", SHORT)
    assert claim(backend, "a", LONG) is GRANTED

    until(lambda: backend.claim([OTHER], "b", LONG) == [GRANTED])
    assert holder(backend) == "a"


def test_a_lease_that_ended_is_renewed_if_nobody_has_it(backend):
    """It is held again."""
    claim(backend, "a")
    backend.release([Hold(NAME, "a")])

    assert backend.renew([Hold(NAME, "a")], LONG) == [True]
    assert holder(backend) == "a"


def test_a_lease_that_is_somebody_elses_is_not_renewed(backend):
    """Each of several is told for itself, and the other one's stays as it is."""
    claim(backend, "b")
    assert backend.renew([Hold(NAME, "a"), Hold(OTHER, "a"), Hold(NAME, "b")], LONG) == [False, True, True]
    assert holder(backend) == "b"


def test_releasing_ends_a_lease(voice):
    """At once, for whoever asks next; and those of others stay."""
    voice.claim([NAME, OTHER], "a", LONG)
    voice.release([Hold(NAME, "a"), Hold(OTHER, "stale")])

    assert voice.claim([NAME, OTHER], "b", LONG) == [GRANTED, Busy("a")]


# Writing.


@pytest.mark.parametrize(
    ("there", "held_by", "given", "answer", "stands"),
    [
        (None, None, {}, WRITTEN, b"entry"),
        (b"first", None, {}, b"first", b"first"),
        (b"first", None, {"replace": True}, WRITTEN, b"entry"),
        # Without a lease of one's own, only what yields minds another's.
        (None, "b", {}, WRITTEN, b"entry"),
        (None, "b", {"yields": True}, LOST, None),
        (b"first", "b", {"yields": True}, b"first", b"first"),
        (b"first", "b", {"yields": True, "replace": True}, LOST, b"first"),
        (None, None, {"yields": True}, WRITTEN, b"entry"),
        # With it.
        (None, "a", {"token": "a"}, WRITTEN, b"entry"),
        (None, "a", {"token": "a", "yields": True}, WRITTEN, b"entry"),
        (b"first", "a", {"token": "a", "yields": True, "replace": True}, WRITTEN, b"entry"),
        # When it has ended, or is somebody else's.
        (None, None, {"token": "a"}, LATE, b"entry"),
        (None, None, {"token": "a", "yields": True}, LATE, b"entry"),
        (None, "b", {"token": "a"}, LATE, b"entry"),
        (b"first", "b", {"token": "a", "replace": True}, LATE, b"entry"),
        (b"first", "b", {"token": "a"}, b"first", b"first"),
        (None, "b", {"token": "a", "yields": True}, LOST, None),
    ],
)
def test_what_becomes_of_a_write(voice, there, held_by, given, answer, stands):
    """It depends on what is there, who has the lease, and whether it yields; the lease of another always stays."""
    if there is not None:
        write(voice, there)
    if held_by:
        claim(voice, held_by, force=True)

    assert write(voice, **given) == answer
    assert voice.read(NAME) == stands
    assert holder(voice) == (held_by if held_by != "a" else None)


def test_a_lease_stays_where_another_was_first(voice):
    """Whoever wrote has to see first whether those bytes are any good; writing over them ends it."""
    claim(voice, "a")
    write(voice, b"first")

    assert write(voice, token="a") == b"first"
    assert holder(voice) == "a"
    assert write(voice, token="a", replace=True, yields=True) is WRITTEN
    assert holder(voice) is None


def test_many_entries_are_written_in_one_go(voice):
    """Each is answered for itself, in the order asked."""
    taken, free = names = [Name("checkout", "taken"), Name("checkout", "free")]
    voice.claim([taken], "b", LONG)
    voice.claim([free], "a", LONG)

    answers = voice.write([Write(name, b"entry", token="a", yields=True) for name in [*names, free]])
    assert answers == [LOST, WRITTEN, b"entry"]
    assert voice.read_many(names) == [None, b"entry"]


def test_an_expired_entry_is_never_in_the_way(backend):
    """What is there is given back until it ends, and from then on there is room: no moment is neither."""
    write(backend, b"first", ttl=SHORT)
    assert asked_until_it_changes(lambda: write(backend), b"first") is WRITTEN


# At the same time.


def grants(tokens, ask):
    """How often each name was granted to threads that all ask at once."""
    barrier = Barrier(len(tokens))

    def asked(token):
        barrier.wait(PATIENCE)
        try:
            return ask(token)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(tokens)) as pool:
        return Counter(name for granted in pool.map(asked, tokens) for name in granted)


def test_threads_are_granted_each_name_once(backend):
    """Eight of them want the same fifty."""
    names = [Name("checkout", f"user:{number}") for number in range(50)]

    def ask(token):
        return [name for name in names if backend.claim([name], token, LONG) == [GRANTED]]

    assert grants("abcdefgh", ask) == dict.fromkeys(names, 1)


def test_a_lease_that_ended_goes_to_one_of_those_who_wait(backend):
    """All of them ask until somebody has it."""
    claim(backend, "dead", SHORT)

    def ask(token):
        answer = asked_until_it_changes(lambda: claim(backend, token), Busy("dead"))
        return [token] if answer is GRANTED else []

    assert sum(grants("abcdefgh", ask).values()) == 1


ASK = """
import sys
import django
django.setup()
from stepflows.caches import backend_for
from stepflows.caches.names import Name
alias, token = sys.argv[1:]
backend = backend_for(alias)
print("ready", flush=True)
sys.stdin.readline()
for number in range(50):
    (answer,) = backend.claim([Name("checkout", f"user:{number}")], token, 600)
    print(answer.token if hasattr(answer, "token") else token)
"""


@pytest.mark.parametrize("alias", [pytest.param("database", marks=pytest.mark.django_db(transaction=True)), "file"])
def test_processes_are_granted_each_name_once(alias):
    """Whoever does not get a lease knows the token of the process that did."""
    caches[alias].clear()
    backend_for(alias).claim([Name("checkout", "user:0")], "parent", LONG)
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, alias, token],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for token in "abc"
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    first, *others = [process.communicate(timeout=PATIENCE)[0].split() for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0]
    # All name the same holder for each of the fifty.
    assert others == [first, first]
    assert len(first) == 50
    assert first[0] == "parent"


# The database cache in a transaction.


@pytest.fixture
def table():
    """The backend of the database cache, empty."""
    caches["database"].clear()
    return backend_for("database")


@pytest.mark.django_db(transaction=True)
def test_in_a_transaction_there_are_no_leases(table):
    """Nobody else could see one, so all may run, and none is there when the transaction is committed."""
    with transaction.atomic():
        assert [claim(table, "a"), claim(table, "b")] == [UNGUARDED, UNGUARDED]
        assert table.claim([NAME, OTHER], "c", LONG, force=True) == [UNGUARDED, UNGUARDED]
    assert holder(table) is None


@pytest.mark.django_db(transaction=True)
def test_in_a_transaction_the_leases_of_others_stay(table):
    """They are not waited for, which might be for ever, nor ended or renewed."""
    claim(table, "b")
    with transaction.atomic():
        assert claim(table, "a") is UNGUARDED
        assert table.renew([Hold(NAME, "a")], LONG) == [False]
        table.release([Hold(NAME, "a")])
        assert write(table) is WRITTEN
        assert claim(table, "a") == b"entry"
    assert holder(table) == "b"


@pytest.mark.django_db(transaction=True)
def test_in_a_transaction_a_lease_from_before_it_is_what_it_was(table):
    """Its token still counts, and what ends it stands or falls with the transaction."""
    claim(table, "a")
    table.claim([OTHER], "a", LONG)
    with transaction.atomic():
        assert table.renew([Hold(NAME, "a")], LONG) == [True]
        assert write(table, token="a", yields=True) is WRITTEN
        table.release([Hold(OTHER, "a")])
        transaction.set_rollback(True)
    assert holder(table) == "a"

    with transaction.atomic():
        assert write(table, token="a", yields=True) is WRITTEN
        table.release([Hold(OTHER, "a")])
    assert holder(table) is None
    assert table.claim([OTHER], "b", LONG) == [GRANTED]


@pytest.mark.django_db(transaction=True)
def test_in_a_transaction_an_entry_stands_or_falls_with_it(table):
    """The cache's table lies in the database that is rolled back."""
    with transaction.atomic():
        assert claim(table, "a") is UNGUARDED
        assert write(table) is WRITTEN
        assert table.read(NAME) == b"entry"
        transaction.set_rollback(True)
    assert table.read(NAME) is None


@pytest.mark.django_db
def test_the_transaction_of_a_test_case_is_none(table):
    """Leases are taken as they are outside; but not in a transaction of the test's own."""
    assert connection.in_atomic_block
    assert [claim(table, "a"), claim(table, "b")] == [GRANTED, Busy("a")]
    with transaction.atomic():
        assert claim(table, "b") is UNGUARDED
    assert table.renew([Hold(NAME, "a"), Hold(NAME, "b")], LONG) == [True, False]
    table.release([Hold(NAME, "a")])
    assert claim(table, "b") is GRANTED


# Caches that fail.


class Mute(LocMemCache):
    """A cache that is down and says nothing of it."""

    def add(self, key, value, timeout=None, version=None):
        return False

    def get(self, key, default=None, version=None):
        return default


@pytest.mark.parametrize("call", [claim, lambda backend, token: backend.renew([Hold(NAME, token)], LONG)])
def test_a_cache_that_swallows_its_errors_is_unavailable(call):
    """Else everybody would wait for a lease that nobody has."""
    with pytest.raises(CacheUnavailable, match="cache object Mute did not store"):
        call(backend_of(Mute("mute", {})), "a")


READ_ONLY = {"sqlite": "PRAGMA query_only", "postgresql": "SET default_transaction_read_only"}


@pytest.mark.django_db(transaction=True)
def test_a_database_that_takes_no_leases_is_unavailable(table):
    """The message has the database's reason."""
    with connection.cursor() as cursor:
        cursor.execute(f"{READ_ONLY[connection.vendor]} = ON")
    try:
        with pytest.raises(CacheUnavailable, match="'database' failed to take a lease.*read-?only"):
            claim(table, "a")
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"{READ_ONLY[connection.vendor]} = OFF")


def test_a_folder_that_was_deleted():
    """The file cache makes it anew, with nothing in it."""
    backend = backend_for("file")
    write(backend)
    shutil.rmtree(caches["file"]._dir)
    assert [claim(backend, "a"), claim(backend, "b")] == [GRANTED, Busy("a")]
    assert Path(caches["file"]._dir).is_dir()


class Trap:
    """Fails the test when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("It was unpickled.",))


def test_what_lies_in_the_place_of_a_lease_is_not_unpickled(backend):
    """Whatever that is, the lease is taken."""
    if type(backend) is BaseCacheBackend:
        backend._source().set(lease_key(NAME), ["no", "bytes"], None)
    else:
        backend._source().set(lease_key(NAME), Trap(), None)

    assert isinstance(claim(backend, "a"), Busy)
    assert backend.renew([Hold(NAME, "a")], LONG) == [False]
    backend.release([Hold(NAME, "a")])
    assert write(backend, token="a", yields=True) is LOST


# What is listed.


def test_leases_are_not_listed(backend):
    """What is listed is entries, all of them."""
    backend.claim([NAME, OTHER], "a", LONG)
    write(backend)
    assert backend.is_complete() is True
    if backend.can_list:
        assert (backend.names(), backend.rebuild(), backend.count()) == ([], 0, 0)
        return
    with pytest.raises(CannotList):
        backend.rebuild()


def test_a_cache_that_keeps_nothing():
    """All are granted, and all is written and gone."""
    backend = backend_of(DummyCache("", {}))
    for voice in (backend, Twins(backend)):
        assert [claim(voice, "a"), claim(voice, "b")] == [UNGUARDED, UNGUARDED]
        assert voice.write([Write(NAME, b"entry", token="a"), Write(OTHER, b"entry")]) == [WRITTEN, WRITTEN]
        assert voice.read(NAME) is None
        voice.release([Hold(NAME, "a")])
    assert backend.renew([Hold(NAME, "a")], LONG) == [True]
    assert (backend.is_complete(), backend.rebuild()) == (True, 0)
