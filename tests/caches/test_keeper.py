"""Leases of StepCache, and the thread that renews them."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from asgiref.sync import async_to_sync
from celery.exceptions import SoftTimeLimitExceeded
from django.core.cache import caches
from django.db import transaction
from django.db.backends.signals import connection_created

from stepflows import CacheUnavailable, Err, InvalidUse, NotCacheable, Ok, StepCache
from stepflows.caches import keeper, stepcache
from stepflows.caches.backend import Answer, Hold, Write
from stepflows.caches.names import Name
from stepflows.engine.cache import LOST, MISSING, Busy, Entry, Lease
from stepflows.results import Stamp
from tests.entries import put
from tests.workers import ROOT

#: Seconds: a lease that is renewed soon, one that is kept on a slow machine too, and one that no test sees the end of.
SHORT, HELD, LONG = 0.15, 0.5, 600
#: Seconds until what has to happen counts as not happening.
PATIENCE = 10
NAME, WITNESS = Name("checkout", "user:1"), Name("checkout", "witness")


@pytest.fixture(autouse=True)
def _all_forgotten():
    """What is left of a test that failed is not renewed during the next."""
    yield
    keeper.keeper.forget(list(keeper.keeper._leases))


@pytest.fixture
def steps(cache_alias):
    return StepCache(cache_alias, "checkout")


@pytest.fixture
def local_steps():
    """Over the cache that is quickest to ask, for what does not depend on the cache."""
    return StepCache("locmem", "checkout")


@pytest.fixture
def fresh_keeper(monkeypatch):
    """A keeper as in a process that has just begun."""
    fresh = keeper._Keeper()
    monkeypatch.setattr(stepcache, "keeper", fresh)
    return fresh


class Sync:
    """A StepCache by its sync methods."""

    def __init__(self, steps):
        self.claim, self.store, self.release = steps.claim, steps.store, steps.release


class Async:
    """The same by its async ones."""

    def __init__(self, steps):
        self.claim, self.store = async_to_sync(steps.aclaim), async_to_sync(steps.astore)
        self.release = async_to_sync(steps.arelease)


@pytest.fixture(params=[Sync, Async])
def voice(request, steps):
    return request.param(steps)


def until(happened):
    """Ask again and again until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "It did not happen."
        time.sleep(0.005)


def claim(steps, seconds=LONG, key="user:1", **options):
    """A lease, which has to be free."""
    [lease] = steps.claim([key], seconds, **options)
    assert isinstance(lease, Lease)
    return lease


def grant(steps, token, name=NAME):
    """Let somebody else have the lease for long; whether it was free."""
    return steps.backend.claim([name], token, LONG, force=True) == [Answer.GRANTED]


def holder(steps, name=NAME):
    """Who has the lease, as one who comes with force finds out and does not stay."""
    [answer] = steps.backend.claim([name], "visitor", LONG, force=True)
    if isinstance(answer, Busy):
        return answer.token
    steps.backend.release([Hold(name, "visitor")])
    return None


def steal(steps, lease):
    """Let somebody else have this one's lease, as if it had ended."""

    def stolen():
        # Between the two, the keeper may have renewed it.
        steps.backend.release([lease.hold])
        return grant(steps, "thief", lease.hold.name)

    until(stolen)


class Spy:
    """Stands before a method of a backend, and notes each call."""

    def __init__(self, monkeypatch, steps, method):
        self.calls = []
        self.threads = set()
        self.act = self.real = getattr(steps.backend, method)
        monkeypatch.setattr(steps.backend, method, self)

    def __call__(self, *args, **options):
        self.calls.append(args)
        self.threads.add(threading.current_thread())
        return self.act(*args, **options)

    def of(self, lease):
        """Calls for this lease."""
        return [call for call in self.calls if lease.hold in call[0]]


class Gate:
    """Lets nobody pass until it is opened."""

    def __init__(self):
        self.reached, self._open = threading.Event(), threading.Event()

    def open(self):
        self._open.set()

    def __call__(self):
        self.reached.set()
        assert self._open.wait(PATIENCE)


@contextmanager
def closed_gate():
    """One that is open at the end, whatever happens."""
    gate = Gate()
    try:
        yield gate
    finally:
        gate.open()


def unavailable(*args):
    raise CacheUnavailable("The server is away.")


# Renewing.


