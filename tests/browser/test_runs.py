"""Runs in the admin: watched, resumed, and run again from a step, by mouse and keyboard."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect
from pytest_django.fixtures import Settings

from stepflows import Err, Ok, dumps, workflow
from stepflows.messages import withheld
from stepflows.models import Run
from stepflows.registry import registry
from stepflows.runs import perform
from tests.browser.conftest import assert_accessible, assert_fits
from tests.entries import keys
from tests.pages import page
from tests.runrows import a_run, a_step

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

Play = Callable[..., Any]

PATIENCE = 60
# Waiting for what a page shows takes as long as the machine is busy.
expect.set_options(timeout=30_000)

SURE = re.compile("^Yes, I.m sure$")
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 390, "height": 844}},
}
#: The checker of accessibility writes styles into the page, which the policy would forbid.
WITH_AXE = {"bypass_csp": True}


class Checkout:
    """A workflow of three steps, of which the second waits for the gate. While it is broken it fails after them."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.broken = False
        self.calls: list[str] = []

    def body(self, step: Any, deps: Any, order_id: int) -> str:
        step("load", lambda: self.calls.append("load"), key=f"{order_id}:load")
        step("charge", self._charge, key=f"{order_id}:charge")
        step("mail", lambda: self.calls.append("mail"), key=f"{order_id}:mail")
        if self.broken:
            raise ValueError("The printer is on fire.")
        return "done"

    def _charge(self) -> None:
        self.calls.append("charge")
        assert self.gate.wait(PATIENCE)


@pytest.fixture
def checkout(valkey: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkout]:
    """The only workflow, with its steps on a server; nothing is sent to a broker."""
    settings.STEPFLOWS = {"CACHE": "django_redis"}
    monkeypatch.setattr(registry, "_workflows", {})
    checkout = Checkout()
    workflow("checkout")(checkout.body)
    with withheld(lambda run: None):
        yield checkout
    checkout.gate.set()


@pytest.fixture
def work() -> Iterator[Callable[[Run], Future[bool]]]:
    """Performs a run in another thread, as a worker does, and is waited for."""

    def performed(run: Run) -> bool:
        try:
            return perform(run.pk, "celery@one")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        done: list[Future[bool]] = []

        def work(run: Run) -> Future[bool]:
            done.append(pool.submit(performed, run))
            return done[-1]

        yield work
        assert all(each.result(PATIENCE) for each in done)


@pytest.fixture
def boss() -> Client:
    """Somebody who may do everything, logged in."""
    client = Client()
    client.force_login(User.objects.create_superuser("boss", password="secret"))
    return client


def _state(window: Page) -> Locator:
    return window.locator("#stepflows-facts .stepflows-state")


def _bars(window: Page, outcome: str) -> Locator:
    return window.locator(f"#stepflows-canvas-step .bar.{outcome}")


def test_a_run_is_watched_until_it_is_finished(checkout: Checkout, boss: Client, play: Play, work: Any):
    """Its bars come and change by themselves, and whoever is looking keeps the focus and what they have unfolded."""
    run = a_run(history=[{"worker": "celery@none", "reason": "lost", "steps": [a_step()]}])

    def scenario(window: Page) -> None:
        window.goto(page("run_change", run.pk))
        expect(_state(window)).to_have_text("queued")
        work(run)
        expect(_bars(window, "running")).to_have_count(1)
        expect(_bars(window, "executed")).to_have_count(1)
        expect(_state(window)).to_have_text("running")
        window.locator("summary").click()
        window.get_by_role("link", name=re.compile("^load, 7:load, executed")).focus()
        checkout.gate.set()
        expect(_state(window)).to_have_text("succeeded")
        expect(_bars(window, "executed")).to_have_count(3)
        expect(_bars(window, "running")).to_have_count(0)
        expect(window.get_by_role("status")).to_have_text("The run is succeeded.")
        expect(window.get_by_role("link", name=re.compile("^load, 7:load, executed"))).to_be_focused()
        expect(window.locator("details")).to_have_attribute("open", "")
        expect(window.get_by_text("'done'")).to_be_visible()
        expect(window.get_by_role("button", name="Cancel")).to_have_count(0)

    play(scenario, boss)


