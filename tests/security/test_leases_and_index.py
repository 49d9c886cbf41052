"""Leases and the index are not signed: whoever can write to the cache can hold steps up, and nothing more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import call_command

from stepflows import CacheUnavailable, Err, Ok, StepCache, create_workflow
from stepflows.cachedsteps import aliases_in_use
from stepflows.caches import backend_for
from stepflows.caches.names import Name, lease_key, reserved_key
from stepflows.engine.cache import Busy, Entry, Lease
from stepflows.registry import registry
from tests.servers import Valkey

PATIENCE = 30
HOSTILE = [b"", b"\0", b"\xff" * 1000, b"x" * 1_000_000, b"\x80\x05cos\nsystem\n", "ł\x1b[2J".encode()]
MEMBERS = [
    *(b"", b"\0", b"\0\0\0", b"\xff", b"\xff\xff", b"no separator", b"checkout", b"checkout\0", b"checkout\0\xff"),
    *(b"checkout\0\xff\xff", b"check\xc3\0user:1", b"checkout\0\x1b[2J\n", b"x" * 1_000_000, b"a\0" + b"y" * 1_000_000),
    *(b"%.lease\0" + b"0" * 32, b"%%\0x", b"%.index\0", b"../..\0x", b"checkout@\0user:1", b"%1B%0A\0<script>"),
]


@pytest.fixture
def steps(valkey: Valkey, settings: Any, monkeypatch: pytest.MonkeyPatch) -> StepCache:
    """The only cache with steps, empty; what lies in it is signed."""
    settings.STEPFLOWS = {"CACHE": "django_redis", "SIGN": True}
    monkeypatch.setattr(registry, "_workflows", {})
    return StepCache("django_redis", "checkout")


def place(key: str) -> str:
    """What the server calls a key that stepflows gives to the cache."""
    return str(caches["django_redis"].make_key(key))


LEASE = lease_key(Name("checkout", "user:1"))
INDEX, EXPIRY, MARK = (reserved_key(purpose) for purpose in ("index", "expiry", "indexed"))


def run(ran: list[str] | None = None) -> Any:
    """What a run of one step comes to; notes in the list that the step ran."""

    def load() -> str:
        if ran is not None:
            ran.append("ran")
        return "honest"

    return create_workflow("checkout", {}, cache="django_redis").run(
        lambda step, deps: step("load", load, key="user:1")
    )


@pytest.mark.parametrize("lease", HOSTILE, ids=range(len(HOSTILE)))
def test_a_forged_lease_holds_a_step_up_until_it_is_gone(lease: bytes, steps: StepCache, valkey: Valkey):
    """Whoever asks waits, for as long as the lease is there, and then runs the step: no value comes of a lease."""
    valkey.client.set(place(LEASE), lease)
    assert isinstance(steps.claim(["user:1"], 30)[0], Busy)
    results: list[Any] = []
    waiting = threading.Thread(target=lambda: results.append(run()))
    waiting.start()
    deadline = time.monotonic() + PATIENCE
    asked = valkey.client.info("commandstats")["cmdstat_get"]["calls"]
    while valkey.client.info("commandstats")["cmdstat_get"]["calls"] < asked + 10:
        assert time.monotonic() < deadline, "Nobody asks for the step."
        time.sleep(0.01)
    assert results == []
    valkey.client.delete(place(LEASE))
    waiting.join(PATIENCE)
    assert results == [Ok("honest")]


def test_a_result_ends_the_wait_for_a_forged_lease(steps: StepCache, valkey: Valkey):
    """Whoever waits for a lease takes a result that is stored meanwhile."""
    steps.set("user:1", Ok("stored"))
    valkey.client.set(place(LEASE), b"forged")
    assert run() == Ok("stored")


def test_a_lease_that_is_no_text_keeps_the_step_from_running(steps: StepCache, valkey: Valkey):
    """A list in its place makes the server refuse: the step fails, and nothing is run without a lease."""
    valkey.client.rpush(place(LEASE), b"forged")
    ran: list[str] = []
    result = run(ran)
    assert isinstance(result.error, CacheUnavailable)
    assert ran == []


def test_without_its_lease_a_step_may_run_twice_and_the_first_result_counts(steps: StepCache, valkey: Valkey):
    """Whoever deletes leases lets others run what is under way; both come to the same result."""
    [first] = steps.claim(["user:1"], 30)
    assert isinstance(first, Lease)
    valkey.client.delete(place(LEASE))
    assert run() == Ok("honest")
    [standing] = steps.store([Entry("user:1", Ok("late"), lease=first)])
    assert standing == Ok("honest")


def test_a_step_whose_entry_was_deleted_runs_again(steps: StepCache, valkey: Valkey):
    """No signature keeps an entry from being deleted: that is what idempotency keys are for."""
    ran: list[str] = []
    run(ran)
    valkey.flush()
    run(ran)
    assert ran == ["ran", "ran"]


# The index


@pytest.fixture
def besieged(steps: StepCache, valkey: Valkey) -> Iterator[StepCache]:
    """An honest step in an index that somebody has filled with whatever they could think of."""
    steps.set("user:1", Ok("honest"))
    hostile = [*MEMBERS, *(b"checkout\0\xff%d" % number for number in range(1500))]
    valkey.client.zadd(place(INDEX), dict.fromkeys(hostile, 0))
    valkey.client.zadd(place(EXPIRY), {b"checkout\0nothing": 0, b"\xff": float("-inf"), b"x": float("inf")})
    valkey.client.set("another app's", b"1")
    valkey.client.set(place("session"), b"1")
    yield steps
    assert (valkey.client.get("another app's"), valkey.client.get(place("session"))) == (b"1", b"1")


def test_a_forged_index_shows_what_is_there(besieged: StepCache):
    """Whatever the index names, only what has an entry is listed, in a call that ends."""
    assert besieged.keys() == ["user:1"]
    assert [*besieged] == ["user:1"]
    backend = backend_for("django_redis")
    survey = backend.survey("checkout")
    assert (survey.names, len(survey.heads)) == ([Name("checkout", "user:1")], 1)
    assert Name("checkout", "user:1") in backend.survey().names
    assert "checkout" in backend.scopes()


def test_a_forged_index_does_not_keep_steps_from_being_used(besieged: StepCache):
    """No run reads it."""
    assert run() == Ok("honest")


def test_commands_work_on_a_forged_index(besieged: StepCache):
    """They list and clear the steps that there are, print nothing that a terminal obeys, and remove nothing else."""
    output, errors = StringIO(), StringIO()
    call_command("list_step_cache", "--limit", "0", stdout=output, stderr=errors)
    assert [line.split("\t")[:2] for line in output.getvalue().splitlines()] == [["checkout", "user:1"]]
    assert errors.getvalue().removesuffix("\n").isprintable()
    call_command("clear_step_cache", "--all", "--noinput", stdout=output)
    assert besieged.get("user:1") is None


@pytest.mark.django_db
def test_the_admin_works_on_a_forged_index(besieged: StepCache, admin_client: Any):
    """The list and the page that clears show, and show no markup of anybody's."""
    assert aliases_in_use() == ("django_redis",)
    for page in ("", "?workflow=checkout", "?q=user", "?p=20", "clear/", "clear/?cache=django_redis&scope=all"):
        response = admin_client.get(f"/admin/stepflows/cachedstep/{page}")
        assert response.status_code == 200
        assert b"<script>" not in response.content.replace(b'<script src="', b"")
    assert b"user:1" in admin_client.get("/admin/stepflows/cachedstep/").content