def test_a_lease_that_is_held_lasts(steps):
    """While somebody has the object, the lease is there when others for as long have come and gone."""
    lease = claim(steps, HELD)
    # A lease of the database cache lasts two seconds.
    for life in range(1 if steps.alias == "database" else 2):
        steps.backend.claim([WITNESS], f"witness {life}", HELD)
        until(lambda life=life: steps.backend.claim([WITNESS], f"next {life}", HELD) == [Answer.GRANTED])
        steps.backend.release([Hold(WITNESS, f"next {life}")])
        assert holder(steps) == lease.token


def test_a_lease_that_is_dropped_ends(steps):
    """Nobody renews what nobody has."""
    steps.claim(["user:1"], SHORT)
    assert holder(steps)
    until(lambda: grant(steps, "other"))


def test_a_lease_that_was_lost_is_told_once(steps, monkeypatch, caplog):
    """The log names key, cache and scope, and it is renewed no more; the other's stays, and so do one's own others."""
    renew = Spy(monkeypatch, steps, "renew")
    lease, other = claim(steps, SHORT), claim(steps, SHORT, "user:2")
    steal(steps, lease)
    until(lambda: caplog.records)
    calls = len(renew.of(lease))
    more = len(renew.of(other)) + 2
    until(lambda: len(renew.of(other)) >= more)

    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "'user:1'" in record.getMessage()
    assert steps.backend.title in record.getMessage()
    assert "'checkout'" in record.getMessage()
    assert len(renew.of(lease)) == calls
    assert holder(steps) == "thief"


def test_a_server_that_is_away_is_asked_again(steps, monkeypatch, caplog):
    """Each failure is in the log, and once the server is back the leases are held."""
    renew = Spy(monkeypatch, steps, "renew")
    renew.act = unavailable
    lease = claim(steps, SHORT)
    until(lambda: len(caplog.records) >= 2)
    steps.backend.release([lease.hold])
    # Whoever asked for the holder meanwhile would have it for a moment, and it would be lost to that.
    answers = []

    def renewed(holds, seconds):
        answers.append(renew.real(holds, LONG))
        return answers[-1]

    renew.act = renewed
    until(lambda: answers)

    assert answers[0] == [True]
    assert holder(steps) == lease.token
    assert {record.getMessage() for record in caplog.records} == {"1 lease could not be renewed: The server is away."}


def test_a_renewal_does_not_bring_back_what_has_ended(steps, monkeypatch):
    """One that is under way when its lease is released is undone."""
    renew = Spy(monkeypatch, steps, "renew")
    with closed_gate() as gate:
        renew.act = lambda holds, seconds: (gate(), renew.real(holds, LONG))[1]
        release = Spy(monkeypatch, steps, "release")
        lease = claim(steps, SHORT)
        assert gate.reached.wait(PATIENCE)
        steps.release([lease])
    until(lambda: len(release.of(lease)) == 2)

    until(lambda: holder(steps) is None)
    assert len(renew.of(lease)) == 1


def test_a_loss_is_told_although_another_cannot_be_undone(local_steps, monkeypatch, caplog):
    """What the server fails to do for one lease hides nothing of the others."""
    renew = Spy(monkeypatch, local_steps, "renew")
    with closed_gate() as gate:
        renew.act = lambda holds, seconds: (gate(), renew.real(holds, seconds))[1]
        ended, lost = local_steps.claim(["user:1", "user:2"], SHORT)
        assert gate.reached.wait(PATIENCE)
        steal(local_steps, lost)
        local_steps.release([ended])
        monkeypatch.setattr(local_steps.backend, "release", unavailable)
    until(lambda: len(caplog.records) >= 2)

    told = sorted(record.getMessage() for record in caplog.records)
    assert [text[:24] for text in told] == ["1 lease could not be giv", "The lease of key 'user:2"]


def test_each_lease_is_renewed_at_its_own_pace(local_steps, monkeypatch):
    """Of a long and a short life, each is renewed for as long as it was asked for, and the short one more often."""
    renew = Spy(monkeypatch, local_steps, "renew")
    eternal, long, short = claim(local_steps, 1e12, "user:0"), claim(local_steps, 1), claim(local_steps, 0.2, "user:2")
    until(lambda: len(renew.of(long)) == 2)

    assert len(renew.of(short)) > len(renew.of(long))
    assert renew.of(eternal) == []
    assert {call[1] for call in renew.of(long)} == {1}
    assert {call[1] for call in renew.of(short)} == {0.2}


