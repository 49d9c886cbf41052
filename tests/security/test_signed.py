"""With SIGN on, whoever can write to the cache and does not know SECRET_KEY changes no result."""

from __future__ import annotations

import hmac
import time
from hashlib import sha256
from typing import Any

import pytest
from django.utils.crypto import salted_hmac
from hypothesis import given
from hypothesis import strategies as st

from stepflows import Err, Ok, StepCache, create_workflow, dumps, loads
from stepflows.caches.codec import Codec, Signer
from stepflows.engine.cache import Damaged
from stepflows.errors import DamagedEntry
from stepflows.results import Stamp
from tests.security.forging import WORKFLOW, entry, packed, plant, stored

HONEST, FORGED = "paid", "forged"
SIGNED = Codec(signer=Signer("secret"))
GOOD = SIGNED.encode(Ok(HONEST), WORKFLOW, "user:1")


@pytest.fixture(params=["locmem", "redis", "django_redis"])
def alias(request: pytest.FixtureRequest, settings: Any) -> str:
    """A cache that is signed; in this process, and on a server."""
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["old"]
    settings.STEPFLOWS = {"SIGN": True}
    if request.param != "locmem":
        request.getfixturevalue("valkey")
    name: str = request.param
    return name


def run(
    alias: str, workflow: str = WORKFLOW, version: int | None = None, key: str = "user:1", value: str = HONEST
) -> Any:
    """What a run of one step comes to."""
    flow = create_workflow(workflow, {}, cache=alias, version=version)
    return flow.run(lambda step, deps: step("load", lambda: value, key=key))


def signed_with(key: str, settings: Any, value: Any = FORGED) -> bytes:
    """An entry for the step, signed as the sites do that have this SECRET_KEY."""
    return Codec(signer=Signer(key)).encode(Ok(value), WORKFLOW, "user:1")


def test_a_signed_entry_is_used(alias: str):
    """What was stored here is used here, or all of the following would mean nothing."""
    run(alias)
    assert run(alias, value="ran again") == Ok(HONEST)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(entry(packed(FORGED)), id="unsigned"),
        pytest.param(entry(packed(FORGED)) + bytes(32), id="unsigned with zeros behind it"),
        pytest.param(Codec(signer=Signer("guessed")).encode(Ok(FORGED), WORKFLOW, "user:1"), id="another key"),
        pytest.param(Codec(signer=Signer("")).encode(Ok(FORGED), WORKFLOW, "user:1"), id="no key"),
    ],
)
def test_a_forged_entry_counts_as_missing(alias: str, data: bytes):
    """Without SECRET_KEY nobody makes an entry that is used: the step runs."""
    plant(alias, data)
    assert run(alias) == Ok(HONEST)


def test_an_entry_that_takes_off_its_own_signature_counts_as_missing(alias: str):
    """That an entry says of itself that it is not signed is no reason to believe it."""
    run(alias)
    data = stored(alias)
    plant(alias, entry(packed(FORGED), place=(WORKFLOW, "user:1")) + data[-32:])
    assert run(alias) == Ok(HONEST)


def test_an_entry_moved_to_another_key_counts_as_missing(alias: str):
    """The signature is of the key too, so one customer's result is never another's."""
    run(alias, key="user:2", value=FORGED)
    plant(alias, stored(alias, key="user:2"))
    assert run(alias) == Ok(HONEST)


@pytest.mark.parametrize(
    ("workflow", "version", "scope"), [("refund", None, "refund"), (WORKFLOW, 2, "checkout@2")], ids=["name", "version"]
)
def test_an_entry_of_another_scope_counts_as_missing(alias: str, workflow: str, version: int | None, scope: str):
    """The signature is of the workflow and its version too, and so of the namespace of a StepCache."""
    run(alias, workflow, version, value=FORGED)
    plant(alias, stored(alias, scope))
    assert run(alias) == Ok(HONEST)


def test_an_entry_of_no_key_counts_as_missing(alias: str):
    """What dumps() signs for a cache of one's own names no key, and so fits none of a StepCache."""
    plant(alias, dumps(Ok(FORGED)))
    assert run(alias) == Ok(HONEST)


def test_an_entry_past_its_time_counts_as_missing(alias: str):
    """The end of an entry is signed, so whoever keeps it beyond that has nothing."""
    past = Stamp(expires_at=time.time() - 1)
    plant(alias, Codec(signer=Signer("new")).encode(Ok(FORGED, stamp=past), WORKFLOW, "user:1"))
    assert run(alias) == Ok(HONEST)


