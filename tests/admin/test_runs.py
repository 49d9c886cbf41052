"""The list of runs."""

from __future__ import annotations

import datetime as dt
import re
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import django
import pytest
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from stepflows import Ok, dumps
from tests.pages import page, rows, text_of
from tests.runrows import a_run

pytestmark = pytest.mark.django_db

LIST = "run_changelist"


def _at(*date: int) -> dt.datetime:
    return dt.datetime(*date, tzinfo=dt.UTC)  # type: ignore[misc]


def _found(boss: Client, **query: Any) -> list[str]:
    """The first eight letters of the runs that are listed."""
    return [row[0] for row in rows(boss.get(page(LIST), query))]


def _dates(response: Any) -> dict[str, dict[str, list[str]]]:
    """The links of the date hierarchy, with the query of each."""
    found = re.search(r'<nav class="toplinks"[^>]*>(.*?)</nav>', response.content.decode(), re.DOTALL)
    links = re.findall(r'<a href="([^"]*)"[^>]*>(.*?)</a>', found[1], re.DOTALL) if found else []
    return {unescape(text).strip("\u2039 "): parse_qs(urlsplit(unescape(url)).query) for url, text in links}


def test_each_run_has_a_row(boss: Client):
    """Newest first: id, state, workflow with arguments, duration, age, steps and attempts."""
    now = timezone.now()
    done = a_run(
        state="succeeded",
        summary="order_id=7",
        attempts=2,
        executed=3,
        cached=2,
        created_at=now - dt.timedelta(hours=3),
        started_at=now,
        finished_at=now + dt.timedelta(seconds=83),
    )
    waiting = a_run("signup")
    assert rows(boss.get(page(LIST))) == [
        [str(waiting.pk)[:8], "queued", "signup", "-", "just now", "0 / 0", "0"],
        [str(done.pk)[:8], "succeeded", "checkout order_id=7", "1 min 23 s", "3 hours ago", "3 / 2", "2"],
    ]


def test_the_age_tells_the_exact_time_too(boss: Client):
    """To whoever points at it."""
    a_run(created_at=_at(2026, 5, 4, 3, 2, 1))
    assert 'title="May 4, 2026, 03:02:01"' in boss.get(page(LIST)).content.decode()


def test_a_run_that_is_under_way_shows_how_long_already(boss: Client):
    """Its duration so far."""
    a_run(state="running", started_at=timezone.now() - dt.timedelta(minutes=5))
    assert rows(boss.get(page(LIST)))[0][3].startswith("5 min")


def test_neither_arguments_nor_outcomes_are_read_for_the_list(boss: Client, django_assert_num_queries: Any):
    """They may be large. Nor is there a query per run: as many for sixty as for one."""
    large = ("arguments", "outcome", "steps", "history")
    for _ in range(60):
        a_run(outcome=dumps(Ok("x")), state="succeeded")
    boss.get(page(LIST))
    # The session, the user, two for the workflow, the total, the page, the first and the last date.
    with django_assert_num_queries(8) as asked:
        boss.get(page(LIST))
    assert not [query for query in asked.captured_queries if any(f'"{name}"' in query["sql"] for name in large)]


def test_runs_are_filtered_by_state_workflow_and_date(boss: Client):
    """Each narrows the others."""
    old = a_run(state="failed", created_at=timezone.now() - dt.timedelta(days=3))
    other, queued = a_run("signup", state="failed"), a_run()
    assert len(_found(boss, state__exact="failed")) == 2
    assert _found(boss, state__exact="failed", workflow="signup") == [str(other.pk)[:8]]
    since = timezone.now() - dt.timedelta(days=1)
    assert str(old.pk)[:8] not in _found(boss, created_at__gte=since.isoformat())
    assert _found(boss, state__exact="queued") == [str(queued.pk)[:8]]


def test_workflows_that_have_runs_can_be_chosen(boss: Client):
    """Registered or not, each once."""
    for workflow in ("signup", "checkout", "signup", "a&b"):
        a_run(workflow)
    response = boss.get(page(LIST))
    assert "By workflow All a&b checkout signup By created" in text_of(response)
    assert _found(boss, workflow="nothing of this name") == []


def test_the_search_finds_runs_whose_id_begins_so(boss: Client):
    """With hyphens or without, whole or not; anything else finds nothing."""
    run, _other = a_run(), a_run()
    for term in (str(run.pk), run.pk.hex, str(run.pk)[:13], str(run.pk)[:8], f" {run.pk} ", str(run.pk).upper()):
        assert _found(boss, q=term) == [str(run.pk)[:8]]
    for term in ("zzz", "a'b", "%", f"{run.pk}0", str(run.pk)[9:]):
        assert _found(boss, q=term) == []