def test_a_lost_index_is_made_anew(steps: StepCache, valkey: Valkey):
    """What somebody takes out of the index is not listed, but used; --rebuild lists it again."""
    steps.set("user:1", Ok("honest"))
    valkey.client.zrem(place(INDEX), b"checkout\0user:1")
    assert (steps.keys(), run()) == ([], Ok("honest"))
    call_command("list_step_cache", "--rebuild", stdout=StringIO(), stderr=StringIO())
    assert steps.keys() == ["user:1"]


@pytest.mark.parametrize("key", [INDEX, EXPIRY], ids=["index", "expiry"])
def test_an_index_that_is_none_fails_loudly(key: str, steps: StepCache, valkey: Valkey):
    """A text in its place makes the server refuse to store and to list; what is stored is used all the same."""
    steps.set("user:1", Ok("honest"))
    valkey.client.set(place(key), b"forged")
    with pytest.raises(CacheUnavailable):
        steps.keys()
    with pytest.raises(CacheUnavailable):
        steps.set("user:2", Ok(2), ttl=60)
    assert run() == Ok("honest")


def test_what_is_no_text_in_place_of_an_entry_counts_as_missing(steps: StepCache, valkey: Valkey):
    """A list of somebody's is no entry: the step runs, and its result takes that place."""
    valkey.client.rpush(place("stepflows:checkout:user:1"), b"forged")
    assert run() == Ok("honest")
    assert not isinstance(steps.get("user:1"), Err)