def test_a_run_is_watched_without_javascript(checkout: Checkout, boss: Client, play: Play, work: Any):
    """By a link that is there for it."""
    checkout.gate.set()
    run = a_run()

    def scenario(window: Page) -> None:
        window.goto(page("run_change", run.pk))
        expect(_state(window)).to_have_text("queued")
        assert work(run).result(PATIENCE)
        window.get_by_role("link", name="Refresh").click()
        expect(_state(window)).to_have_text("succeeded")
        expect(_bars(window, "executed")).to_have_count(3)
        expect(window.get_by_role("link", name="Refresh")).to_have_count(0)

    play(scenario, boss, java_script_enabled=False)


def test_a_page_whose_session_has_ended_stays_as_it_is(checkout: Checkout, boss: Client, play: Play):
    """It is not replaced by the form to log in, and asks no more."""
    run = a_run()
    asked: list[str] = []

    def scenario(window: Page) -> None:
        window.clock.install()
        window.goto(page("run_change", run.pk))
        window.context.clear_cookies()
        with window.expect_response(re.compile("/login/")):
            window.clock.run_for(2_000)
        window.on("request", lambda request: asked.append(request.url))
        # Long enough for whoever would ask again.
        window.wait_for_function("document.readyState == 'complete'")
        for _ in range(10):
            window.clock.run_for(10_000)
        expect(_state(window)).to_have_text("queued")

    play(scenario, boss)
    assert asked == []


def test_a_failed_run_is_resumed(checkout: Checkout, boss: Client, play: Play, work: Any):
    """From its page, and the page follows it to the end."""
    checkout.gate.set()
    checkout.broken = True
    run = a_run()
    assert work(run).result(PATIENCE)

    def scenario(window: Page) -> None:
        window.goto(page("run_changelist"))
        window.locator("#changelist-filter").get_by_role("link", name="failed").click()
        window.get_by_role("link", name=str(run.pk)[:8]).click()
        expect(window.get_by_text("The printer is on fire.")).to_be_visible()
        checkout.broken = False
        window.get_by_role("button", name="Resume").click()
        expect(window.locator(".messagelist .success")).to_have_text("1 run was resumed.")
        expect(_state(window)).to_have_text("queued")
        work(run)
        expect(_state(window)).to_have_text("succeeded")
        expect(_bars(window, "cached")).to_have_count(3)
        expect(window.get_by_role("heading", name="Earlier attempts")).to_be_visible()

    play(scenario, boss)
    assert checkout.calls == ["load", "charge", "mail"]


def test_selected_runs_are_cancelled(checkout: Checkout, boss: Client, play: Play):
    """From the list, which says how many."""
    runs = [a_run(state=state) for state in ("queued", "running", "succeeded")]

    def scenario(window: Page) -> None:
        window.goto(page("run_changelist"))
        window.locator("#action-toggle").check()
        window.get_by_label("Action:").select_option("Cancel selected runs")
        window.get_by_role("button", name="Go").click()
        expect(window.locator(".messagelist .success")).to_have_text("2 runs were cancelled.")
        expect(window.locator(".messagelist .warning")).to_have_text(
            "1 run was not cancelled: it was finished already."
        )

    play(scenario, boss)
    assert [Run.objects.get(pk=run.pk).state for run in runs] == ["cancelled", "cancelled", "succeeded"]


def test_a_run_runs_again_from_a_step(checkout: Checkout, boss: Client, play: Play, work: Any):
    """After a page that lists what is removed; taking it back removes nothing."""
    checkout.gate.set()
    run = a_run()
    assert work(run).result(PATIENCE)

    def scenario(window: Page) -> None:
        window.goto(page("run_change", run.pk))
        window.get_by_role("link", name="Run again from 7:charge").click()
        expect(window.locator(".stepflows-removed li")).to_have_text(["7:charge charge", "7:mail mail"])
        window.get_by_role("link", name="No, take me back").click()
        expect(_bars(window, "executed")).to_have_count(3)
        window.get_by_role("link", name="Run again from 7:charge").click()
        window.get_by_role("button", name=SURE).click()
        expect(window.locator(".messagelist .success")).to_contain_text("2 steps run again")
        work(run)
        expect(_state(window)).to_have_text("succeeded")
        expect(_bars(window, "cached")).to_have_count(1)
        expect(_bars(window, "executed")).to_have_count(2)

    play(scenario, boss)
    assert checkout.calls == ["load", "charge", "mail", "charge", "mail"]
    assert len(keys("django_redis", "checkout")) == 3


