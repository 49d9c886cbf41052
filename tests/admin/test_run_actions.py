"""What an operator does about runs: resume, retry, cancel, and run again from a step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.test import Client
from pytest_django.fixtures import Settings

from stepflows import Err, Ok, dumps, workflow
from stepflows.messages import withheld
from stepflows.models import Run
from stepflows.registry import registry
from stepflows.runs import perform
from stepflows.testing import QueuedRuns
from tests.entries import keys, put, put_many
from tests.pages import messages_of, page, text_of
from tests.runrows import a_run, a_step

pytestmark = pytest.mark.django_db

LIST = "run_changelist"
STATES = ["queued", "running", "succeeded", "failed", "cancelled"]
#: Where each makes sense.
FITTING = {
    "resume": {"queued", "failed", "cancelled"},
    "retry": {"failed", "cancelled"},
    "cancel": {"queued", "running"},
}
AFTERWARDS = {"resume": "queued", "retry": "queued", "cancel": "cancelled"}


@pytest.fixture
def calls(locmem: str) -> list[str]:
    """Which steps of the workflow ``checkout`` ran."""
    calls: list[str] = []

    def body(step: Any, deps: Any, order_id: int) -> str:
        for label in ("load", "charge", "mail"):
            step(label, lambda label=label: calls.append(label), key=f"{order_id}:{label}")
        return "done"

    workflow("checkout")(body)
    return calls


@pytest.fixture
def queued() -> Iterator[QueuedRuns]:
    """The runs that were sent to workers, to be performed when the test says so."""
    queued = QueuedRuns(perform)
    with withheld(queued.note):
        yield queued


def _select(client: Client, action: str, *runs: Run, **more: Any) -> Any:
    data = {"action": f"{action}_runs", "_selected_action": [str(run.pk) for run in runs], **more}
    return client.post(page(LIST), data, follow=True)


def _press(client: Client, action: str, run: Run) -> Any:
    return client.post(page(f"run_{action}", run.pk), follow=True)


def _buttons(response: Any) -> dict[str, str]:
    html = response.content.decode()
    return {
        unescape(text).strip(): url for url, text in re.findall(r'<button[^>]* formaction="([^"]*)"[^>]*>(.*?)<', html)
    }


def _performed(run: Run) -> Run:
    assert perform(run.pk)
    run.refresh_from_db()
    return run


def _logged() -> list[tuple[str, str]]:
    assert {entry.action_flag for entry in LogEntry.objects.all()} <= {CHANGE}
    return [(entry.object_id, entry.change_message) for entry in LogEntry.objects.order_by("pk")]


# Resume, retry and cancel.


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", FITTING)
def test_what_fits_the_state_is_done_from_the_list(
    action: str, state: str, boss: Client, calls: list[str], queued: QueuedRuns
):
    """And what does not is told; a log entry is for what was done."""
    run = a_run(state=state)
    response = _select(boss, action, run)
    run.refresh_from_db()
    done = state in FITTING[action]
    assert run.state == (AFTERWARDS[action] if done else state)
    [message] = messages_of(response)
    assert (" not " in message) is not done
    assert [entry[0] for entry in _logged()] == [str(run.pk)] * done
    assert [*queued] == [run] * (done and action != "cancel")


def test_messages_tell_how_many_were_done_and_how_many_not(boss: Client, calls: list[str], queued: QueuedRuns):
    """Of those that were selected; the others stay as they are."""
    runs = [a_run(state=state) for state in ("failed", "cancelled", "running", "succeeded", "succeeded")]
    other = a_run(state="failed")
    assert messages_of(_select(boss, "resume", *runs)) == [
        "2 runs were resumed.",
        "3 runs were not resumed: they have neither failed nor were they cancelled.",
    ]
    assert _logged() == [(str(run.pk), "Resumed.") for run in reversed(runs[:2])]
    other.refresh_from_db()
    assert other.state == "failed"
    assert messages_of(_select(boss, "cancel", runs[0])) == ["1 run was cancelled."]
    assert messages_of(_select(boss, "retry", runs[0], runs[4])) == [
        "1 run is tried again.",
        "1 run is not tried again: it has neither failed nor was it cancelled.",
    ]


def test_all_that_are_listed_can_be_selected(boss: Client, calls: list[str], queued: QueuedRuns):
    """More than a page of them, and only those."""
    failed = [a_run(state="failed") for _ in range(60)]
    data = {"action": "resume_runs", "_selected_action": [str(failed[0].pk)], "select_across": "1"}
    response = boss.post(f"{page(LIST)}?workflow=checkout&state__exact=failed", data, follow=True)
    assert messages_of(response) == ["60 runs were resumed."]
    assert Run.objects.filter(state="queued").count() == 60


@pytest.mark.parametrize("state", STATES)
def test_the_page_of_a_run_offers_what_makes_sense(state: str, boss: Client):
    """As buttons that post."""
    run = a_run(state=state)
    labels = {name: name.capitalize() for name in FITTING} | ({"resume": "Send again"} if state == "queued" else {})
    expected = {labels[name]: page(f"run_{name}", run.pk) for name, states in FITTING.items() if state in states}
    assert _buttons(boss.get(page("run_change", run.pk))) == expected


@pytest.mark.parametrize("action", FITTING)
def test_a_button_does_it_and_comes_back(action: str, boss: Client, calls: list[str], queued: QueuedRuns):
    """The page tells what was done; the history too."""
    run = a_run(state="running" if action == "cancel" else "failed")
    response = _press(boss, action, run)
    assert response.redirect_chain == [(page("run_change", run.pk), 302)]
    run.refresh_from_db()
    assert run.state == AFTERWARDS[action]
    assert len(messages_of(response)) == len(_logged()) == 1
    assert _logged()[0][1] in text_of(boss.get(page("run_history", run.pk)))


@pytest.mark.parametrize("action", [*FITTING, "again"])
def test_a_run_that_is_gone_is_told(action: str, boss: Client):
    """Runs are removed after a while."""
    for missing in ("2b1d4ba0-0000-4000-8000-000000000000", "nonsense"):
        response = boss.post(page(f"run_{action}", missing), follow=True)
        assert "exist. Perhaps it was deleted?" in messages_of(response)[0]


def test_a_resumed_run_meets_its_error_and_a_retried_one_does_not(boss: Client, calls: list[str], queued: QueuedRuns):
    """That is the difference."""
    put("locmem", "checkout", "7:charge", Err("DECLINED"))
    run = _performed(a_run())
    assert run.state == "failed"
    _press(boss, "resume", run)
    queued.perform()
    run.refresh_from_db()
    assert run.state == "failed"
    _press(boss, "retry", run)
    queued.perform()
    run.refresh_from_db()
    assert (run.state, calls) == ("succeeded", ["load", "charge", "mail"])


def test_what_keeps_a_run_from_being_retried_is_told(boss: Client, calls: list[str], queued: QueuedRuns):
    """A workflow that is not registered here keeps nobody from the others."""
    unknown, known = a_run("<b>gone", state="failed"), a_run(state="failed")
    response = _select(boss, "retry", unknown, known)
    assert messages_of(response)[0] == "1 run is tried again."
    assert messages_of(response)[1].startswith("No workflow is named '<b>gone'.")
    assert "<b>gone" not in response.content.decode()
    assert _logged() == [(str(known.pk), "Retried.")]


def test_a_cache_that_is_down_is_told_once(boss: Client, calls: list[str], settings: Settings):
    """The next run would wait for it as long."""
    settings.CACHES = {
        **settings.CACHES,
        "down": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"},
    }
    registry.remove("checkout")
    workflow("checkout", cache="down")(lambda step, deps: None)
    runs = [a_run(state="failed", steps=[a_step("error")]) for _ in range(3)]
    [message] = messages_of(_select(boss, "retry", *runs))
    assert "down" in message
    assert [run.state for run in Run.objects.all()] == ["failed"] * 3
    [message] = messages_of(boss.post(page("run_again", runs[0].pk), {"key": "order:7", "epoch": 0}, follow=True))
    assert "down" in message
    assert (Run.objects.filter(state="failed").count(), _logged()) == (3, [])


# Run again from a step.


def _ask(client: Client, run: Run, key: str) -> Any:
    return client.get(page("run_again", run.pk), {"key": key}, follow=True)


def _confirm(client: Client, response: Any, run: Run) -> Any:
    """Press the button of the page that asks."""
    html = response.content.decode()
    names = ("key", "epoch")
    data = {name: unescape(re.findall(rf'name="{name}" value="([^"]*)"', html)[0]) for name in names}
    return client.post(page("run_again", run.pk), data, follow=True)


def test_a_finished_run_runs_again_from_a_step(boss: Client, calls: list[str], queued: QueuedRuns):
    """What is to be removed is listed in order; then that step and the later ones run, and the earlier ones do not."""
    run = _performed(a_run())
    put("locmem", "checkout", "8:charge")
    assert calls == ["load", "charge", "mail"]
    detail = boss.get(page("run_change", run.pk))
    assert f'href="{page("run_again", run.pk)}?key=7%3Acharge"' in detail.content.decode()

    asked = _ask(boss, run, "7:charge")
    assert "Are you sure you want to remove 2 cached steps" in text_of(asked)
    assert text_of(asked).endswith("What is removed 7:charge charge 7:mail mail")
    assert len(keys("locmem", "checkout")) == 4

    response = _confirm(boss, asked, run)
    assert messages_of(response) == ["The run was sent to a worker. 2 steps run again, whatever else is cached."]
    assert keys("locmem", "checkout") == ["7:load", "8:charge"]
    assert _logged() == [(str(run.pk), "Run again from “7:charge” on: 2 cached steps were removed.")]
    queued.perform()
    run.refresh_from_db()
    assert (run.state, run.result) == ("succeeded", Ok("done"))
    assert calls == ["load", "charge", "mail", "charge", "mail"]
    assert [step["outcome"] for step in run.steps] == ["cached", "executed", "executed"]


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_every_finished_run_can_run_again(state: str, boss: Client, calls: list[str], queued: QueuedRuns):
    """Whatever came of it; steps of other runs that are cached stand."""
    put_many("locmem", "checkout", ["a", "b"])
    run = a_run(state=state, outcome=dumps(Ok(1)), steps=[a_step(key="a"), a_step(key=None), a_step(key="a")])
    _confirm(boss, _ask(boss, run, "a"), run)
    run.refresh_from_db()
    assert (run.state, run.outcome, [*queued]) == ("queued", None, [run])
    assert keys("locmem", "checkout") == ["b"]


def test_a_run_that_has_changed_since_is_asked_about_again(boss: Client, calls: list[str], queued: QueuedRuns):
    """What is removed is what was shown."""
    run = _performed(a_run())
    asked = _ask(boss, run, "7:load")
    assert run.run_again(["7:mail"])
    queued.perform()
    again = _confirm(boss, asked, run)
    assert "The run has changed since you were asked." in text_of(again)
    assert len(keys("locmem", "checkout")) == 3
    _confirm(boss, again, run)
    assert keys("locmem", "checkout") == []


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"state": "running"}, "order:7"),
        ({"state": "queued"}, "order:7"),
        ({"state": "succeeded"}, "order:8"),
        ({"state": "succeeded"}, ""),
        ({"state": "succeeded", "workflow": "unknown"}, "order:7"),
    ],
)
def test_what_cannot_run_again_from_there_is_told(
    fields: dict[str, Any], key: str, boss: Client, calls: list[str], queued: QueuedRuns
):
    """A run under way, a key that it does not have, a workflow that is not registered."""
    put("locmem", "checkout", "order:7")
    run = a_run(**{"steps": [a_step()], **fields})
    for response in (_ask(boss, run, key), boss.post(page("run_again", run.pk), {"key": key, "epoch": 0}, follow=True)):
        assert response.redirect_chain == [(page("run_change", run.pk), 302)]
        assert messages_of(response)[0].startswith("The run cannot be run again from this step")
    assert keys("locmem", "checkout") == ["order:7"]
    assert ("from this step" in text_of(boss.get(page("run_change", run.pk)))) is (key != "order:7")


def test_keys_of_any_form_are_removed(boss: Client, calls: list[str], queued: QueuedRuns):
    """And break no page."""
    hostile = ["<script>alert(1)</script>", "\u202eشىء", "'\"&?=#", "x" * 200]
    put_many("locmem", "checkout", hostile)
    run = a_run(state="failed", steps=[a_step(key=key, label=key) for key in hostile])
    asked = _ask(boss, run, hostile[0])
    for key in hostile:
        assert text_of(asked).count(key) == 2
    assert "<script>alert" not in asked.content.decode()
    assert "<script>alert" not in _confirm(boss, asked, run).content.decode()
    assert keys("locmem", "checkout") == []


def test_only_one_of_two_runs_it_again(calls: list[str], queued: QueuedRuns):
    """A run that somebody else has sent meanwhile is not finished any more, and its steps stay."""
    run = _performed(a_run())
    other = Run.objects.get()
    assert other.run_again(["7:mail"])
    assert not run.run_again(["7:load"])
    assert (run.state, keys("locmem", "checkout")) == ("queued", ["7:charge", "7:load"])


@pytest.mark.parametrize("cache", [{}, None])
def test_a_run_runs_again_with_any_cache(cache: Any, locmem: str, queued: QueuedRuns):
    """A Map of one's own, or none at all."""
    workflow("checkout", cache=cache)(lambda step, deps, order_id: step("load", lambda: 1, key="a"))
    run = _performed(a_run())
    assert run.run_again(["a"])
    queued.perform()
    run.refresh_from_db()
    assert [step["outcome"] for step in run.steps] == ["executed"]