def test_an_old_entry_put_back_under_its_own_key_is_used(alias: str):
    """Nothing tells an older result from the present one: signing does not keep anybody from putting it back."""
    run(alias, value="of yesterday")
    data = stored(alias)
    StepCache(alias, WORKFLOW).delete("user:1")
    assert run(alias) == Ok(HONEST)
    plant(alias, data)
    assert run(alias) == Ok("of yesterday")


def test_what_a_fallback_key_signed_is_used(alias: str, settings: Any):
    """After a new SECRET_KEY, nothing runs again that the old one signed, for as long as that is a fallback."""
    plant(alias, signed_with("old", settings, "of the old key"))
    assert run(alias) == Ok("of the old key")


def test_what_a_key_signed_that_is_no_fallback_any_more_counts_as_missing(alias: str, settings: Any):
    """A key that has leaked signs nothing once it is out of the settings."""
    settings.SECRET_KEY_FALLBACKS = []
    plant(alias, signed_with("old", settings))
    assert run(alias) == Ok(HONEST)


def test_a_fallback_key_signs_nothing_new(alias: str, settings: Any):
    """What is stored now is signed with SECRET_KEY, so that the fallback can go."""
    run(alias)
    settings.SECRET_KEY_FALLBACKS = []
    assert run(alias, value="ran again") == Ok(HONEST)


@given(st.data())
def test_no_change_of_any_bytes_is_accepted(data: st.DataObject):
    """Whatever is changed, left out, put in or cut off, it is damaged, in the value, the head and the signature."""
    changed = bytearray(GOOD)
    start = data.draw(st.integers(0, len(GOOD)))
    stop = data.draw(st.integers(start, min(len(GOOD), start + 40)))
    changed[start:stop] = data.draw(st.binary(max_size=40))
    if changed != GOOD:
        assert isinstance(SIGNED.decode(bytes(changed), WORKFLOW, "user:1"), Damaged)


@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_is_accepted(bit: int):
    """Each bit of an entry counts."""
    for at in range(len(GOOD)):
        flipped = GOOD[:at] + bytes([GOOD[at] ^ 1 << bit]) + GOOD[at + 1 :]
        assert isinstance(SIGNED.decode(flipped, WORKFLOW, "user:1"), Damaged), at


def test_no_part_of_an_entry_is_accepted():
    """An entry that is cut off anywhere is damaged."""
    for length in range(len(GOOD)):
        assert isinstance(SIGNED.decode(GOOD[:length], WORKFLOW, "user:1"), Damaged), length


def test_a_cache_of_ones_own_is_not_told_which_key_it_is(settings: Any):
    """loads() takes no forged bytes, but bytes that were moved: they name no key."""
    settings.STEPFLOWS = {"SIGN": True}
    assert loads(dumps(Err("DECLINED"))) == Err("DECLINED")
    with pytest.raises(DamagedEntry, match="not signed"):
        loads(entry(packed(FORGED)))


def test_turning_it_on_forgets_what_is_not_signed(alias: str, settings: Any):
    """Entries from before count as missing, so their steps run again."""
    settings.STEPFLOWS = {"SIGN": False}
    run(alias, value="from before")
    settings.STEPFLOWS = {"SIGN": True}
    assert run(alias) == Ok(HONEST)


def test_two_prefixes_of_one_site_are_one_place(settings: Any):
    """The alias and its KEY_PREFIX are not signed, so that does not keep apart tenants that share SECRET_KEY."""
    codec = Codec(signer=Signer("new"))
    data = codec.encode(Ok("of tenant A"), WORKFLOW, "user:1")
    settings.SECRET_KEY, settings.STEPFLOWS = "new", {"SIGN": True}
    plant("default", data)
    plant("locmem", data)
    assert run("default") == run("locmem") == Ok("of tenant A")


def test_values_are_not_encrypted(alias: str):
    """Whoever can read the cache reads values, keys and labels, signed or not."""
    run(alias, value="a secret of the value")
    data = stored(alias)
    assert all(text in data for text in (b"a secret of the value", b"user:1", b"load", b"checkout"))


def test_the_key_is_made_for_this_purpose_alone():
    """SECRET_KEY itself signs nothing, so a signature that the site makes elsewhere with it is none of an entry."""
    data = GOOD[:-32]
    for key in (b"secret", salted_hmac("", b"", "secret", algorithm="sha256").digest(), sha256(b"secret").digest()):
        forged = data + hmac.digest(key, data, sha256)
        assert isinstance(SIGNED.decode(forged, WORKFLOW, "user:1"), Damaged)
    assert b"secret" not in GOOD
