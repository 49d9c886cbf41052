"""Deleting cached steps: one, and those that were selected."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.core.cache import caches
from django.db import NotSupportedError
from django.test import Client
from pytest_django.fixtures import Settings

from stepflows import CacheUnavailable, StepCache, workflow
from stepflows.admin.listing import CachedSteps
from stepflows.cachedsteps import Place, Selection
from stepflows.models import CachedStep
from tests.entries import keys, put, put_many
from tests.pages import LIST, messages_of, page, rows, step_page, text_of

pytestmark = pytest.mark.django_db


def _delete(client: Client, *places: Place, confirmed: bool = True, **more: Any) -> Any:
    data = {"action": "delete_selected", "_selected_action": [place.id for place in places], **more}
    return client.post(page(LIST), {**data, "post": "yes"} if confirmed else data, follow=True)


def _log() -> list[tuple[str, str | None, int]]:
    return [(entry.object_repr, entry.object_id, entry.action_flag) for entry in LogEntry.objects.order_by("pk")]


def test_deleting_one_asks_first_and_says_what_it_means(boss: Client, alias: str):
    """A step that is gone runs again."""
    place = put(alias, "checkout", "user:1")
    text = text_of(boss.get(step_page("delete", place)))
    # Django 6 has other quotation marks.
    assert re.search('Are you sure you want to delete the cached step ["“]checkout user:1["”]', text)
    assert "runs again when it is next asked for" in text
    assert "Cached steps: 1" in text
    assert keys(alias, "checkout") == ["user:1"]


def test_deleting_one_removes_it_and_nothing_else(boss: Client, alias: str):
    """Not another version's, nor another workflow's, nor what else is in the cache. The log knows who did it."""
    place = put(alias, "checkout", "user:1")
    put(alias, "checkout", "user:1", version=2)
    put(alias, "signup", "user:1")
    put(alias, "checkout", "user:10")
    caches[alias].set("user:1", "somebody's")
    response = boss.post(step_page("delete", place), {"post": "yes"}, follow=True)
    assert response.redirect_chain == [(page(LIST), 302)]
    assert messages_of(response) == ["The cached step “checkout user:1” was deleted successfully."]
    assert [row[:2] for row in rows(response)] == [
        ["checkout", "user:10"],
        ["checkout version 2", "user:1"],
        ["signup", "user:1"],
    ]
    assert caches[alias].get("user:1") == "somebody's"
    assert StepCache(alias, namespace="checkout").get("user:1") is None
    assert _log() == [("checkout user:1", place.id, DELETION)]


def test_after_deleting_the_list_is_filtered_as_before(boss: Client, locmem: str):
    """The way back leads where one came from."""
    place = put(locmem, "checkout", "user:1")
    url = f"{step_page('delete', place)}?_changelist_filters=workflow%3Dcheckout"
    assert boss.post(url, {"post": "yes"}).url == f"{page(LIST)}?workflow=checkout"


def test_who_may_not_see_the_list_is_not_sent_there(staff: Any, locmem: str):
    """But to the first page."""
    place = put(locmem, "checkout", "user:1")
    assert staff("delete_cachedstep").post(step_page("delete", place), {"post": "yes"}).url == "/admin/"


def test_deleting_selected_asks_first(boss: Client, alias: str):
    """With Django's own page, naming each of them."""
    one, two, _ = put_many(alias, "checkout", ["user:1", "user:2", "user:3"])
    text = text_of(_delete(boss, one, two, confirmed=False))
    assert "Are you sure you want to delete the selected cached steps?" in text
    assert "runs again when it is next asked for" in text
    assert "Cached steps: 2" in text
    assert "Cached step: checkout user:1 Cached step: checkout user:2" in text
    assert len(keys(alias, "checkout")) == 3


def test_deleting_selected_removes_those_and_nothing_else(boss: Client, alias: str):
    """Each is in the log."""
    one, two, _ = put_many(alias, "checkout", ["user:1", "user:2", "user:3"])
    put(alias, "signup", "user:1")
    response = _delete(boss, one, two)
    assert messages_of(response) == ["Successfully deleted 2 cached steps."]
    assert (keys(alias, "checkout"), keys(alias, "signup")) == (["user:3"], ["user:1"])
    assert _log() == [("checkout user:1", one.id, DELETION), ("checkout user:2", two.id, DELETION)]


def test_deleting_selected_reaches_each_cache(boss: Client, alias: str):
    """A page may show steps of several."""
    other = "file" if alias == "locmem" else "locmem"
    caches[other].clear()
    workflow("elsewhere", cache=other)(lambda step, deps: None)
    places = [put(cache, "checkout", key) for key in ("a", "b") for cache in (alias, other)]
    response = _delete(boss, *places[:3])
    assert messages_of(response) == ["Successfully deleted 3 cached steps."]
    assert (keys(alias, "checkout"), keys(other, "checkout")) == ([], ["b"])


def test_more_than_a_page_is_never_selected(boss: Client, alias: str):
    """Deleting everything is clearing, which has its own permission."""
    places = put_many(alias, "checkout", [f"user:{number:03}" for number in range(120)])
    assert "Select all 120" not in boss.get(page(LIST)).content.decode()
    _delete(boss, places[0], select_across="1")
    assert len(keys(alias, "checkout")) == 119


