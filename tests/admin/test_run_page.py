"""The page of one run."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from stepflows import Err, Ok, StepCache, dumps, workflow
from stepflows.cachedsteps import Place
from stepflows.caches.names import Name
from stepflows.models import Run
from tests.pages import page, step_page, text_of
from tests.runrows import a_run, a_step

pytestmark = pytest.mark.django_db


@pytest.fixture
def registered(locmem: str) -> str:
    """A workflow that is known here, with a cache that can be looked at."""
    workflow("checkout")(lambda step, deps, order_id: None)
    return locmem


def _look(client: Client, run: Run) -> Any:
    return client.get(page("run_change", run.pk))


def _bars(response: Any) -> list[tuple[str, str, str]]:
    """Of each bar the outcome, the text on it, and where it leads."""
    found = re.findall(r'<g role="listitem".*?</g>', response.content.decode(), re.DOTALL)
    bars = []
    for bar in found:
        outcome = re.search(r'<rect class="bar (\w+)"', bar)
        text = re.search(r"<text.*</text>", bar)
        url = re.search(r'<a href="([^"]*)"', bar)
        assert outcome
        assert text
        words = unescape(re.sub(r"<[^>]*>", " ", text[0]))
        bars.append((outcome[1], " ".join(words.split()), unescape(url[1]) if url else ""))
    return bars


def _titles(response: Any) -> list[str]:
    return [unescape(title) for title in re.findall(r"<title>(.*?)</title><rect", response.content.decode())]


# What it says.


def test_the_page_of_a_run_shows_arguments_result_and_steps(boss: Client):
    """In the order in which the steps ended."""
    run = a_run(
        state="succeeded",
        worker="celery@one",
        queue="slow",
        priority=3,
        attempts=1,
        executed=2,
        cached=1234,
        outcome=dumps(Ok({"paid": True})),
        steps=[a_step("cached", label="load", key=None, duration=0), a_step(), a_step("surprise", attempt=None)],
    )
    text = text_of(_look(boss, run))
    for part in (
        f"checkout {run.pk}",
        "State succeeded",
        "Worker celery@one",
        "Queue slow",
        "Priority 3",
        "Steps 2 executed, 1,234 cached",
        "Arguments dict {'order_id': 7}",
        "Value dict {'paid': True}",
        "load - from the cache 1.5 s - 1 charge order:7 executed 1.5 s 250 ms 1 charge order:7 surprise 1.5 s 250 ms -",
    ):
        assert part in text


def test_positional_arguments_are_shown_too(boss: Client):
    """Beside named ones or alone."""
    text = text_of(_look(boss, a_run(args=(1, "a"))))
    assert "Positional arguments tuple (1, 'a') Arguments dict {'order_id': 7}" in text
    text = text_of(_look(boss, a_run(args=(1, "a"), kwargs={})))
    assert "Arguments tuple (1, 'a')" in text
    assert "Positional" not in text


def test_a_failed_run_shows_its_error_and_where_it_failed(boss: Client):
    """And whether that came from the cache. It is above the timeline: that is what one comes for."""
    run = a_run(state="failed", outcome=dumps(Err(ValueError("no <b>"))), failed_step=["charge", "order:7", True])
    text = text_of(_look(boss, run))
    assert "Failed in step charge order:7 replayed from the cache" in text
    assert "Error ValueError no <b>" in text
    assert text.index("ValueError") < text.index("Timeline")
    run = a_run(state="failed", outcome=dumps(Err("NO")), failed_step=["charge", None, False])
    text = text_of(_look(boss, run))
    assert "Failed in step charge Attempts" in text
    assert "Error str 'NO'" in text


def test_a_run_that_has_not_begun_shows_what_there_is(boss: Client):
    """It waits, and is sent again if that takes too long."""
    text = text_of(_look(boss, a_run(due_at=timezone.now())))
    assert "The run waits for a worker." in text
    assert "Sent again unless taken by" in text
    for absent in ("Started", "Finished", "Duration", "Worker", "Queue", "Value", "Lost"):
        assert absent not in text


def test_a_run_that_is_under_way_shows_how_far_it_is(boss: Client):
    """The time so far, and until when its worker has to be heard of."""
    run = a_run(state="running", started_at=timezone.now() - dt.timedelta(hours=2), due_at=timezone.now())
    text = text_of(_look(boss, run))
    assert "Duration 2 h 0 min" in text
    assert "Lost unless heard of by" in text
    assert "No step has ended yet." in text


def test_a_cancelled_run_has_no_error(boss: Client):
    """That it was cancelled says its state."""
    text = text_of(_look(boss, a_run(state="cancelled")))
    assert "State cancelled" in text
    assert "Error" not in text


def test_arguments_and_results_that_cannot_be_read_are_explained(boss: Client):
    """A row from a later version is no server error."""
    run = a_run(arguments=b"rubbish", outcome=b"rubbish", state="succeeded")
    response = _look(boss, run)
    assert response.status_code == 200
    assert text_of(response).count("it is no entry of stepflows") == 2


def test_a_run_that_is_not_there_leads_to_the_list(boss: Client):
    """An old link, or one that somebody has typed."""
    for missing in ("2b1d4ba0-0000-4000-8000-000000000000", "nonsense"):
        response = boss.get(page("run_change", missing), follow=True)
        assert "exist. Perhaps it was deleted?" in response.content.decode()
        assert boss.get(page("run_live", missing)).status_code == 404


# The timeline.


def test_each_step_is_a_bar_with_its_label_and_duration(boss: Client):
    """By the time when it began, coloured by its outcome."""
    outcomes = ["error", "executed", "cached", "waited", "replayed_error"]
    steps = [
        a_step(outcome, label=outcome, offset=10 - at, duration=0 if outcome == "cached" else at)
        for at, outcome in enumerate(outcomes)
    ]
    assert [bar[:2] for bar in _bars(_look(boss, a_run(state="failed", steps=steps)))] == [
        ("replayed_error", "✕ replayed_error 4.0 s"),
        ("waited", "waited 3.0 s"),
        ("cached", "cached"),
        ("executed", "executed 1.0 s"),
        ("error", "✕ error 0.0 ms"),
    ]


def test_a_bar_tells_everything_to_whoever_cannot_see_it(boss: Client):
    """Label, key, outcome, duration and when; and the timeline how many there are."""
    response = _look(boss, a_run(state="succeeded", steps=[a_step(), a_step("cached", key=None, duration=0)]))
    assert _titles(response) == [
        "charge, order:7, executed, 250 ms, after 1.5 s",
        "charge, from the cache, after 1.5 s",
    ]
    assert 'role="list" aria-label="2 steps in 1.7 s"' in response.content.decode()


def test_a_step_under_way_is_a_bar_until_now(boss: Client):
    """Its duration so far, from the beginning of the attempt."""
    started = timezone.now() - dt.timedelta(hours=1)
    run = a_run(state="running", started_at=started, steps=[a_step("running", offset=0, duration=0)])
    [bar] = _bars(_look(boss, run))
    assert bar[:2] == ("running", "charge 1 h 0 min")


def test_outcomes_are_counted_in_words(boss: Client):
    """So that colours are not all there is."""
    steps = [*(a_step() for _ in range(3)), a_step("error"), a_step("cached"), a_step("surprise")]
    assert "3 executed 1 from the cache 1 error 1 other" in text_of(_look(boss, a_run(state="failed", steps=steps)))


def test_every_step_has_a_bar_also_where_there_are_many(boss: Client):
    """With all at a glance above, and the table folded."""
    steps = [a_step(key=f"order:{number}", offset=number) for number in range(300)]
    response = _look(boss, a_run(state="succeeded", steps=steps))
    html = response.content.decode()
    assert len(_bars(response)) == 300
    assert html.count('<a href="#stepflows-step-') == 300
    assert "<summary>300 steps</summary>" in html


def test_of_thousands_of_steps_those_are_shown_that_matter(boss: Client):
    """Failures, what is under way, and the longest."""
    steps = [a_step(label=f"step {number}", duration=number) for number in range(3000)]
    steps[1] = a_step("error", label="broken", duration=0)
    steps[2] = a_step("running", label="busy", duration=0)
    response = _look(boss, a_run(state="failed", steps=steps))
    texts = [text for _, text, _ in _bars(response)]
    assert len(texts) == 1000
    assert "2,000 short ones are left out" in text_of(response)
    assert any("broken" in text for text in texts)
    assert any("busy" in text for text in texts)
    assert any("step 2999" in text for text in texts)


def test_a_step_leads_to_what_is_cached_of_it(boss: Client, registered: str):
    """From its bar and from its key in the table; not while it is under way, nor where there is no key."""
    steps = [a_step(offset=0), a_step("running", key="order:8", offset=1), a_step(key=None, offset=2)]
    response = _look(boss, a_run(state="running", started_at=timezone.now(), steps=steps))
    url = step_page("change", Place(registered, Name("checkout", "order:7")))
    assert [bar[2] for bar in _bars(response)] == [url, "", ""]
    assert response.content.decode().count(f'href="{url}"') == 2


@pytest.mark.parametrize("cache", [StepCache("file", "shared", version=3), "file"])
def test_links_lead_to_the_cache_of_the_workflow(cache: Any, boss: Client, locmem: str):
    """Its own alias, namespace and version."""
    workflow("checkout", cache=cache, version=2)(lambda step, deps: None)
    [bar] = _bars(_look(boss, a_run(state="succeeded", steps=[a_step()])))
    scope = "checkout@2" if cache == "file" else "shared@3"
    assert bar[2] == step_page("change", Place("file", Name(scope, "order:7")))


@pytest.mark.parametrize("cache", [None, {}, "unregistered"])
def test_there_is_no_link_where_nothing_can_be_looked_at(cache: Any, boss: Client, locmem: str):
    """A cache of one's own, none at all, or a workflow that is not known here."""
    if cache != "unregistered":
        workflow("checkout", cache=cache)(lambda step, deps: None)
    [bar] = _bars(_look(boss, a_run(state="succeeded", steps=[a_step()])))
    assert bar[2] == ""