# Who may.


def test_only_what_is_allowed_is_offered(staff: Callable[..., Client], calls: list[str]):
    """Buttons, actions and links are there for those who may use them."""
    run = a_run(state="failed", steps=[a_step()])
    seen = {}
    for codenames in (("view_run",), ("view_run", "change_run"), ("view_run", "change_run", "delete_cachedstep")):
        client = staff(*codenames)
        listing, detail = client.get(page(LIST)), client.get(page("run_change", run.pk))
        seen[codenames[-1]] = (
            "resume_runs" in listing.content.decode(),
            [*_buttons(detail)],
            "from this step" in text_of(detail),
        )
    assert seen == {
        "view_run": (False, [], False),
        "change_run": (True, ["Resume", "Retry"], False),
        "delete_cachedstep": (True, ["Resume", "Retry"], True),
    }


def test_nothing_is_done_without_a_csrf_token(boss: Client, calls: list[str]):
    """A form on another site does nothing."""
    run = a_run(state="failed", steps=[a_step()])
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = boss.cookies
    posts = [(page(f"run_{name}", run.pk), {"key": "order:7", "epoch": 0}) for name in (*FITTING, "again")]
    posts.append((page(LIST), {"action": "resume_runs", "_selected_action": str(run.pk)}))
    assert [strict.post(url, data).status_code for url, data in posts] == [403] * 5
    run.refresh_from_db()
    assert run.state == "failed"