def test_leases_of_one_cache_are_renewed_together(local_steps, monkeypatch):
    """A hundred do not take a hundred calls, which are made in the keeper's thread."""
    renew = Spy(monkeypatch, local_steps, "renew")
    leases = local_steps.claim([f"user:{number}" for number in range(100)], SHORT)
    until(lambda: sum(len(holds) for holds, _ in list(renew.calls)) >= 200)

    # Those granted last are due a little later.
    assert len(renew.calls) <= 10
    assert {thread.name for thread in renew.threads} == {"stepflows-leases-task"}
    local_steps.release(leases)


@pytest.mark.django_db(transaction=True)
def test_no_database_connection_stays_open(monkeypatch):
    """What the keeper's thread has opened for a database cache is closed after each round."""
    opened = []

    def note(connection, **_):
        if threading.current_thread().name == "stepflows-leases-task":
            opened.append(connection)

    connection_created.connect(note)
    try:
        caches["database"].clear()
        steps = StepCache("database", "checkout")
        lease = claim(steps, SHORT)
        until(lambda: len(opened) >= 2)
        steps.release([lease])
        steps.abandon([claim(steps)])
        until(lambda: holder(steps) is None)
        until(lambda: all(connection.connection is None for connection in opened))
    finally:
        connection_created.disconnect(note)


# Abandoning.


def test_an_abandoned_lease_ends_soon(steps, monkeypatch):
    """It is ended in the keeper's thread, and whoever abandons it waits for nothing."""
    release = Spy(monkeypatch, steps, "release")
    lease = claim(steps)
    steps.abandon([lease])
    until(lambda: grant(steps, "other"))

    assert [holds for (holds,) in release.calls] == [[lease.hold]]
    assert {thread.name for thread in release.threads} == {"stepflows-leases-task"}


def test_leases_can_be_abandoned_at_any_moment(local_steps):
    """Also by what the garbage collector finds while the keeper itself is at work in the same thread."""
    lease = claim(local_steps)
    with keeper.keeper._changed:
        local_steps.abandon([lease])
    until(lambda: holder(local_steps) is None)


def test_what_cannot_be_abandoned_is_told(steps, monkeypatch, caplog):
    """The log says that it lasts until it ends by itself, and the next ones are ended all the same."""
    release = Spy(monkeypatch, steps, "release")
    release.act = unavailable
    first, second = steps.claim(["user:1", "user:2"], LONG)
    steps.abandon([first])
    until(lambda: caplog.records)
    release.act = release.real
    steps.abandon([second])
    until(lambda: holder(steps, second.hold.name) is None)

    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("1 lease could not be given back")
    assert "last until they end by themselves: The server is away." in record.getMessage()
    assert holder(steps) == first.token


def test_what_is_abandoned_while_the_keeper_works_is_not_forgotten(local_steps, monkeypatch):
    """It is ended right after that."""
    release = Spy(monkeypatch, local_steps, "release")
    first, second = local_steps.claim(["user:1", "user:2"], LONG)
    with closed_gate() as gate:
        release.act = lambda holds: (gate(), release.real(holds))[1]
        local_steps.abandon([first])
        assert gate.reached.wait(PATIENCE)
        local_steps.abandon([second])
    until(lambda: release.of(second))


@pytest.mark.parametrize("method", ["renew", "release"])
def test_the_keeper_outlives_any_error_of_a_backend(fresh_keeper, local_steps, monkeypatch, caplog, method):
    """A mistake in the settings of one cache does not end the leases of all others; the log tells of it."""
    spy = Spy(monkeypatch, local_steps, method)

    def mistaken(*args):
        raise InvalidUse("The cache alias has decode_responses=True.")

    spy.act = mistaken
    first, second = claim(local_steps, SHORT), claim(local_steps, SHORT, "user:2")
    local_steps.abandon([second])
    until(lambda: spy.calls)
    spy.act = spy.real
    renew = Spy(monkeypatch, local_steps, "renew")
    until(lambda: renew.of(first))

    assert "decode_responses" in caplog.text


# Where the thread is, and where not.


def test_a_claim_without_a_lease_starts_no_thread(fresh_keeper, local_steps):
    """Neither what was stored nor what somebody else has is to be renewed."""
    local_steps.store([Entry("user:1", Ok(1))])
    grant(local_steps, "other", WITNESS)

    assert local_steps.claim(["user:1", WITNESS.key], LONG) == [Ok(1), Busy("other")]
    assert fresh_keeper._thread is None