def test_who_may_not_look_at_cached_steps_has_no_links(staff: Callable[..., Client], registered: str):
    """They would lead nowhere."""
    [bar] = _bars(_look(staff("view_run"), a_run(state="succeeded", steps=[a_step()])))
    assert bar[2] == ""


# Attempts.


def test_earlier_attempts_are_shown_with_their_workers(boss: Client):
    """The latest first: why each ended, when it began, how long it took, and its steps, folded."""
    started = dt.datetime(2026, 5, 4, 3, 2, 1, tzinfo=dt.UTC)
    attempt = {"started_at": started.isoformat(), "ended_at": (started + dt.timedelta(seconds=30)).isoformat()}
    history = [
        {**attempt, "worker": "celery@one", "reason": "not heard of for 25 s", "steps": [a_step(label="load")]},
        {**attempt, "worker": "celery@two", "reason": "failed", "steps": []},
    ]
    response = _look(boss, a_run(state="running", history=history))
    text = text_of(response).replace(" ,", ",")
    assert (
        "Earlier attempts failed after 30.0 s on worker celery@two, started May 4, 2026, 03:02:01 "
        "not heard of for 25 s after 30.0 s on worker celery@one, started May 4, 2026, 03:02:01 1 step"
    ) in text
    assert [bar[1] for bar in _bars(response)] == ["load 250 ms"]


