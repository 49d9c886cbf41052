"""The main paths through the admin, by mouse and keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Page, expect
from pytest_django.fixtures import Settings

from stepflows import Err, Ok, cachedsteps, dumps
from stepflows.admin import CachedStepAdmin
from stepflows.models import Run
from stepflows.registry import registry
from tests.browser.conftest import assert_accessible, assert_fits
from tests.entries import keys, put, put_many
from tests.pages import CLEAR, LIST, page, step_page

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

Play = Callable[..., Any]

SURE = re.compile("^Yes, I.m sure$")
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 390, "height": 844}},
}

#: The checker of accessibility writes styles into the page, which the policy would forbid.
WITH_AXE = {"bypass_csp": True}


@pytest.fixture
def alias(valkey: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """The only cache with steps, on a server."""
    settings.STEPFLOWS = {"CACHE": "django_redis"}
    monkeypatch.setattr(registry, "_workflows", {})
    return "django_redis"


@pytest.fixture
def boss() -> Client:
    """Somebody who may do everything, logged in."""
    client = Client()
    client.force_login(User.objects.create_superuser("boss", password="secret"))
    return client


def test_from_the_login_to_a_step_and_its_deletion(alias: str, boss: Client, play: Play):
    """Log in, find the list, turn the page, search, open a step, delete it with confirmation."""
    put_many(alias, "checkout", [f"user:{number:03}" for number in range(150)])
    put(alias, "checkout", "order:7", Ok({"paid": True}))

    def scenario(window: Page) -> None:
        window.goto("/admin/")
        window.get_by_label("Username").fill("boss")
        window.get_by_label("Password").fill("secret")
        window.get_by_role("button", name="Log in").click()
        window.locator("#content").get_by_role("link", name="Cached steps").click()
        expect(window.locator("#result_list tbody tr")).to_have_count(100)
        expect(window.get_by_text("151 cached steps")).to_be_visible()
        window.get_by_role("link", name="2", exact=True).click()
        expect(window.locator("#result_list tbody tr")).to_have_count(51)
        window.locator("#searchbar").fill("order:")
        window.get_by_role("button", name="Search").click()
        expect(window.locator("#result_list tbody tr")).to_have_count(1)
        window.get_by_role("link", name="order:7").click()
        expect(window.locator("pre")).to_have_text("{'paid': True}")
        window.get_by_role("link", name="Delete").click()
        expect(window.get_by_text("runs again when it is next asked for")).to_be_visible()
        window.get_by_role("button", name=SURE).click()
        expect(window.locator(".messagelist .success")).to_have_text(re.compile("order:7.*was deleted successfully"))
        expect(window.locator("#searchbar")).to_have_value("order:")

    play(scenario)
    assert len(keys(alias, "checkout")) == 150
    assert LogEntry.objects.get().object_repr == "checkout order:7"


def test_selected_steps_are_deleted_after_a_confirmation(alias: str, boss: Client, play: Play):
    """Taking it back deletes nothing."""
    put_many(alias, "checkout", ["a", "b", "c"])

    def select(window: Page) -> None:
        for key in ("a", "c"):
            window.get_by_role("row", name=f"checkout {key} ").get_by_role("checkbox").check()
        expect(window.get_by_text("2 of 3 selected")).to_be_visible()
        window.get_by_label("Action:").select_option("Delete selected cached steps")
        window.get_by_role("button", name="Go").click()
        expect(window.get_by_text("Cached steps: 2")).to_be_visible()

    def scenario(window: Page) -> None:
        window.goto(page(LIST))
        select(window)
        window.get_by_role("link", name="No, take me back").click()
        expect(window.get_by_role("heading", name="Select cached step to view")).to_be_visible()
        window.reload()
        select(window)
        window.get_by_role("button", name=SURE).click()
        expect(window.get_by_text("Successfully deleted 2 cached steps.")).to_be_visible()
        expect(window.locator("#result_list tbody tr")).to_have_count(1)

    play(scenario, boss)
    assert keys(alias, "checkout") == ["b"]


def test_a_workflow_is_cleared_after_a_confirmation(alias: str, boss: Client, play: Play):
    """The filter, the button, the number, and the other workflow is still there."""
    put_many(alias, "checkout", ["a", "b", "c"])
    put_many(alias, "signup", ["a"])

    def scenario(window: Page) -> None:
        window.goto(page(LIST))
        window.locator("#changelist-filter").get_by_role("link", name="checkout").click()
        expect(window.locator("#result_list tbody tr")).to_have_count(3)
        window.get_by_role("link", name="Clear…").click()
        expect(window.get_by_text("Are you sure you want to remove 3 cached steps?")).to_be_visible()
        window.get_by_role("link", name="Choose something else").click()
        window.get_by_label("Key prefix").fill("zzz")
        window.get_by_role("button", name="Continue").click()
        expect(window.get_by_text("There is nothing to clear.")).to_be_visible()
        window.get_by_role("link", name="Choose something else").click()
        expect(window.get_by_label("Key prefix")).to_have_value("zzz")
        window.get_by_label("Key prefix").fill("")
        window.get_by_role("button", name="Continue").click()
        window.get_by_role("button", name="Yes, remove 3 cached steps").click()
        expect(window.locator(".messagelist .success")).to_have_text(re.compile("3 cached steps were removed"))
        expect(window.locator("#result_list tbody tr")).to_have_count(1)

    play(scenario, boss)
    assert (keys(alias, "checkout"), keys(alias, "signup")) == ([], ["a"])


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request clears one batch, of two."""
    monkeypatch.setattr(CachedStepAdmin, "clear_seconds", 0.0)
    monkeypatch.setattr(cachedsteps, "_REMOVED_AT_ONCE", 2)


