"""Who may do what: everybody against every page and action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from stepflows import Ok, dumps
from stepflows.cachedsteps import Place
from stepflows.models import Run
from tests.entries import keys, put
from tests.pages import CLEAR, LIST, page, step_page

pytestmark = pytest.mark.django_db

ROLES: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "view": ("view_cachedstep",),
    "delete": ("delete_cachedstep",),
    "clear": ("clear_cachedstep",),
    "view and delete": ("view_cachedstep", "delete_cachedstep"),
    "runs": ("view_run", "change_run"),
}
PEOPLE = ["anonymous", "customer", *ROLES, "superuser"]

DELETE_SELECTED = {"action": "delete_selected", "post": "yes"}
CLEAR_ALL = {"cache": "locmem", "scope": "all"}


def _selected(place: Place, **data: str) -> dict[str, Any]:
    return {"_selected_action": place.id, **data}


#: How each is asked, by whom it is answered and how, and whether the step is gone afterwards. Others are refused.
STEP_ACTIONS: dict[str, tuple[Callable[[Client, Place], Any], dict[str, int], bool]] = {
    "list": (lambda client, step: client.get(page(LIST)), {"view": 200, "view and delete": 200}, False),
    "search": (
        lambda client, step: client.get(page(LIST), {"q": "user"}),
        {"view": 200, "view and delete": 200},
        False,
    ),
    "look": (lambda client, step: client.get(step_page("change", step)), {"view": 200, "view and delete": 200}, False),
    "change": (lambda client, step: client.post(step_page("change", step), {"key": "other"}), {}, False),
    "history": (
        lambda client, step: client.get(step_page("history", step)),
        {"view": 200, "view and delete": 200},
        False,
    ),
    "add": (lambda client, step: client.get(page("cachedstep_add")), {}, False),
    "add it": (lambda client, step: client.post(page("cachedstep_add"), {"key": "other"}), {}, False),
    "ask to delete": (
        lambda client, step: client.get(step_page("delete", step)),
        {"delete": 200, "view and delete": 200},
        False,
    ),
    "delete": (
        lambda client, step: client.post(step_page("delete", step), {"post": "yes"}),
        {"delete": 302, "view and delete": 302},
        True,
    ),
    "ask to delete selected": (
        lambda client, step: client.post(page(LIST), _selected(step, action="delete_selected")),
        # Who may only look has no actions, so the list comes back as it was.
        {"view": 200, "view and delete": 200},
        False,
    ),
    "delete selected": (
        lambda client, step: client.post(page(LIST), _selected(step, **DELETE_SELECTED)),
        {"view and delete": 302},
        True,
    ),
    "ask what to clear": (lambda client, step: client.get(page(CLEAR)), {"clear": 200}, False),
    "ask to clear": (lambda client, step: client.get(page(CLEAR), CLEAR_ALL), {"clear": 200}, False),
    "clear": (lambda client, step: client.post(page(CLEAR), CLEAR_ALL), {"clear": 302}, True),
    "go on clearing": (lambda client, step: client.post(page(CLEAR), {"clearing": "1"}), {"clear": 302}, False),
}
#: A superuser may do what anybody may, and what nobody may he may not.
FOR_VIEWERS_UNCHANGED = {"delete selected": {"view": 200}}

RUN_ACTIONS: dict[str, tuple[Callable[[Client, Run], Any], bool]] = {
    "list": (lambda client, run: client.get(page("run_changelist")), True),
    "look": (lambda client, run: client.get(page("run_change", run.pk)), True),
    "history": (lambda client, run: client.get(page("run_history", run.pk)), True),
    "change": (lambda client, run: client.post(page("run_change", run.pk), {"state": "failed"}), False),
    "add": (lambda client, run: client.post(page("run_add"), {"workflow": "checkout"}), False),
    "ask to delete": (lambda client, run: client.get(page("run_delete", run.pk)), False),
    "delete": (lambda client, run: client.post(page("run_delete", run.pk), {"post": "yes"}), False),
}


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
        return staff("view_cachedstep", "delete_cachedstep", "clear_cachedstep", "view_run", is_staff=False)
    return staff(*ROLES.get(person, ()), is_superuser=person == "superuser")


@pytest.mark.parametrize("action", STEP_ACTIONS)
def test_each_page_and_action_of_cached_steps_needs_its_permission(
    action: str, person: str, client_of: Client, locmem: str
):
    """The answer is as the table has it, and the step is gone only if the one who asked may remove it."""
    step = put(locmem, "checkout", "user:1")
    ask, allowed, removes = STEP_ACTIONS[action]
    answers = {**allowed, **FOR_VIEWERS_UNCHANGED.get(action, {})}
    default = 302 if person in ("anonymous", "customer") else 403
    if person == "superuser" and allowed:
        default = next(iter(allowed.values()))

    response = ask(client_of, step)

    assert response.status_code == answers.get(person, default)
    may = person in allowed or person == "superuser"
    assert keys(locmem, "checkout") == ([] if removes and may else ["user:1"])
    if person in ("anonymous", "customer"):
        assert response.url.startswith("/admin/login/")


@pytest.mark.parametrize("action", RUN_ACTIONS)
def test_runs_are_looked_at_with_their_permission_and_never_changed(
    action: str, person: str, client_of: Client, locmem: str
):
    """Nobody, not even a superuser, adds, changes or deletes a run."""
    run = Run.objects.create(workflow="checkout", arguments=dumps(Ok(((), {}))))
    ask, is_looking = RUN_ACTIONS[action]
    default = 302 if person in ("anonymous", "customer") else 403

    response = ask(client_of, run)

    assert response.status_code == (200 if is_looking and person in ("runs", "superuser") else default)
    run.refresh_from_db()
    assert (Run.objects.count(), run.state) == (1, "queued")


@pytest.mark.parametrize(
    ("codenames", "sees_clear", "sees_delete"),
    [
        (("view_cachedstep",), False, False),
        (("view_cachedstep", "clear_cachedstep"), True, False),
        (("view_cachedstep", "delete_cachedstep"), False, True),
    ],
)
def test_only_what_is_allowed_is_offered(
    codenames: tuple[str, ...], sees_clear: bool, sees_delete: bool, staff: Callable[..., Client], locmem: str
):
    """Buttons and actions are there for those who may use them."""
    step = put(locmem, "checkout", "user:1")
    client = staff(*codenames)
    listing, detail = client.get(page(LIST)), client.get(step_page("change", step))
    assert ("Clear…" in listing.content.decode()) is sees_clear
    assert ("delete_selected" in listing.content.decode()) is sees_delete
    assert ('class="deletelink"' in detail.content.decode()) is sees_delete


def test_who_may_not_look_is_refused_before_a_cache_is_asked(staff: Callable[..., Client], settings: Any):
    """Whether a cache is up is nobody else's business."""
    settings.STEPFLOWS = {"CACHE": "nowhere"}
    client = staff()
    step = Place("nowhere", ("checkout", "user:1"))  # type: ignore[arg-type]
    for name in ("change", "delete", "history"):
        assert client.get(step_page(name, step)).status_code == 403
    assert client.get(page(CLEAR)).status_code == 403


def test_deleting_and_clearing_need_a_csrf_token(boss: Client, locmem: str):
    """A form on another site deletes nothing."""
    step = put(locmem, "checkout", "user:1")
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = boss.cookies
    posts = [
        (step_page("delete", step), {"post": "yes"}),
        (page(LIST), _selected(step, **DELETE_SELECTED)),
        (page(CLEAR), CLEAR_ALL),
    ]
    assert [strict.post(url, data).status_code for url, data in posts] == [403, 403, 403]
    assert keys(locmem, "checkout") == ["user:1"]