# Hostile rows.


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "\u202eشىء", "x" * 200, "'\"&"])
def test_nothing_that_people_write_breaks_the_page(hostile: str, boss: Client):
    """Workflow, label, key, outcome, arguments, result, worker and reasons are text."""
    steps = [a_step(label=hostile, key=hostile), a_step(hostile)]
    run = a_run(
        hostile,
        kwargs={hostile: hostile},
        outcome=dumps(Err(ValueError(hostile))),
        state="failed",
        worker=hostile,
        queue=hostile,
        failed_step=[hostile, hostile, False],
        steps=steps,
        history=[{"worker": hostile, "started_at": hostile, "ended_at": None, "reason": hostile, "steps": steps}],
    )
    response = _look(boss, run)
    assert text_of(response).count(hostile) > 12
    assert "<script>alert" not in response.content.decode()


@pytest.mark.parametrize(
    "rubbish",
    [
        [{}],
        [None, 1, "x"],
        {"label": "x"},
        [{"label": {}, "key": [], "outcome": 5, "offset": "x", "duration": [], "attempt": {}}],
        [a_step(offset=-5, duration=1e300), a_step(offset=1e300, duration=-1)],
    ],
)
def test_steps_and_attempts_of_any_form_do_no_harm(rubbish: Any, boss: Client):
    """A row that another version wrote, or somebody by hand."""
    for history in (rubbish, [{"steps": rubbish}], [{"started_at": 5, "ended_at": "2026-13-01", "steps": None}]):
        response = _look(boss, a_run(state="failed", steps=rubbish, history=history))
        assert response.status_code == 200
        # As a word: the token of a form may well hold these letters.
        assert not re.search(r"\bnan", response.content.decode(), re.IGNORECASE)