def test_a_large_clear_goes_on_by_itself(alias: str, boss: Client, play: Play, slowly: None):
    """Until all are removed."""
    put_many(alias, "checkout", [f"user:{number}" for number in range(9)])

    def scenario(window: Page) -> None:
        window.goto(f"{page(CLEAR)}?cache={alias}&scope=all")
        window.get_by_role("button", name="Yes, remove 9 cached steps").click()
        expect(window.locator(".messagelist .success")).to_have_text(re.compile("9 cached steps were removed"))

    play(scenario, boss)
    assert keys(alias, "checkout") == []
    assert LogEntry.objects.get().object_repr.startswith("9 cached steps")


def test_without_scripts_a_large_clear_goes_on_by_a_button(alias: str, boss: Client, play: Play, slowly: None):
    """And can be stopped, which keeps the rest."""
    put_many(alias, "checkout", [f"user:{number}" for number in range(9)])

    def scenario(window: Page) -> None:
        window.goto(f"{page(CLEAR)}?cache={alias}&scope=all")
        window.get_by_role("button", name="Yes, remove 9 cached steps").click()
        expect(window.get_by_text("2 of 9 cached steps are removed.")).to_be_visible()
        window.get_by_role("button", name="Go on").click()
        expect(window.get_by_text("4 of 9 cached steps are removed.")).to_be_visible()
        window.get_by_role("link", name="Stop and keep the rest").click()
        expect(window.locator("#result_list tbody tr")).to_have_count(5)

    play(scenario, boss, java_script_enabled=False)
    assert LogEntry.objects.get().object_repr.startswith("4 cached steps")


def test_the_overview_unfolds_and_leads_to_a_workflow(alias: str, boss: Client, play: Play):
    """By keyboard."""
    for number in range(7):
        put_many(alias, f"flow {number}", ["a"])

    def scenario(window: Page) -> None:
        window.goto(page(LIST))
        link = window.get_by_role("region", name="Overview").get_by_role("link", name="flow 3")
        expect(link).to_be_hidden()
        window.locator(".stepflows-overview summary").focus()
        window.keyboard.press("Enter")
        link.click()
        expect(window.locator("#result_list tbody tr")).to_have_count(1)

    play(scenario, boss)


