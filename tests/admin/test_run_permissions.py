"""Who may do what about runs: everybody against every page and action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from stepflows import workflow
from stepflows.messages import withheld
from stepflows.models import Run
from tests.entries import keys, put
from tests.pages import page
from tests.runrows import a_run, a_step

pytestmark = pytest.mark.django_db

ROLES: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "view": ("view_run",),
    "change": ("change_run",),
    "both": ("view_run", "change_run"),
    "change and delete": ("change_run", "delete_cachedstep"),
    "steps": ("view_cachedstep", "delete_cachedstep", "clear_cachedstep"),
    "all": ("view_run", "change_run", "delete_cachedstep"),
}
PEOPLE = ["anonymous", "customer", *ROLES, "superuser"]

LOOK = {"view": 200, "both": 200, "all": 200}
ACT = {"change": 302, "both": 302, "change and delete": 302, "all": 302}
NOT_SO = dict.fromkeys(ACT, 405)
#: How each is asked, by whom it is answered and how, and the state of the run afterwards. Others are refused.
ACTIONS: dict[str, tuple[Callable[[Client, Run], Any], dict[str, int], str]] = {
    "list": (lambda client, run: client.get(page("run_changelist")), LOOK, "failed"),
    "search": (lambda client, run: client.get(page("run_changelist"), {"q": "a"}), LOOK, "failed"),
    "look": (lambda client, run: client.get(page("run_change", run.pk)), LOOK, "failed"),
    "look again": (lambda client, run: client.get(page("run_live", run.pk)), LOOK, "failed"),
    "history": (lambda client, run: client.get(page("run_history", run.pk)), LOOK, "failed"),
    "change": (lambda client, run: client.post(page("run_change", run.pk), {"state": "queued"}), {}, "failed"),
    "add": (lambda client, run: client.get(page("run_add")), {}, "failed"),
    "add it": (lambda client, run: client.post(page("run_add"), {"workflow": "checkout"}), {}, "failed"),
    "ask to delete": (lambda client, run: client.get(page("run_delete", run.pk)), {}, "failed"),
    "delete": (lambda client, run: client.post(page("run_delete", run.pk), {"post": "yes"}), {}, "failed"),
    "resume": (lambda client, run: client.post(page("run_resume", run.pk)), ACT, "queued"),
    "resume by a link": (lambda client, run: client.get(page("run_resume", run.pk)), NOT_SO, "failed"),
    "retry": (lambda client, run: client.post(page("run_retry", run.pk)), ACT, "queued"),
    "retry by a link": (lambda client, run: client.get(page("run_retry", run.pk)), NOT_SO, "failed"),
    "cancel": (lambda client, run: client.post(page("run_cancel", run.pk)), ACT, "failed"),
    "cancel by a link": (lambda client, run: client.get(page("run_cancel", run.pk)), NOT_SO, "failed"),
    "ask to run again": (
        lambda client, run: client.get(page("run_again", run.pk), {"key": "order:7"}),
        {"change and delete": 200, "all": 200},
        "failed",
    ),
    "run again": (
        lambda client, run: client.post(page("run_again", run.pk), {"key": "order:7", "epoch": 0}),
        {"change and delete": 302, "all": 302},
        "queued",
    ),
    **{
        f"{name} selected": (
            lambda client, run, name=name: client.post(  # type: ignore[misc]
                page("run_changelist"), {"action": f"{name}_runs", "_selected_action": str(run.pk)}
            ),
            # Who may only look has no actions, so the list comes back as it was.
            {"view": 200, "both": 302, "all": 302},
            "failed" if name == "cancel" else "queued",
        )
        for name in ("resume", "retry", "cancel")
    },
}
DOES_NOTHING = {200, 403, 405}


@pytest.fixture(params=PEOPLE)
def person(request: pytest.FixtureRequest) -> str:
    """Everybody in turn."""
    name: str = request.param
    return name


@pytest.fixture
def client_of(person: str, staff: Callable[..., Client]) -> Client:
    if person == "anonymous":
        return Client()
    if person == "customer":
        return staff("view_run", "change_run", "delete_cachedstep", is_staff=False)
    return staff(*ROLES.get(person, ()), is_superuser=person == "superuser")


@pytest.mark.parametrize("action", ACTIONS)
def test_each_page_and_action_of_runs_needs_its_permission(action: str, person: str, client_of: Client, locmem: str):
    """A run that failed stays as it is, unless somebody who may says otherwise."""
    workflow("checkout")(lambda step, deps, order_id: None)
    put(locmem, "checkout", "order:7")
    run = a_run(state="failed", steps=[a_step()])
    ask, answers, state = ACTIONS[action]
    refused = 302 if person in ("anonymous", "customer") else 403
    expected = answers.get("all" if person == "superuser" else person, refused)

    queued: list[Run] = []
    with withheld(queued.append):
        response = ask(client_of, run)

    assert response.status_code == expected
    is_sent_away = expected == 302 and response.url.startswith(
        page("run_changelist").replace("stepflows/run/", "login")
    )
    is_done = not is_sent_away and expected not in DOES_NOTHING
    run.refresh_from_db()
    assert run.state == (state if is_done else "failed")
    assert len(queued) == (is_done and state == "queued")
    assert keys(locmem, "checkout") == ([] if is_done and action == "run again" else ["order:7"])


def test_who_may_not_look_is_led_to_the_first_page(staff: Callable[..., Client], locmem: str):
    """After having done what they may."""
    workflow("checkout")(lambda step, deps, order_id: None)
    run = a_run(state="failed")
    with withheld(lambda run: None):
        response = staff("change_run").post(page("run_resume", run.pk))
    assert response.url == "/admin/"