def test_selected_steps_that_are_gone_are_no_error(boss: Client, alias: str):
    """Nor are ids that are none."""
    place = put(alias, "checkout", "user:1", ttl=60)
    StepCache(alias, namespace="checkout").delete("user:1")
    for confirmed in (False, True):
        response = _delete(boss, place, Place("nowhere", place.name), confirmed=confirmed)
        assert response.status_code == 200
    assert boss.post(page(LIST), {"action": "delete_selected", "_selected_action": ["rubbish", ""]}).status_code == 200
    assert _log() == []


@pytest.mark.parametrize("key", ["<script>alert(1)</script>", "\u202eشىء", "x" * 200, "'\"&", "a/b_c:%2F?d#e"])
def test_hostile_keys_are_deleted_like_others(boss: Client, alias: str, key: str):
    """The confirmation pages show them as text."""
    place = put(alias, key, key)
    for response in (_delete(boss, place, confirmed=False), boss.get(step_page("delete", place))):
        assert f"{key} {key}" in text_of(response)
        assert "<script>alert" not in response.content.decode()
    _delete(boss, place)
    assert keys(alias, key) == []
    place = put(alias, key, key)
    boss.post(step_page("delete", place), {"post": "yes"})
    assert keys(alias, key) == []


@pytest.mark.parametrize("way", ["one", "selected"])
def test_when_the_cache_fails_nothing_is_in_the_log(
    way: str, boss: Client, alias: str, monkeypatch: pytest.MonkeyPatch
):
    """The log tells what was done."""
    place = put(alias, "checkout", "user:1")

    def fail(*args: Any) -> Any:
        raise CacheUnavailable("gone away")

    monkeypatch.setattr(type(StepCache(alias).backend), "remove", fail)
    response = _delete(boss, place) if way == "selected" else boss.post(step_page("delete", place), {"post": "yes"})
    assert response.status_code == 503
    assert "gone away" in text_of(response)
    assert _log() == []


def test_a_permission_that_depends_on_the_step_is_respected(boss: Client, locmem: str, monkeypatch: pytest.MonkeyPatch):
    """A subclass may let some people delete some steps."""
    from stepflows.admin import CachedStepAdmin

    def allowed(self: Any, request: Any, obj: Any = None) -> bool:
        return obj is None or obj.workflow != "checkout"

    monkeypatch.setattr(CachedStepAdmin, "has_delete_permission", allowed)
    place = put(locmem, "checkout", "user:1")
    assert "your account doesn't have permission" in text_of(_delete(boss, place, confirmed=False))
    assert _delete(boss, place).status_code == 403
    assert keys(locmem, "checkout") == ["user:1"]


# --- what stands in for a table


def test_what_a_table_could_do_and_caches_cannot_is_said(locmem: str):
    """Rather than that a table is missing."""
    steps = CachedSteps(Selection((locmem,)))
    for ask in (
        lambda: steps.filter(key="a"),
        lambda: steps.filter("a"),
        lambda: steps.order_by("key"),
        lambda: steps.exclude(key="a"),
        lambda: steps.values("key"),
        steps.all,
    ):
        with pytest.raises(NotSupportedError, match="StepCache"):
            ask()


def test_it_counts_slices_gets_iterates_and_deletes(alias: str):
    """As far as the admin asks."""
    places = put_many(alias, "checkout", ["a", "b", "c"])
    steps = CachedSteps(Selection((alias,)))
    assert (steps.count(), steps.exists(), len(steps), bool(steps)) == (3, True, 3, True)
    assert [step.key for step in steps.iterator()] == ["a", "b", "c"]
    fresh = CachedSteps(Selection((alias,)))
    assert [step.key for step in fresh[1:]] == ["b", "c"]
    assert [step.key for step in fresh[:1]] == ["a"]
    assert fresh[1].key == "b"
    assert [step.key for step in fresh[1:3]] == ["b", "c"]
    assert fresh.get(pk=places[1].id).key == "b"
    selected = fresh.filter(pk__in=[places[2].id, places[0].id])
    assert (selected.count(), selected[0].key) == (2, "c")
    assert selected.delete() == (2, {"stepflows.CachedStep": 2})
    assert keys(alias, "checkout") == ["b"]
    with pytest.raises(CachedStep.DoesNotExist, match="There is no cached step"):
        fresh.get(id=places[0].id)


def test_pages_of_several_parts_end_where_they_should(alias: str):
    """Wherever a page begins and ends among workflows with versions."""
    expected = [
        put(alias, "checkout", f"{version}{number}", version=version).id for version in (1, 2, 3) for number in range(3)
    ]
    selection = Selection((alias,), "checkout")
    for start in range(10):
        for stop in range(start, 11):
            assert [place.id for place in selection.page(start, stop)] == expected[start:stop]
        assert [place.id for place in selection.page(start, None)] == expected[start:]


def test_django_can_dump_the_database(db: None, settings: Settings):
    """A model without a table is not to stand in the way of ``dumpdata``."""
    from io import StringIO

    from django.core.management import call_command

    call_command("dumpdata", "stepflows", stdout=StringIO())