def test_a_bar_leads_to_its_cached_step_by_keyboard(checkout: Checkout, boss: Client, play: Play, work: Any):
    """And which one has the focus can be seen."""
    checkout.gate.set()
    run = a_run()
    assert work(run).result(PATIENCE)

    def scenario(window: Page) -> None:
        window.goto(page("run_change", run.pk))
        window.locator("#stepflows-canvas-step").focus()
        window.keyboard.press("Tab")
        window.keyboard.press("Tab")
        link = window.get_by_role("link", name=re.compile("^charge, 7:charge, executed"))
        expect(link).to_be_focused()
        assert link.locator("rect").evaluate("bar => getComputedStyle(bar).strokeWidth") == "3px"
        window.keyboard.press("Enter")
        expect(window.get_by_role("heading", name="checkout 7:charge")).to_be_visible()

    play(scenario, boss)


def test_a_place_in_the_whole_leads_to_its_row(checkout: Checkout, boss: Client, play: Play):
    """Where there are too many to be seen at once."""
    steps = [a_step(key=f"order:{number}", offset=number, label=f"step {number}") for number in range(300)]
    run = a_run(state="succeeded", steps=steps)

    def scenario(window: Page) -> None:
        window.goto(page("run_change", run.pk))
        row = window.locator("#stepflows-step-299")
        expect(row).not_to_be_in_viewport()
        window.locator(".stepflows-glance a").last.click()
        expect(row).to_be_in_viewport()

    play(scenario, boss)


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_of_runs_is_accessible(look: str, checkout: Checkout, boss: Client, play: Play):
    """Light, dark and narrow, with few steps and many, ordinary and hostile; nothing is wider than the window."""
    outcomes = ["executed", "cached", "waited", "error", "replayed_error", "running", "surprise"]
    each = [a_step(outcome, key=f"order:{outcome}", offset=at) for at, outcome in enumerate(outcomes)]
    many = [a_step(key=f"order:{number}", offset=number) for number in range(300)]
    hostile = ["<script>alert(1)</script>", "\u202eشىء", "x" * 200, "y" * 10_000]
    odd = [a_step(label=text, key=text, offset=at * 1e9, duration=1e9) for at, text in enumerate(hostile)]
    failure = {"outcome": dumps(Err(ValueError("no " * 50))), "failed_step": ["charge", "order:7", True]}
    runs = [
        a_run(state="queued", summary="order_id=7"),
        a_run(state="running", started_at=timezone.now(), steps=each),
        a_run(state="succeeded", outcome=dumps(Ok(1)), steps=many),
        a_run(state="failed", steps=each, history=[{"reason": "failed", "steps": each}], **failure),
        a_run("x" * 200, state="failed", summary="y" * 1000, steps=odd, **failure),
        a_run(state="cancelled", steps=odd),
    ]
    urls = [page("run_changelist"), *(page("run_change", run.pk) for run in runs)]
    urls += [f"{page('run_again', runs[at].pk)}?key={key}" for at, key in ((2, "order:3"), (5, "x" * 200))]

    def scenario(window: Page) -> None:
        # Nothing is to be replaced while it is being looked at.
        window.route("**/live/", lambda route: route.fulfill(status=204))
        for url in urls:
            answer = window.goto(url)
            assert answer is not None
            assert answer.status == 200
            for summary in window.locator("details:not([open]) > summary").all():
                summary.click()
            assert_accessible(window)
            assert_fits(window)

    play(scenario, boss, **WITH_AXE, **LOOKS[look])