def script(text, *arguments):
    """What another interpreter prints, which must not complain of anything."""
    text = "import os, sys, threading, time, django; django.setup()\n" + PRELUDE + text
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run(
        [sys.executable, *arguments, "-c", text],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


PRELUDE = """
from stepflows import Ok, StepCache
from stepflows.engine.cache import Entry
steps = StepCache("file", "checkout")

def running():
    return sum(thread.name == "stepflows-leases" for thread in threading.enumerate())
"""


def test_the_thread_begins_with_the_first_lease():
    """A process that asks for none has no thread of ours, and one that asks for many has one."""
    caches["file"].clear()
    assert script("""
steps.load("user:1"), steps.store([Entry("user:2", Ok(1))]), steps.clear()
print(running())
leases = [steps.claim([f"user:{number}"], 0.1) for number in range(9)]
print(running())
""") == ["0", "1"]


def test_a_process_that_ends_with_leases_says_nothing():
    """Neither the thread, in the middle of its work, nor what it works on complains."""
    caches["file"].clear()
    script(
        """
leases = [steps.claim([f"user:{number}"], 0.002) for number in range(9)]
steps.abandon(leases.pop())
deadline = time.monotonic() + 0.1
while time.monotonic() < deadline:
    pass
""",
        "-X",
        "dev",
        "-W",
        "error",
        # What is imported is not ours.
        "-W",
        "ignore::DeprecationWarning",
    )


def test_a_forked_child_has_leases_of_its_own():
    """It renews none of its parent's, and its own in a thread of its own; the parent renews on."""
    caches["file"].clear()
    assert script(
        """
def watch(name):
    renewed, real = [], steps.backend.renew
    def renew(holds, seconds):
        renewed.extend(hold.name.key for hold in holds)
        return real(holds, seconds)
    vars(steps.backend)["renew"] = renew
    deadline = time.monotonic() + 10
    while renewed.count(name) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    print(name, running(), *sorted(set(renewed)), flush=True)

parents = steps.claim(["of-parent"], 0.3)
before = running()
child = os.fork()
if child == 0:
    print(before, running(), flush=True)
    childs = steps.claim(["of-child"], 0.3)
    watch("of-child")
    os._exit(0)
os.waitpid(child, 0)
watch("of-parent")
""",
        "-W",
        "ignore::DeprecationWarning",
    ) == ["1", "0", "of-child", "1", "of-child", "of-parent", "1", "of-parent"]


# StepCache: claiming.


def test_who_claims_first_has_the_lease(voice):
    """The next is told whose it is, and gets one when it is given back."""
    lease = claim(voice)
    assert voice.claim(["user:1"], LONG) == [Busy(lease.token)]
    voice.release([lease])
    assert claim(voice).token != lease.token


@pytest.mark.parametrize(
    "spoil",
    [
        lambda steps: steps.backend.write([Write(NAME, b"junk", replace=True)]),
        # The cache keeps it, but not for the clock here.
        lambda steps: put(steps.alias, "checkout", "user:1", ttl=60, ago=3600),
    ],
    ids=["damaged", "expired"],
)
def test_what_is_of_no_use_is_in_nobodys_way(voice, steps, spoil):
    """Damaged entries, and those past their time, are claimed as if they were not there: by one."""
    spoil(steps)
    lease, other = voice.claim(["user:1", "user:2"], LONG)
    assert {type(lease), type(other)} == {keeper.HeldLease}
    assert voice.claim(["user:1"], LONG) == [Busy(lease.token)]


def test_refresh_takes_a_lease_on_what_is_there(voice):
    """The stored result is not in the way then."""
    voice.store([Entry("user:1", Ok(1))])
    assert voice.claim(["user:1"], LONG) == [Ok(1)]
    lease = claim(voice, refresh=True)
    assert voice.claim(["user:1"], LONG, refresh=True) == [Busy(lease.token)]


@pytest.mark.parametrize(
    "error", [CacheUnavailable("cut off"), KeyboardInterrupt(), SoftTimeLimitExceeded()], ids=lambda error: repr(error)
)
def test_a_claim_that_fails_leaves_no_lease(steps, monkeypatch, error):
    """What was granted before the answer got lost is given back."""
    spy = Spy(monkeypatch, steps, "claim")

    def cut_off(names, *args, **options):
        spy.real(names[:1], *args, **options)
        spy.act = spy.real
        raise error

    spy.act = cut_off
    with pytest.raises(type(error)):
        steps.claim(["user:1", "user:2"], LONG)
    until(lambda: grant(steps, "other"))


def test_a_second_claim_that_fails_leaves_no_lease(steps, monkeypatch):
    """Neither those of the first, when what was damaged was to be claimed again."""
    steps.backend.write([Write(NAME, b"junk")])
    spy = Spy(monkeypatch, steps, "claim")

    def cut_off(names, *args, force=False):
        if not force:
            return spy.real(names, *args)
        spy.act = spy.real
        raise CacheUnavailable("cut off")

    spy.act = cut_off
    with pytest.raises(CacheUnavailable):
        steps.claim(["user:1", "user:2"], LONG)
    assert len(spy.calls) == 2
    until(lambda: grant(steps, "other") and grant(steps, "other", Name("checkout", "user:2")))


@pytest.mark.parametrize("thief", [None, "thief"])
def test_what_takes_the_place_of_a_damaged_entry_is_not_run_again(steps, monkeypatch, thief):
    """A result that is stored between the look at what was damaged and the second claim is the answer to it."""
    steps.backend.write([Write(NAME, b"junk")])
    spy = Spy(monkeypatch, steps, "claim")

    def overtaken(names, *args, force=False):
        if force:
            spy.act = spy.real
            put(steps.alias, "checkout", "user:1", Ok("theirs"))
            if thief:
                grant(steps, thief)
        return spy.real(names, *args, force=force)

    spy.act = overtaken
    assert steps.claim(["user:1"], LONG) == [Ok("theirs")]
    assert holder(steps) == thief


def test_a_cancelled_claim_leaves_no_lease(steps, monkeypatch):
    """What was granted before the task was cancelled is given back."""
    real = steps.backend.aclaim

    async def body():
        granted = asyncio.Event()

        async def aclaim(*args, **options):
            await real(*args, **options)
            granted.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(steps.backend, "aclaim", aclaim)
        task = asyncio.create_task(steps.aclaim(["user:1"], LONG))
        await asyncio.wait_for(granted.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(body())
    until(lambda: grant(steps, "other"))


@pytest.mark.parametrize("alias", ["file", pytest.param("database", marks=pytest.mark.django_db(transaction=True))])
def test_a_claim_that_is_cancelled_in_its_thread_leaves_no_lease(alias, monkeypatch):
    """Nor what is granted after the task was cancelled, in the thread that nobody waits for any more."""
    caches[alias].clear()
    steps = StepCache(alias, "checkout")
    claims, released = Spy(monkeypatch, steps, "claim"), Spy(monkeypatch, steps, "release")

    async def body(gate):
        task = asyncio.create_task(steps.aclaim(["user:1"], LONG))
        await asyncio.to_thread(gate.reached.wait, PATIENCE)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=0.2)
        # Either the task waits for its thread, or what that takes later is given back as well.
        await asyncio.to_thread(until, lambda: not done or released.calls)
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task

    with closed_gate() as gate:
        claims.act = lambda *args, **options: (gate(), claims.real(*args, **options))[1]
        asyncio.run(body(gate))
    claims.act = claims.real
    until(lambda: grant(steps, "other"))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("result", [Ok(1), Err("NOT_FOUND")])
def test_in_a_transaction_the_right_to_run_needs_no_lease(result):
    """There is nothing to renew or to end, and everything can be stored with it, also over what others are at."""
    caches["database"].clear()
    steps = StepCache("database", "checkout")
    grant(steps, "other")
    with transaction.atomic():
        lease = claim(steps)
        assert (type(lease), lease.token) == (Lease, "")
        assert steps.store([Entry("user:1", result, lease=lease)]) == [result]
        steps.release([lease])
        steps.abandon([lease])
    assert steps.get("user:1") == result
    assert holder(steps) == "other"


# StepCache: storing.


@pytest.mark.parametrize("result", [Ok(1), Err("NOT_FOUND")])
@pytest.mark.parametrize("replace", [False, True])
def test_storing_ends_the_lease(voice, steps, result, replace):
    """Once the result stands nobody needs it, and nobody renews it."""
    lease = claim(voice)
    assert lease in keeper.keeper._leases
    assert voice.store([Entry("user:1", result, replace, lease)]) == [result]
    assert lease not in keeper.keeper._leases
    assert holder(steps) is None


@pytest.mark.parametrize("replace", [False, True])
def test_a_result_past_its_time_ends_the_lease(voice, steps, replace):
    """It is not stored, and takes away what it was to replace."""
    put(steps.alias, "checkout", "user:1", Ok("old"))
    lease = claim(voice, refresh=True)
    entry = Entry("user:1", Ok(1, stamp=Stamp(expires_at=time.time() - 1)), replace, lease)

    assert voice.store([entry]) == [Ok(1)]
    assert steps.load("user:1") == (MISSING if replace else Ok("old"))
    assert lease not in keeper.keeper._leases
    assert holder(steps) is None


def test_a_success_counts_although_the_lease_was_lost(voice, steps):
    """It is the first, and the other's lease stays."""
    lease = claim(voice)
    steal(steps, lease)
    assert voice.store([Entry("user:1", Ok(1), lease=lease)]) == [Ok(1)]
    assert steps.get("user:1") == Ok(1)
    assert holder(steps) == "thief"


def test_the_first_counts_although_the_lease_was_lost(voice, steps):
    """What the other has stored stands."""
    lease = claim(voice)
    steal(steps, lease)
    steps.store([Entry("user:1", Ok("theirs"))])
    for result in (Ok("mine"), Err("mine")):
        assert voice.store([Entry("user:1", result, lease=lease)]) == [Ok("theirs")]


@pytest.mark.parametrize(("result", "replace"), [(Err("NOT_FOUND"), False), (Ok("mine"), True), (Err("MINE"), True)])
def test_what_the_other_may_do_better_is_lost(voice, steps, result, replace):
    """A failure, or what is to replace something, is not stored while somebody else is at it."""
    if replace:
        put(steps.alias, "checkout", "user:1", Ok("old"))
    lease = claim(voice, refresh=True)
    steal(steps, lease)

    assert voice.store([Entry("user:1", result, replace, lease)]) == [LOST]
    assert steps.load("user:1") == (Ok("old") if replace else MISSING)
    assert holder(steps) == "thief"
    assert lease not in keeper.keeper._leases


def test_a_failure_is_lost_in_the_place_of_a_damaged_entry_too(voice, steps):
    """That something useless is there does not make it the first."""
    steps.backend.write([Write(NAME, b"junk")])
    lease = claim(voice)
    steal(steps, lease)
    assert voice.store([Entry("user:1", Err("NOT_FOUND"), lease=lease)]) == [LOST]


def test_a_failure_counts_when_nobody_else_is_at_it(voice, steps):
    """A lease that has merely ended is no reason to run the step again."""
    lease = claim(voice)
    steps.backend.release([lease.hold])
    assert voice.store([Entry("user:1", Err("NOT_FOUND"), lease=lease)]) == [Err("NOT_FOUND")]
    assert steps.get("user:1") == Err("NOT_FOUND")


def test_a_damaged_entry_is_stored_over_under_a_lease(voice, steps):
    """What is no entry is not the first, and the lease ends."""
    steps.backend.write([Write(NAME, b"junk")])
    lease = claim(voice)
    assert voice.store([Entry("user:1", Err("NOT_FOUND"), lease=lease)]) == [Err("NOT_FOUND")]
    assert steps.get("user:1") == Err("NOT_FOUND")
    assert holder(steps) is None


def test_many_are_stored_each_with_its_own_answer(voice, steps):
    """What cannot be kept is told in its place and keeps its lease, and hurts no other."""
    keys = ["a", "b", "c", "d", "e"]
    leases = voice.claim(keys, LONG)
    steps.store([Entry("b", Ok("first"))])
    steal(steps, leases[2])
    ended = Ok(4, stamp=Stamp(expires_at=time.time() - 1))
    results = [Ok(0), Ok(1), Err("NOT_FOUND"), Ok(iter([])), ended]
    stored = voice.store([Entry(*each, lease=lease) for *each, lease in zip(keys, results, leases, strict=True)])

    assert [*stored[:3], stored[4]] == [Ok(0), Ok("first"), LOST, ended]
    assert isinstance(stored[3], NotCacheable)
    assert steps.load_many(keys) == [Ok(0), Ok("first"), MISSING, MISSING, MISSING]
    assert [holder(steps, Name("checkout", key)) for key in keys] == [None, None, "thief", leases[3].token, None]
    assert [lease in keeper.keeper._leases for lease in leases] == [False, False, False, True, False]


def test_what_could_not_be_stored_keeps_its_lease(steps, monkeypatch):
    """The step may be stored later, and is not to be run by others until then."""
    lease = claim(steps)
    spy = Spy(monkeypatch, steps, "write")
    spy.act = unavailable
    with pytest.raises(CacheUnavailable):
        steps.store([Entry("user:1", Ok(1), lease=lease)])
    assert lease in keeper.keeper._leases
    assert holder(steps) == lease.token
