"""``make screenshots``: the pictures of the README, taken from the example site with all that it needs."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from project import services
from tests.chromium import ARGUMENTS, chromium_path

HERE = Path(__file__).parent
SIZE = {"width": 1440, "height": 860}
#: Milliseconds.
PATIENCE = 60_000
ORDERS = 40
#: Those that are checked out before.
PAID = 30


@contextmanager
def shop() -> Iterator[str]:
    """The shop with some orders that were checked out; its address."""
    with tempfile.TemporaryDirectory() as name, services.surroundings(Path(name), None, pause=0.1) as environment:
        services.manage(environment, "make_shop", "--orders", str(ORDERS))
        port = services.free_port()
        with services.worker(Path(name), environment), services.site(Path(name), environment, port):
            services.manage(environment, "three_passes", "--orders", str(PAID))
            yield f"http://127.0.0.1:{port}"


def sign_in(page: Page) -> None:
    page.goto("/admin/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill("admin")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("/admin/")


def take(page: Page, name: str) -> None:
    file = HERE / f"{name}.png"
    page.screenshot(path=file)
    sys.stdout.write(f"{file}\n")


def pictures(page: Page) -> None:
    """Cached steps, and a run."""
    sign_in(page)
    page.goto("/admin/stepflows/cachedstep/")
    page.locator("details.stepflows-overview").evaluate_all("all => all.forEach(each => each.open = true)")
    take(page, "cached-steps")
    page.goto(f"/orders/{ORDERS}/")
    page.get_by_role("button", name="Check out").click()
    page.locator("#progress[data-state=succeeded], #progress[data-state=failed]").wait_for()
    page.get_by_role("link", name="in the admin").click()
    page.get_by_text("Timeline").first.wait_for()
    take(page, "run")


def main() -> int:
    """0 when all are taken."""
    browser_path = chromium_path()
    if browser_path is None:
        sys.stdout.write("There is no Chromium: install it, or name it in CHROMIUM.\n")
        return 1
    with shop() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        with browser.new_context(base_url=url, viewport=SIZE, device_scale_factor=1.25) as window:
            window.set_default_timeout(PATIENCE)
            pictures(window.new_page())
        browser.close()
    return 0


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    sys.exit(main())
