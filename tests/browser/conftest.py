"""A real Chromium on the pages of a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings as django_settings
from django.test import Client
from playwright.sync_api import Browser, Page, Playwright, Route, sync_playwright
from pytest_django.live_server_helper import LiveServer

from tests.chromium import ARGUMENTS

POLICY = "default-src 'self'"

Scenario = Callable[[Page], Any]


class Chromium:
    """Plays scenarios, each in a fresh window.

    Playwright keeps an event loop running in the thread that uses it, in which Django would refuse to touch the
    database. So it has a thread of its own, and what is prepared and looked up stays in that of the test.
    """

    def __init__(self, executable: str) -> None:
        self._thread = ThreadPoolExecutor(1, "chromium")
        self._playwright: Playwright = self._thread.submit(sync_playwright().start).result()
        self._browser: Browser = self._thread.submit(
            self._playwright.chromium.launch, executable_path=executable, args=ARGUMENTS
        ).result()

    def play(self, url: str, scenario: Scenario, session: str = "", **look: Any) -> Any:
        """Have a scenario drive a window of this ``look``, and return what it returns.

        Fails if the page complains on the console, which includes whatever a strict Content-Security-Policy forbids.
        """
        return self._thread.submit(self._play, url, scenario, session, look).result()

    def stop(self) -> None:
        self._thread.submit(self._browser.close).result()
        self._thread.submit(self._playwright.stop).result()
        self._thread.shutdown()

    def _play(self, url: str, scenario: Scenario, session: str, look: dict[str, Any]) -> Any:
        with self._browser.new_context(base_url=url, **look) as window:
            window.set_default_timeout(20_000)
            window.route("**/*", _with_policy)
            if session:
                window.add_cookies([{"name": django_settings.SESSION_COOKIE_NAME, "value": session, "url": url}])
            page = window.new_page()
            complaints: list[str] = []
            page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            answer = scenario(page)
            assert complaints == []
            return answer


def _with_policy(route: Route) -> None:
    if route.request.url.endswith("/favicon.ico"):
        route.fulfill(status=204)
    elif route.request.resource_type == "document":
        response = route.fetch(max_redirects=0)
        route.fulfill(response=response, headers={**response.headers, "content-security-policy": POLICY})
    else:
        route.continue_()


def assert_accessible(page: Page) -> None:
    """Nobody is shut out: axe finds nothing of level A or AA."""
    levels = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
    found = Axe().run(page, options={"runOnly": levels, "resultTypes": ["violations"]})
    problems = [
        (problem["id"], [node["html"] for node in problem["nodes"]]) for problem in found.response["violations"]
    ]
    assert problems == []


def assert_fits(page: Page) -> None:
    """Nothing is wider than the window."""
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0, f"{page.url} is {width} pixels too wide"


@pytest.fixture(scope="session")
def _chromium(chromium: str) -> Iterator[Chromium]:
    started = Chromium(chromium)
    yield started
    started.stop()


@pytest.fixture
def play(_chromium: Chromium, live_server: LiveServer) -> Callable[..., Any]:
    """Play a scenario on the site: ``play(scenario)``, or ``play(scenario, client)`` as whoever is logged in there."""

    def on_the_site(scenario: Scenario, client: Client | None = None, **look: Any) -> Any:
        session = client.cookies[django_settings.SESSION_COOKIE_NAME].value if client else ""
        return _chromium.play(live_server.url, scenario, session, **look)

    return on_the_site
