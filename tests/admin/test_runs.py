"""The list of runs, and the page of one."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from stepflows import Err, Ok, dumps
from stepflows.models import Run
from tests.pages import page, rows, text_of

pytestmark = pytest.mark.django_db

LIST = "run_changelist"


def _run(workflow: str = "checkout", *, args: Any = (), kwargs: Any = None, **fields: Any) -> Run:
    arguments = dumps(Ok((args, {"order_id": 7} if kwargs is None else kwargs)))
    return Run.objects.create(workflow=workflow, arguments=arguments, **fields)


def _step(outcome: str, **more: Any) -> dict[str, Any]:
    step = {"label": "charge", "key": "order:7", "outcome": outcome, "offset": 1.5, "duration": 0.25, "attempt": 1}
    return {**step, **more}


def test_each_run_has_a_row(boss: Client):
    """Newest first: id, workflow, state, age, duration, steps and attempts."""
    now = timezone.now()
    done = _run(
        state="succeeded",
        attempts=2,
        executed=3,
        cached=2,
        created_at=now - dt.timedelta(hours=3),
        started_at=now,
        finished_at=now + dt.timedelta(seconds=83),
    )
    waiting = _run("signup")
    assert rows(boss.get(page(LIST))) == [
        [str(waiting.pk)[:8], "signup", "queued", "just now", "-", "0", "0", "0"],
        [str(done.pk)[:8], "checkout", "succeeded", "3 hours ago", "1 min 23 s", "3", "2", "2"],
    ]


def test_neither_arguments_nor_outcomes_are_read_for_the_list(boss: Client, django_assert_max_num_queries: Any):
    """They may be large. Nor is there a query per run."""
    for _ in range(10):
        _run(outcome=dumps(Ok("x")), state="succeeded")
    with django_assert_max_num_queries(9) as asked:
        boss.get(page(LIST))
    assert not [
        query for query in asked.captured_queries if '"arguments"' in query["sql"] or '"outcome"' in query["sql"]
    ]


def test_runs_are_filtered_by_state_and_workflow(boss: Client):
    """Each narrows the other."""
    _run(state="failed")
    _run("signup", state="failed")
    _run()
    assert len(rows(boss.get(page(LIST), {"state__exact": "failed"}))) == 2
    assert len(rows(boss.get(page(LIST), {"state__exact": "failed", "workflow": "signup"}))) == 1


def test_the_search_finds_runs_whose_id_begins_so(boss: Client):
    """With hyphens or without, whole or not; anything else finds nothing."""
    run, _other = _run(), _run()
    for term in (str(run.pk), run.pk.hex, str(run.pk)[:13], str(run.pk)[:8]):
        assert [row[0] for row in rows(boss.get(page(LIST), {"q": term}))] == [str(run.pk)[:8]]
    for term in ("zzz", "a'b", "%", str(run.pk)[9:]):
        assert rows(boss.get(page(LIST), {"q": term})) == []


def test_the_page_of_a_run_shows_arguments_result_and_steps(boss: Client):
    """In the order in which the steps ended."""
    run = _run(
        state="succeeded",
        worker="celery@one",
        attempts=1,
        outcome=dumps(Ok({"paid": True})),
        steps=[_step("cached", label="load", key=None), _step("executed"), _step("surprise", attempt=None)],
    )
    text = text_of(boss.get(page("run_change", run.pk)))
    for part in (
        f"checkout {run.pk}",
        "State: succeeded",
        "Worker: celery@one",
        "Arguments dict {'order_id': 7}",
        "Value dict {'paid': True}",
        "load - from the cache 1.5 s 250 ms 1 charge order:7 executed 1.5 s 250 ms 1 charge order:7 surprise",
    ):
        assert part in text


def test_positional_arguments_are_shown_too(boss: Client):
    """Beside named ones or alone."""
    text = text_of(boss.get(page("run_change", _run(args=(1, "a")).pk)))
    assert "Positional arguments tuple (1, 'a') Arguments dict {'order_id': 7}" in text
    text = text_of(boss.get(page("run_change", _run(args=(1, "a"), kwargs={}).pk)))
    assert "Arguments tuple (1, 'a')" in text
    assert "Positional" not in text


def test_a_failed_run_shows_its_error_and_where_it_failed(boss: Client):
    """And whether that came from the cache."""
    run = _run(state="failed", outcome=dumps(Err(ValueError("declined <b>"))), failed_step=["charge", "order:7", True])
    text = text_of(boss.get(page("run_change", run.pk)))
    assert "Failed in step: charge order:7 replayed from the cache" in text
    assert "Error ValueError declined <b>" in text
    run = _run(state="failed", outcome=dumps(Err("NO")), failed_step=["charge", None, False])
    text = text_of(boss.get(page("run_change", run.pk)))
    assert "Failed in step: charge - Created" in text
    assert "Error str 'NO'" in text


def test_a_run_that_has_not_begun_shows_what_there_is(boss: Client):
    """No result and no steps."""
    text = text_of(boss.get(page("run_change", _run().pk)))
    assert "No step has ended yet." in text
    assert "Started: - Finished: - Duration: -" in text
    assert "Value" not in text


def test_arguments_and_results_that_cannot_be_read_are_explained(boss: Client):
    """A row from a later version is no server error."""
    run = Run.objects.create(workflow="checkout", arguments=b"rubbish", outcome=b"rubbish", state="succeeded")
    response = boss.get(page("run_change", run.pk))
    assert response.status_code == 200
    assert text_of(response).count("it is no entry of stepflows") == 2


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "\u202eشىء", "x" * 200, "'\"&"])
def test_nothing_that_people_write_breaks_a_page(hostile: str, boss: Client):
    """Workflow, label, key, arguments, result and worker are text."""
    run = _run(
        hostile,
        kwargs={hostile: hostile},
        outcome=dumps(Err(ValueError(hostile))),
        state="failed",
        worker=hostile,
        failed_step=[hostile, hostile, False],
        steps=[_step("executed", label=hostile, key=hostile)],
    )
    for response in (boss.get(page(LIST)), boss.get(page("run_change", run.pk))):
        assert hostile in text_of(response)
        assert "<script>alert" not in response.content.decode()