def test_numbers_in_the_drawing_are_not_written_as_people_do(boss: Client, settings: Settings):
    """Whatever the language is, and with thousands set apart."""
    settings.USE_THOUSAND_SEPARATOR = True
    settings.LANGUAGE_CODE = "de"
    steps = [a_step(key=f"order:{number}", offset=number / 7) for number in range(1000)]
    html = _look(boss, a_run(state="succeeded", steps=steps)).content.decode()
    places = re.findall(r' (?:x|x1|x2|y|width|height|viewBox|value)="([^"]*)"', html[html.index("stepflows-glance") :])
    assert len(places) > 4000
    assert [place for place in places if "," in place or place.count(".") > 1] == []


# While it runs.


def test_a_run_that_is_not_finished_says_where_to_look_again(boss: Client):
    """Its page refreshes itself, and has a link for browsers that do not."""
    run = a_run(state="running", started_at=timezone.now(), steps=[a_step()])
    html = _look(boss, run).content.decode()
    assert f'data-live="{page("run_live", run.pk)}"' in html
    assert f'<noscript><a href="{page("run_change", run.pk)}"' in html
    finished = _look(boss, a_run(state="succeeded")).content.decode()
    assert "data-live" not in finished
    assert "Refresh" not in finished


def test_what_is_looked_at_again_is_the_same_part_of_the_page(boss: Client):
    """And nothing else, least of all messages, which are for the next page."""
    run = a_run(state="succeeded", steps=[a_step()], finished_at=timezone.now(), started_at=timezone.now())
    part = boss.get(page("run_live", run.pk)).content.decode().strip()
    assert part.startswith('<div id="stepflows-live" data-said="The run is succeeded.">')
    assert part in _look(boss, run).content.decode()


def test_the_admin_is_not_bound_to_djangos_site(boss: Client, settings: Settings, registered: str):
    """Every link on the page stays in the site that it is on."""
    settings.ROOT_URLCONF = "tests.admin.othersite"
    for run in (a_run(state="failed", steps=[a_step()]), a_run(state="running", steps=[a_step()])):
        for path in ("", f"{run.pk}/change/", f"{run.pk}/live/", f"{run.pk}/again/?key=order:7"):
            html = boss.get(f"/desk/stepflows/run/{path}", follow=True).content.decode()
            assert "/desk/" in html
            assert "/admin/" not in re.sub(r'(src|href)="[^"]*\.(js|css|svg)"', "", html)
