"""The page of one cached step."""

from __future__ import annotations

import base64
import datetime as dt
import re
from dataclasses import dataclass
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from pytest_django.fixtures import Settings

from stepflows import Err, Ok, dumps
from stepflows.admin import values
from stepflows.admin.values import shown_outcome, shown_value
from stepflows.cachedsteps import Place
from stepflows.caches.codec import classes
from stepflows.engine.cache import MISSING
from stepflows.errors import CachedStepError
from stepflows.models import Run
from tests.entries import put, spoil
from tests.pages import LIST, messages_of, page, step_page, text_of

pytestmark = pytest.mark.django_db


@dataclass
class Parcel:
    weight: float
    to: str


class Sulky:
    """Does not like to be looked at."""

    def __repr__(self) -> str:
        raise RuntimeError("go away")


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_a_value_is_shown_as_python_writes_it(boss: Client, alias: str):
    """With its types, those inside it and its own."""
    value = {
        "amount": Decimal("12.90"),
        "at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "ids": (UUID(int=1), None, True),
        "parcel": Parcel(1.5, "Rome"),
    }
    html = boss.get(step_page("change", put(alias, "checkout", "user:1", Ok(value)))).content.decode()
    for text in (
        "<code>dict</code>",
        "Decimal(&#x27;12.90&#x27;)",
        "datetime.datetime(2026, 1, 2",
        "Parcel(weight=1.5",
    ):
        assert text in html


def test_the_page_tells_all_that_is_known_of_a_step(boss: Client, alias: str, settings: Settings):
    """When it was stored and ends to the second, in the site's zone."""
    settings.TIME_ZONE = "Asia/Tokyo"
    place = put(alias, "checkout", "user:1", Ok("x"), version=3, label="fetch", ttl=60, run_id="by hand")
    text = text_of(boss.get(step_page("change", place)))
    for part in ("Workflow: checkout version 3", "Key: user:1", "Label: fetch", "Outcome: ok", "Duration: 250 ms"):
        assert part in text
    tokyo = dt.datetime.now(dt.timezone(dt.timedelta(hours=9)))
    assert f"{tokyo:%Y}, {tokyo:%H}:" in text
    assert f"Cache: {alias} Run: by hand Value str 'x'" in text


def test_the_run_that_stored_it_is_linked_if_it_left_a_row(boss: Client, locmem: str):
    """A run in this process leaves none."""
    run = Run.objects.create(workflow="checkout", arguments=dumps(Ok(((), {}))))
    for run_id, linked in ((str(run.pk), True), (str(uuid4()), False), ("", False)):
        html = boss.get(step_page("change", put(locmem, "checkout", "a", run_id=run_id))).content.decode()
        assert (page("run_change", run.pk) in html) is linked
        assert run_id in html


def test_where_runs_are_not_registered_the_run_is_no_link(boss: Client, locmem: str, monkeypatch: pytest.MonkeyPatch):
    """An admin site may show cached steps alone."""
    from django.urls import NoReverseMatch

    from stepflows.admin import cachedstep

    real = cachedstep.reverse

    def reverse(name: str, **more: Any) -> str:
        if name == "admin:stepflows_run_change":
            raise NoReverseMatch(name)
        return real(name, **more)

    monkeypatch.setattr(cachedstep, "reverse", reverse)
    run_id = str(uuid4())
    assert f"Run: {run_id}" in text_of(boss.get(step_page("change", put(locmem, "checkout", "a", run_id=run_id))))


def test_an_exception_is_shown_with_class_and_message(boss: Client, alias: str):
    """And its cause with its own."""
    error = ValueError("card declined <b>")
    error.__cause__ = KeyError("code")
    text = text_of(boss.get(step_page("change", put(alias, "checkout", "a", Err(error, error.__cause__)))))
    assert "Outcome: error" in text
    assert "Error ValueError card declined <b>" in text
    assert "Cause KeyError 'code'" in text