def test_the_search_finds_runs_by_their_arguments(boss: Client):
    """Any part of them; of several words all."""
    one, two = a_run(summary="order_id=7, name='Ada'"), a_run(summary="order_id=8, name='Ada'")
    assert _found(boss, q="order_id=8") == [str(two.pk)[:8]]
    assert _found(boss, q="Ada") == [str(two.pk)[:8], str(one.pk)[:8]]
    assert _found(boss, q="ada order_id=7") == [str(one.pk)[:8]]


# Dates.


def test_years_lead_to_months_and_months_to_days(boss: Client):
    """From the first to the last run that is listed."""
    for date in ((2024, 3, 5), (2026, 2, 3), (2026, 4, 9), (2026, 4, 11)):
        a_run(created_at=_at(*date))
    years = _dates(boss.get(page(LIST)))
    assert [*years] == ["2024", "2025", "2026"]
    months = _dates(boss.get(page(LIST), years["2026"]))
    assert [*months] == ["All dates", "February 2026", "March 2026", "April 2026"]
    days = _dates(boss.get(page(LIST), months["April 2026"]))
    assert [*days] == ["2026", "April 9", "April 10", "April 11"]
    day = boss.get(page(LIST), days["April 9"])
    assert len(rows(day)) == 1
    assert _dates(day) == {"April 2026": months["April 2026"]}
    assert _dates(boss.get(page(LIST), days["2026"])) == months


def test_an_empty_date_leads_back(boss: Client):
    """A day between two on which nothing ran."""
    a_run(created_at=_at(2026, 4, 9))
    empty = boss.get(page(LIST), {"created_at__year": 2026, "created_at__month": 4, "created_at__day": 10})
    assert rows(empty) == []
    assert [*_dates(empty)] == ["April 2026"]


def test_one_month_is_shown_by_its_days_at_once(boss: Client):
    """As one year by its months."""
    a_run(created_at=_at(2026, 4, 9))
    a_run(created_at=_at(2026, 4, 10))
    assert [*_dates(boss.get(page(LIST)))] == ["2026", "April 9", "April 10"]


def test_the_dates_say_what_they_are_dates_of(boss: Client):
    """Where Django's own say so, which is since version 6.1."""
    a_run()
    text = text_of(boss.get(page(LIST)))
    assert ("Filter by created" in text) == (django.VERSION >= (6, 1))


def test_dates_are_those_of_the_runs_that_are_listed(boss: Client):
    """On one page or on several, and without any there are none."""
    for number in range(60):
        a_run(state="failed", created_at=_at(2026, 4, 1 + number % 5))
    a_run(created_at=_at(2026, 4, 20))
    assert [*_dates(boss.get(page(LIST), {"state__exact": "failed"}))] == [
        "2026",
        *(f"April {day}" for day in range(1, 6)),
    ]
    assert [*_dates(boss.get(page(LIST), {"state__exact": "queued"}))] == ["2026", "April 20"]
    assert _dates(boss.get(page(LIST), {"state__exact": "running"})) == {}


def test_days_are_those_of_the_site(boss: Client, settings: Settings):
    """In its time zone."""
    settings.TIME_ZONE = "Asia/Tokyo"
    run = a_run(created_at=_at(2026, 4, 9, 20))
    a_run(created_at=_at(2026, 4, 8, 20))
    days = _dates(boss.get(page(LIST)))
    assert [*days] == ["2026", "April 9", "April 10"]
    assert [row[0] for row in rows(boss.get(page(LIST), days["April 10"]))] == [str(run.pk)[:8]]


@pytest.mark.parametrize(
    "query", [{"created_at__year": "x"}, {"created_at__year": 2026, "created_at__month": 13}, {"created_at__month": 4}]
)
def test_dates_that_are_none_do_no_harm(query: dict[str, Any], boss: Client):
    """Whoever changes the address finds the list."""
    a_run()
    assert boss.get(page(LIST), query, follow=True).status_code == 200


def test_the_list_does_without_time_zones(boss: Client, settings: Settings):
    """A site with USE_TZ = False."""
    settings.USE_TZ = False
    run = a_run(created_at=timezone.now() - dt.timedelta(hours=2))
    assert _found(boss) == [str(run.pk)[:8]]
    assert rows(boss.get(page(LIST)))[0][4] == "2 hours ago"
    assert boss.get(page("run_change", run.pk)).status_code == 200


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "\u202eشىء", "'\"&"])
def test_nothing_that_people_write_breaks_the_list(hostile: str, boss: Client):
    """Workflow and arguments are text."""
    a_run(hostile, summary=hostile)
    response = boss.get(page(LIST))
    assert text_of(response).count(hostile) == 3
    assert "<script>alert" not in response.content.decode()


def test_long_names_and_arguments_are_cut(boss: Client):
    """The rest can be pointed at."""
    a_run("w" * 200, summary="a" * 10_000)
    [row] = rows(boss.get(page(LIST)))
    assert row[2] == f"{'w' * 69}… {'a' * 69}…"
    assert f'title="{"a" * 10_000}"' in boss.get(page(LIST)).content.decode()
