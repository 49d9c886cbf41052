"""The overview above the list of cached steps."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from stepflows import Ok, dumps
from stepflows.admin import overview as module
from stepflows.admin.overview import Figures, latest_runs, overview
from stepflows.models import Run
from tests.entries import put_many
from tests.pages import LIST, page, text_of

pytestmark = pytest.mark.django_db

ARGUMENTS = dumps(Ok(((), {})))


def _step(label: str = "charge", outcome: str = "executed", duration: float = 0.1) -> dict[str, Any]:
    return {"label": label, "key": "k", "outcome": outcome, "offset": 0.0, "duration": duration, "attempt": 1}


def _run(workflow: str = "checkout", *steps: dict[str, Any], hours: float = 1, state: str = "succeeded") -> Run:
    executed = sum(step["outcome"] in ("executed", "error") for step in steps)
    return Run.objects.create(
        workflow=workflow,
        arguments=ARGUMENTS,
        state=state,
        created_at=timezone.now() - dt.timedelta(hours=hours),
        executed=executed,
        cached=len(steps) - executed,
        steps=list(steps),
    )


def _table(response: Any) -> list[list[str]]:
    """The cells of the overview, row by row."""
    html = response.content.decode().partition('class="stepflows-overview"')[2].partition("</details>")[0]
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", html, re.DOTALL)
    cells = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in found)
    return [[" ".join(unescape(re.sub(r"<[^>]*>", " ", cell)).split()) for cell in row] for row in cells]


def test_it_tells_of_each_workflow_and_label(boss: Client, alias: str):
    """Keys, runs, what came from the cache, what was executed, errors, and how long half and nearly all of it took."""
    put_many(alias, "checkout", ["a", "b"])
    put_many(alias, "signup", ["a"])
    durations = [_step(duration=0.01 * number) for number in range(1, 21)]
    _run("checkout", *durations, _step("load", "cached"), _step("load", "waited"))
    _run("checkout", _step("charge", "error", 0.3), _step("load", "replayed_error"), state="failed")
    response = boss.get(page(LIST))
    assert _table(response) == [
        ["Workflow", "Keys", "Runs", "Failed", "From the cache", "Executed", "Errors", "p50 \u2013 p95"],
        ["checkout", "2", "2", "1", "12 %", "21", "2", ""],
        ["charge", "0 %", "21", "1", "110 ms \u2013 200 ms"],
        ["load", "100 %", "0", "1", ""],
        ["signup", "1", "0", "0", "-", "0", "0", ""],
    ]
    assert "last 24 hours: 2 runs, failed: 1; from the cache: 12 % of the steps; errors: 2" in text_of(response)
    assert '<rect class="most" width="100" height="10"/><rect class="half" width="55" height="10"/>' in (
        response.content.decode()
    )


def test_only_the_last_day_counts(boss: Client, locmem: str):
    """What was before is history."""
    put_many(locmem, "checkout", ["a"])
    _run("checkout", _step(), hours=25)
    response = boss.get(page(LIST))
    assert _table(response)[1][:3] == ["checkout", "1", "0"]
    assert "no runs in the last 24 hours" in text_of(response)


def test_of_a_chosen_workflow_only_that_is_told(boss: Client, locmem: str):
    """The names lead there."""
    put_many(locmem, "checkout", ["a"])
    put_many(locmem, "signup", ["a"])
    _run("checkout", _step())
    _run("signup", _step())
    assert 'href="?workflow=signup"' in boss.get(page(LIST)).content.decode()
    assert [row[0] for row in _table(boss.get(page(LIST), {"workflow": "signup"}))] == ["Workflow", "signup", "charge"]


def test_whoever_searches_or_turns_pages_is_not_told_again(boss: Client, locmem: str):
    """The list comes first then, and no run is read."""
    put_many(locmem, "checkout", [f"user:{number:03}" for number in range(101)])
    for query in ({"q": "user"}, {"p": "2"}):
        assert _table(boss.get(page(LIST), query)) == []


def test_who_may_not_see_runs_is_told_of_keys_alone(staff: Callable[..., Client], locmem: str):
    """Runs have their own permission."""
    put_many(locmem, "checkout", ["a"])
    _run("checkout", _step())
    response = staff("view_cachedstep").get(page(LIST))
    assert _table(response) == [["Workflow", "Keys"], ["checkout", "1"]]
    assert "24 hours" not in text_of(response)


def test_with_nothing_to_tell_there_is_none(boss: Client, locmem: str):
    """A new project's list is just empty."""
    assert "Overview" not in text_of(boss.get(page(LIST)))