def test_where_an_exception_was_raised_is_shown(boss: Client, alias: str):
    """File, line and function of the innermost calls; nothing for one that was only made."""

    def charge() -> None:
        raise ValueError("declined")

    with pytest.raises(ValueError, match="declined") as caught:
        charge()
    place = put(alias, "checkout", "a", Err(caught.value))
    text = text_of(boss.get(step_page("change", place)))
    assert re.search(r"Raised at \S+test_detail.py:\d+ test_where\S+ \S+test_detail.py:\d+ \S+charge Close", text)
    place = put(alias, "checkout", "a", Err(ValueError("declined")))
    assert "Raised at" not in text_of(boss.get(step_page("change", place)))


def test_an_error_that_is_a_value_is_shown_as_one(boss: Client, locmem: str):
    """With what was given beside it."""
    text = text_of(boss.get(step_page("change", put(locmem, "checkout", "a", Err("NOT_FOUND", {"id": 7})))))
    assert "Error str 'NOT_FOUND'" in text
    assert "Cause dict {'id': 7}" in text


def test_an_exception_whose_class_is_not_loaded_keeps_its_name():
    """Nothing is imported to show it."""
    (part,) = shown_outcome(Err(CachedStepError("shop.Declined", "no money")))
    assert (part.type, part.text) == ("shop.Declined", "no money")


def test_an_exception_without_words_does_not_break_the_page():
    """Its class is shown all the same."""
    (mute,) = shown_outcome(Err(MuteError()))
    assert mute.type.endswith("MuteError")
    assert "no words" in mute.text
    (empty,) = shown_outcome(Err(ValueError()))
    assert empty.text == "ValueError()"


def test_a_value_whose_class_has_gone_is_explained(boss: Client, alias: str, monkeypatch: pytest.MonkeyPatch):
    """The step counts as done; what to do is said."""
    place = put(alias, "checkout", "a", Ok(Parcel(1.5, "Rome")))
    monkeypatch.delitem(vars(__import__(__name__, fromlist=["Parcel"])), "Parcel")
    classes_caches = [thing for thing in vars(classes).values() if hasattr(thing, "cache_clear")]
    for cache in classes_caches:
        cache.cache_clear()
    response = boss.get(step_page("change", place))
    assert response.status_code == 200
    assert "cannot be rebuilt here" in text_of(response)
    assert "Outcome: ok" in text_of(response)


def test_a_damaged_value_is_explained(boss: Client, alias: str):
    """Its head is intact, its checksum is not."""
    place = put(alias, "checkout", "a")
    spoil(place)
    response = boss.get(step_page("change", place))
    assert response.status_code == 200
    assert "What lies under this key cannot be read" in text_of(response)
    assert "It counts as missing" in text_of(response)


def test_bytes_that_are_no_entry_are_explained(boss: Client, valkey: Any, locmem: str, settings: Settings):
    """The page opens, and the step can be deleted."""
    settings.STEPFLOWS = {"CACHE": "django_redis"}
    place = put("django_redis", "checkout", "a")
    spoil(place, b"\x80\x04rubbish")
    text = text_of(boss.get(step_page("change", place)))
    assert "Outcome: damaged" in text
    assert "it is no entry of stepflows" in text
    assert boss.post(step_page("delete", place), {"post": "yes"}).status_code == 302
    assert "0 cached steps" in text_of(boss.get(page(LIST)))


def test_long_values_are_folded_and_very_long_ones_cut(boss: Client, locmem: str):
    """What a browser cannot take is left out, and said."""
    rows = [{"row": number, "name": f"name {number}"} for number in range(50)]
    html = boss.get(step_page("change", put(locmem, "checkout", "a", Ok(rows)))).content.decode()
    assert "<summary>50 lines</summary>" in html
    beginning = html[html.index('class="stepflows-beginning">') :].split("</pre>")[0]
    assert ("&#x27;name 7&#x27;" in beginning, "&#x27;name 8&#x27;" in beginning) == (True, False)
    html = boss.get(step_page("change", put(locmem, "checkout", "a", Ok("x" * 600_000)))).content.decode()
    assert "<summary>1 line</summary>" in html
    assert "100002 more characters are left out." in html
    assert len(html) < 600_000
    assert "<summary>" not in boss.get(step_page("change", put(locmem, "checkout", "b", Ok("x")))).content.decode()


def test_a_large_value_is_not_laid_out(monkeypatch: pytest.MonkeyPatch):
    """Laying out takes seconds; Python's own way of writing does not."""
    monkeypatch.setattr(values, "pformat", None)
    assert shown_value("Value", list(range(50_000))).text.startswith("[0, 1, 2,")