def test_a_run_is_found_and_looked_at(alias: str, boss: Client, play: Play):
    """From the list to arguments, error and steps."""
    step = {"label": "charge card", "key": "order:7", "outcome": "error", "offset": 0.5, "duration": 0.4, "attempt": 1}
    run = Run.objects.create(
        workflow="checkout",
        arguments=dumps(Ok(((), {"order_id": 7}))),
        state="failed",
        outcome=dumps(Err(ValueError("declined"))),
        failed_step=["charge card", "order:7", False],
        steps=[step],
    )
    Run.objects.create(workflow="signup", arguments=dumps(Ok(((), {}))))

    def scenario(window: Page) -> None:
        window.goto(page("run_changelist"))
        expect(window.locator("#result_list tbody tr")).to_have_count(2)
        window.locator("#changelist-filter").get_by_role("link", name="failed").click()
        expect(window.locator("#result_list tbody tr")).to_have_count(1)
        window.get_by_role("link", name=str(run.pk)[:8]).click()
        expect(window.get_by_text("{'order_id': 7}")).to_be_visible()
        expect(window.get_by_text("declined", exact=True)).to_be_visible()
        expect(window.get_by_role("region", name="Steps").get_by_role("row")).to_have_count(2)

    play(scenario, boss)


def test_a_long_value_unfolds_by_keyboard(alias: str, boss: Client, play: Play):
    """And what runs from right to left, or is a script, is text."""
    place = put(alias, "checkout", "<script>alert(1)</script>", Ok(["\u202eشىء", *range(100)]))

    def scenario(window: Page) -> None:
        window.on("dialog", lambda dialog: pytest.fail(f"The page ran a script: {dialog.message}"))
        window.goto(step_page("change", place))
        whole, beginning = window.locator("details pre"), window.locator(".stepflows-beginning")
        expect(whole).to_be_hidden()
        expect(beginning).to_be_visible()
        window.locator("summary", has_text="lines").focus()
        window.keyboard.press("Enter")
        expect(whole).to_be_visible()
        expect(beginning).to_be_hidden()

    play(scenario, boss)


def _raised(message: str) -> ValueError:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_is_accessible(look: str, alias: str, boss: Client, play: Play, slowly: None):
    """Light, dark and narrow, with ordinary and with extraordinary steps; nothing is wider than a narrow window."""
    ordinary = put(alias, "checkout", "user:1", Ok([{"row": number} for number in range(60)]), label="load", ttl=60)
    odd = put(alias, "x" * 200, "<script>" + "y" * 190, Err(_raised("no " * 50)), label="z" * 200, version=2)
    put(alias, "checkout", "user:2", Err("NOT_FOUND"))
    step = {"label": "charge", "key": "k" * 200, "outcome": "executed", "offset": 0.5, "duration": 0.4, "attempt": 1}
    states = ("queued", "running", "succeeded", "failed", "cancelled")
    runs = [
        Run.objects.create(workflow="checkout", arguments=dumps(Ok(((), {}))), state=state, steps=[step])
        for state in states
    ]
    urls = [
        page(LIST),
        f"{page(LIST)}?workflow=checkout",
        f"{page(LIST)}?q=user",
        *(step_page(name, place) for place in (ordinary, odd) for name in ("change", "delete")),
        page(CLEAR),
        f"{page(CLEAR)}?cache={alias}&scope=all",
        page("run_changelist"),
        page("run_change", runs[2].pk),
    ]

    def scenario(window: Page) -> None:
        for url in urls:
            answer = window.goto(url)
            assert answer is not None
            assert answer.status == 200
            assert_accessible(window)
            assert_fits(window)
        window.goto(page(LIST))
        window.locator("#action-toggle").check()
        window.get_by_label("Action:").select_option("Delete selected cached steps")
        window.get_by_role("button", name="Go").click()
        expect(window.get_by_text("Cached steps: 3")).to_be_visible()
        assert_accessible(window)
        assert_fits(window)
        window.route("**/goon.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
        window.goto(urls[-3])
        window.get_by_role("button", name="Yes, remove").click()
        expect(window.get_by_text("2 of 3 cached steps are removed.")).to_be_visible()
        assert_accessible(window)
        assert_fits(window)

    play(scenario, boss, **WITH_AXE, **LOOKS[look])


def test_the_page_about_a_cache_that_is_down_is_accessible(alias: str, boss: Client, play: Play, settings: Settings):
    """That it is an error is what the browser notes, and nothing more."""
    settings.STEPFLOWS = {"CACHE": "nowhere"}

    def scenario(window: Page) -> None:
        window.goto(page(LIST))
        expect(window.get_by_text("There is no cache alias 'nowhere'")).to_be_visible()
        assert_accessible(window)

    with pytest.raises(AssertionError, match="503"):
        play(scenario, boss, **WITH_AXE)