def test_it_is_folded_where_it_would_push_the_list_down(boss: Client, locmem: str):
    """It opens by a click."""
    for number in range(6):
        put_many(locmem, f"flow {number}", ["a"])
    assert '<details class="stepflows-overview" open>' in boss.get(page(LIST)).content.decode()
    put_many(locmem, "flow 7", ["a"])
    assert '<details class="stepflows-overview">' in boss.get(page(LIST)).content.decode()


def test_of_many_workflows_and_labels_those_with_the_most_are_told(boss: Client, locmem: str):
    """How many there are beside them is said."""
    for number in range(23):
        put_many(locmem, f"flow {number:02}", ["a", "b"] if number > 2 else ["a"])
    _run("flow 01", *[_step(f"label {number:02}", duration=number) for number in range(12)])
    response = boss.get(page(LIST))
    names = [row[0] for row in _table(response)]
    assert names[1:12] == ["flow 01", *(f"label {number:02}" for number in range(2, 12))]
    assert names[12:14] == ["and 2 more labels", "flow 03"]
    assert "And 3 more workflows." in text_of(response)


def test_of_many_runs_and_steps_the_latest_are_read(boss: Client, locmem: str, monkeypatch: pytest.MonkeyPatch):
    """So that it costs the same however many there are, and says so."""
    monkeypatch.setattr(module, "_RUNS", 3)
    monkeypatch.setattr(module, "_STEPS", 4)
    put_many(locmem, "checkout", ["a"])
    for hours in (4, 3, 2, 1):
        _run("checkout", _step(f"{hours} hours"), _step(f"{hours} hours", "cached"), hours=hours)
    assert [len(steps) for *_, steps in latest_runs()] == [2, 2, 0]
    response = boss.get(page(LIST))
    assert [row[0] for row in _table(response)] == ["Workflow", "checkout", "1 hours", "2 hours"]
    assert _table(response)[1][1:6] == ["1", "3", "0", "50 %", "3"]
    assert "There were more runs in the last 24 hours; these figures are of the latest 3." in text_of(response)


def test_it_takes_two_queries(boss: Client, locmem: str, django_assert_num_queries: Any):
    """Whether there are few runs or many."""
    for _ in range(10):
        _run("checkout", _step())
    with django_assert_num_queries(2):
        latest_runs()


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "\u202eشىء", "x" * 200, "'\"&", "a\ud800b"])
def test_nothing_that_people_write_breaks_it(boss: Client, locmem: str, hostile: str):
    """Names of workflows and labels are text; one that no page can show is shown as well as can be."""
    put_many(locmem, hostile, ["a"])
    shown = hostile.encode("utf-8", "replace").decode()
    _run(shown, _step(shown))
    response = boss.get(page(LIST))
    assert [row[0] for row in _table(response)] == ["Workflow", shown, shown]
    assert "<script>alert" not in response.content.decode()


def test_all_is_said_only_of_all():
    """999 of 1,000 are not 100 %."""
    assert Figures("", executed=1, cached=999).hits == 99
    assert Figures("", cached=1).hits == 100
    assert Figures("").hits is None


def test_bars_of_no_time_are_empty():
    """A step may take no measurable time."""
    (workflow,) = overview({}, [("checkout", "succeeded", 1, 0, [_step(duration=0.0)])]).workflows
    assert workflow.labels[0].bars == (0, 0)
