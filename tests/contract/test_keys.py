"""What a key may be, and what it belongs to."""

from __future__ import annotations

import enum
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepflows import InvalidStepKey, Ok, StepCache, StepKeyConflict, create_workflow
from tests.calls import Calls
from tests.contract.test_steps import stepping
from tests.voices import Voice

WRONG = [
    ("", "empty"),
    (" a", "white space"),
    ("a\t", "control|white space"),
    ("a\nb", "control"),
    ("a\x00b", "control"),
    ("a\x85b", "control"),
    ("\ud800", "surrogate"),
    ("x" * 201, "201 characters"),
    (7, "int"),
    (b"a", "bytes"),
]


@pytest.mark.parametrize(("wrong", "reason"), WRONG, ids=repr)
@pytest.mark.parametrize("caching", [True, False])
def test_a_wrong_key_is_refused_naming_step_and_reason(voice: Voice, wrong: Any, reason: str, caching: bool):
    """Before anything runs, with a cache and without."""
    work = Calls(1)
    flow = create_workflow("shop", cache={} if caching else None)
    for method, args in (("__call__", [work]), ("all", [{"a": work}]), ("map", [[1], work])):
        with pytest.raises(InvalidStepKey, match=f"'shop', step 'charge': the key .*({reason})"):
            voice.run(flow, stepping("charge", *args, key=wrong, method=method))
    assert work.count == 0


@pytest.mark.parametrize(("wrong", "reason"), WRONG, ids=repr)
def test_a_wrong_label_is_refused_naming_workflow_and_reason(voice: Voice, wrong: Any, reason: str):
    """A label is what one sees everywhere."""
    with pytest.raises(InvalidStepKey, match=f"'shop': the label .*({reason})"):
        voice.run(create_workflow("shop"), stepping(wrong, Calls(1)))


class Named(str, enum.Enum):  # noqa: UP042 - a StrEnum formats as its value
    """Formatted, a member is its name and not its value."""

    CHARGE = "charge"


def test_a_member_of_an_enum_of_texts_is_its_text(voice: Voice, cache: Any):
    """As key and as label."""
    work = Calls(1)
    flow = create_workflow("shop", cache=cache)
    for key in (Named.CHARGE, "charge"):
        voice.run(flow, stepping(Named.CHARGE, work, key=key))
        voice.run(flow, stepping(Named.CHARGE, [1], work, key=lambda item, key=key: key, method="map"))
    assert work.count == 1


def test_keys_are_scoped_by_workflow(voice: Voice, cache_alias: str):
    """user:1 of checkout is not user:1 of signup."""
    for name in ("checkout", "signup"):
        flow = create_workflow(name, cache=cache_alias)
        assert voice.run(flow, stepping("fetch", lambda name=name: name, key="user:1")) == Ok(name)
    assert StepCache(cache_alias, namespace="checkout").get("user:1") == Ok("checkout")


def test_a_raised_version_puts_older_entries_out_of_sight(voice: Voice, cache_alias: str):
    """None, "", 0, 1 and "2" are all versions of their own."""
    versions = (None, "", 0, 1, "2", 3)
    for version in versions:
        flow = create_workflow("shop", cache=cache_alias, version=version)
        assert voice.run(flow, stepping("a", lambda version=version: version, key="a")) == Ok(version)
    for version in versions:
        flow = create_workflow("shop", cache=cache_alias, version=version)
        assert voice.run(flow, stepping("a", Calls(ValueError(), raises=True), key="a")) == Ok(version)


def test_a_namespace_shares_a_scope_on_purpose(voice: Voice, cache_alias: str):
    """Two workflows with one StepCache see each other's steps; the version still counts."""
    shared = StepCache(cache_alias, namespace="shared")
    voice.run(create_workflow("one", cache=shared), stepping("a", lambda: 1, key="a"))
    assert voice.run(create_workflow("two", cache=shared), stepping("a", lambda: 2, key="a")) == Ok(1)
    assert voice.run(create_workflow("two", cache=shared, version=2), stepping("a", lambda: 3, key="a")) == Ok(3)
    assert shared.get("a") == Ok(1)


def test_keys_of_a_mapping_are_unscoped(voice: Voice):
    """cache["user:1"] is what it says."""
    mine: dict[str, Any] = {}
    flow = create_workflow("shop", cache=mine)
    voice.run(flow, stepping("a", lambda: 1, key="user:1"))
    assert mine == {"user:1": Ok(1)}
    del mine["user:1"]
    assert voice.run(flow, stepping("a", lambda: 2, key="user:1")) == Ok(2)
    mine.clear()
    assert voice.run(flow, stepping("a", lambda: 3, key="user:1")) == Ok(3)


def test_two_labels_under_one_key_in_one_run_conflict(voice: Voice, cache: Any):
    """The error names both and the key."""

    def body(step, deps):
        yield step("fetch", lambda: 1, key="order:7")
        yield step("charge", lambda: 2, key="order:7")

    with pytest.raises(StepKeyConflict, match=r"order:7.*fetch.*charge"):
        voice.run(create_workflow("shop", cache=cache), body)


def test_an_entry_of_another_label_is_used_with_a_warning(voice: Voice, cache: Any, caplog):
    """A label may be reworded between two runs."""
    flow = create_workflow("shop", cache=cache)
    voice.run(flow, stepping("fetch", lambda: 1, key="user:1"))
    with caplog.at_level(logging.WARNING, "stepflows"):
        assert voice.run(flow, stepping("fetch user", lambda: 2, key="user:1")) == Ok(1)
    assert "'fetch'" in caplog.text
    assert "'fetch user'" in caplog.text


USABLE = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=200).filter(
    lambda text: text == text.strip()
)


@given(st.lists(st.tuples(USABLE, USABLE), min_size=1, max_size=6, unique=True))
def test_usable_names_and_keys_never_collide_and_list_as_given(pairs):
    """Whatever characters they are made of."""
    for name, key in pairs:
        flow = create_workflow(name, cache="locmem")
        flow.run(lambda step, deps, value, key=key: step("a", lambda: value, key=key), (name, key))
    try:
        for name, key in pairs:
            listed = StepCache("locmem", namespace=name)
            assert listed.get(key) == Ok((name, key))
            assert sorted(listed.keys()) == sorted(other for other_name, other in pairs if other_name == name)
    finally:
        for name, _ in pairs:
            StepCache("locmem", namespace=name).clear()