def test_a_value_that_cannot_be_written_is_explained():
    """Its class is somebody's code."""
    part = shown_value("Value", Sulky())
    assert (part.is_note, part.text) == (True, "Its repr() failed: RuntimeError: go away")


def test_lone_surrogates_reach_no_page():
    """They are no UTF-8."""
    assert shown_value("Value", SimpleNamespace(a="\ud800")).text == "namespace(a='\\ud800')"
    (part,) = shown_outcome(Err(ValueError("\ud800")))
    assert part.text == "?"


def test_nothing_found_is_nothing_shown():
    """A run that is not finished has no result."""
    assert shown_outcome(None) == shown_outcome(MISSING) == []


@pytest.mark.parametrize(
    "value", ["<script>alert(1)</script>", "\u202eشىء", "</pre><script>", "{{ 7|add:'7' }}", "'\"&"]
)
def test_no_value_breaks_the_page(boss: Client, alias: str, value: str):
    """It is text."""
    response = boss.get(step_page("change", put(alias, "checkout", "a", Ok(value))))
    assert "<script>alert" not in response.content.decode()
    assert "</pre><script>" not in response.content.decode()
    assert repr(value) in text_of(response)


# --- steps that are not there


def _id(*parts: str) -> str:
    return base64.urlsafe_b64encode("\0".join(parts).encode()).decode().rstrip("=")


@pytest.mark.parametrize("name", ["change", "delete", "history"])
def test_a_step_that_is_gone_leads_back_to_the_list(name: str, boss: Client, alias: str):
    """With its key in the message, and the list filtered as before."""
    place = put(alias, "checkout", "user:1")
    boss.post(step_page("delete", place), {"post": "yes"})
    boss.get(page(LIST))
    response = boss.get(step_page(name, place), {"_changelist_filters": "q=user"}, follow=True)
    assert response.redirect_chain == [(f"{page(LIST)}?q=user", 302)]
    assert "“user:1” is not there any more" in messages_of(response)[0]


@pytest.mark.parametrize(
    "wrong",
    [
        "x",
        "%%%",
        "a b",
        "4oCm",
        _id("locmem", "checkout"),
        _id("database", "checkout", "a"),
        _id("nowhere", "s", "a"),
        "é",
    ],
)
def test_an_id_that_is_none_leads_back_to_the_list(wrong: str, boss: Client, locmem: str):
    """As does one of a cache that is not listed."""
    response = boss.get(page("cachedstep_change", wrong), follow=True)
    assert response.redirect_chain == [(page(LIST), 302)]
    assert "is not there any more" in messages_of(response)[0]


def test_an_id_says_where_a_step_lies_and_nothing_else():
    """Whatever is in its key."""
    place = Place.of(_id("default", "check%40out@2", "a:_b/ключ"))
    assert place is not None
    assert Place.of(place.id) == place
    assert (place.alias, *place.name) == ("default", "check%40out@2", "a:_b/ключ")


def test_the_history_tells_who_deleted_a_step_that_ran_again(boss: Client, alias: str):
    """The log survives the entry."""
    place = put(alias, "checkout", "user:1")
    boss.post(step_page("delete", place), {"post": "yes"})
    assert LogEntry.objects.count() == 1
    put(alias, "checkout", "user:1")
    response = boss.get(step_page("history", place))
    assert "nobody" in text_of(response)
    assert "1 entry" in text_of(response)


def test_it_works_in_another_admin_site(alias: str, boss: Client, settings: Settings):
    """All links stay in that site."""
    settings.ROOT_URLCONF = "tests.admin.othersite"
    place = put(alias, "checkout", "user:1")
    listing = boss.get("/desk/stepflows/cachedstep/").content.decode()
    assert "/desk/stepflows/cachedstep/clear/" in listing
    detail = boss.get(
        f"/desk/stepflows/cachedstep/{step_page('change', place).split('/')[-3]}/change/"
    ).content.decode()
    clear = boss.get("/desk/stepflows/cachedstep/clear/", {"cache": alias, "scope": "all"}).content.decode()
    for html in (listing, detail, clear):
        assert "/desk/stepflows/cachedstep/" in html
        assert "/admin/stepflows/" not in html
