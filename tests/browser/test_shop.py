"""The example shop in a real browser, with site, worker and cache server as ``manage.py serve`` has them."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from project import services
from project.payment_service import Answer, Server, Till
from tests.browser.conftest import Chromium, assert_accessible, assert_fits

pytestmark = [pytest.mark.browser, pytest.mark.worker]

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 390, "height": 844}},
}
STEPS = ["load order", "quote shipping", "reserve stock", "charge card", "mark paid", "send receipt"]

#: Those that can be checked out: nothing is sold out, and the card is good.
PAYABLE = """
    SELECT shop_order.id FROM shop_order JOIN shop_customer ON customer_id = shop_customer.id
    WHERE card NOT LIKE '%0002' AND shop_order.id NOT IN (
        SELECT order_id FROM shop_orderline JOIN shop_product ON product_id = shop_product.id WHERE stock < quantity
    )
"""
#: Milliseconds that a busy machine may need to get on, and what Playwright would grant it.
PATIENCE, USUAL = 60_000, 5_000


@dataclass
class Bank(Till):
    """A payment service that charges cards when it is told to, and declines them when it is told to."""

    open: threading.Event = field(default_factory=threading.Event)
    declines: bool = False

    def charge(self, asked: dict[str, Any], key: str | None) -> Answer:
        self.open.wait(60)
        if self.declines:
            return HTTPStatus.PAYMENT_REQUIRED, {"error": "CARD_DECLINED", "message": "The bank said no."}
        return super().charge(asked, key)


@dataclass
class Shop:
    url: str
    folder: Path
    environment: dict[str, str]
    bank: Bank
    orders: Iterator[int]

    def order_page(self) -> str:
        """Of an order that nobody else has."""
        return f"/orders/{next(self.orders)}/"

    def worker(self) -> Any:
        return services.worker(self.folder, self.environment)


@contextmanager
def started_shop(folder: Path) -> Iterator[Shop]:
    """All but the worker."""
    with services.valkey(folder / "valkey") as redis_url, Server() as payments:
        payments.till = bank = Bank()
        threading.Thread(target=payments.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        environment = {
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "SHOP_FOLDER": str(folder),
            "REDIS_URL": redis_url,
            "PAYMENT_URL": payments.url,
        }
        assert services.manage(environment, "make_shop", "--orders", "60") == 0
        with sqlite3.connect(folder / "shop.sqlite3") as database:
            orders = iter([row[0] for row in database.execute(PAYABLE)])
        port = services.free_port()
        with services.site(folder, environment, port):
            yield Shop(f"http://127.0.0.1:{port}", folder, environment, bank, orders)
            bank.open.set()
        payments.shutdown()


@pytest.fixture(scope="module")
def idle_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop without a worker."""
    with started_shop(tmp_path_factory.mktemp("idle")) as shop:
        yield shop


@pytest.fixture(scope="module")
def busy_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with started_shop(tmp_path_factory.mktemp("busy")) as shop, shop.worker():
        yield shop


@pytest.fixture
def shop(busy_shop: Shop) -> Shop:
    """A shop with a worker, whose bank is open and says yes."""
    busy_shop.bank.declines = False
    busy_shop.bank.open.set()
    return busy_shop


@pytest.fixture
def visit(_chromium: Chromium) -> Iterator[Callable[..., Any]]:
    """Play a scenario in a shop: ``visit(shop, scenario)``."""
    expect.set_options(timeout=PATIENCE)
    yield lambda shop, scenario, **look: _chromium.play(shop.url, scenario, **look)
    expect.set_options(timeout=USUAL)


def check_out(page: Page, order_page: str) -> None:
    page.goto(order_page)
    page.get_by_role("button", name="Check out").click()
    page.wait_for_url("**/runs/**")


def headline(page: Page) -> Locator:
    return page.get_by_role("status").locator(".headline")


def expect_steps(page: Page, *outcomes: str) -> None:
    """The six steps with what is said of each."""
    lines = page.get_by_role("listitem")
    expect(lines).to_have_count(len(STEPS))
    for place, (label, outcome) in enumerate(zip(STEPS, outcomes, strict=True)):
        expect(lines.nth(place)).to_contain_text(label)
        expect(lines.nth(place)).to_contain_text(outcome)


def test_a_checkout_is_seen_step_by_step(shop: Shop, visit: Callable[..., Any]):
    """While the bank thinks, what is done is marked; then the rest, in the same page, which asks no more at the end."""

    def scenario(page: Page) -> None:
        page.clock.install()
        shop.bank.open.clear()
        check_out(page, shop.order_page())
        page.evaluate("window.neverLeft = true")
        expect_steps(page, "done in", "done in", "done in", "running", "to come", "to come")
        expect(headline(page)).to_have_text("Running")
        expect(page.get_by_role("button")).to_have_text(["Cancel"])
        shop.bank.open.set()
        expect(headline(page)).to_contain_text("€ charged")
        expect_steps(page, *["done in"] * 6)
        expect(page.get_by_role("button")).to_have_text(["Check out again"])
        assert page.evaluate("window.neverLeft")
        page.evaluate("() => { window.asked = 0; window.fetch = async () => { window.asked++; } }")
        page.clock.fast_forward(60_000)
        assert page.evaluate("window.asked") == 0

    visit(shop, scenario)


def test_a_second_checkout_comes_from_the_cache(shop: Shop, visit: Callable[..., Any]):
    """Nothing is done again, and the page says so."""

    def scenario(page: Page) -> None:
        check_out(page, shop.order_page())
        page.get_by_role("button", name="Check out again").click()
        expect_steps(page, *["from the cache"] * 6)

    visit(shop, scenario)


def test_a_failed_checkout_is_tried_again(shop: Shop, visit: Callable[..., Any]):
    """The error is shown; resuming replays it, trying again does what failed and what comes after."""

    def scenario(page: Page) -> None:
        shop.bank.declines = True
        check_out(page, shop.order_page())
        expect(headline(page)).to_have_text("Failed: CARD_DECLINED (The bank said no.)")
        expect_steps(page, "done in", "done in", "done in", "failed after", "not reached", "not reached")
        shop.bank.declines = False
        page.get_by_role("button", name="Resume").click()
        expect_steps(page, *["from the cache"] * 4, "not reached", "not reached")
        page.get_by_role("button", name="Try again").click()
        expect(headline(page)).to_contain_text("€ charged")
        expect_steps(page, *["from the cache"] * 3, *["done in"] * 3)

    visit(shop, scenario)


def test_a_running_checkout_is_cancelled_and_resumed(shop: Shop, visit: Callable[..., Any]):
    """By keyboard."""

    def scenario(page: Page) -> None:
        shop.bank.open.clear()
        check_out(page, shop.order_page())
        expect_steps(page, "done in", "done in", "done in", "running", "to come", "to come")
        page.get_by_role("button", name="Cancel").focus()
        page.keyboard.press("Enter")
        expect(headline(page)).to_have_text("Cancelled")
        expect(page.get_by_role("button")).to_have_text(["Try again", "Resume"])
        shop.bank.open.set()
        page.get_by_role("button", name="Resume").focus()
        page.keyboard.press("Enter")
        expect(headline(page)).to_contain_text("€ charged")

    visit(shop, scenario)


def test_the_focus_is_not_lost_with_its_button(shop: Shop, visit: Callable[..., Any]):
    """Whoever is on a button when it goes away stays at the progress."""

    def scenario(page: Page) -> None:
        shop.bank.open.clear()
        check_out(page, shop.order_page())
        page.get_by_role("button", name="Cancel").focus()
        shop.bank.open.set()
        expect(headline(page)).to_contain_text("€ charged")
        expect(page.get_by_role("region", name="Progress")).to_be_focused()

    visit(shop, scenario)


def test_a_checkout_that_no_worker_takes_says_so(idle_shop: Shop, visit: Callable[..., Any]):
    """After a few seconds, and until a worker comes."""
    hint = "No worker has taken it so far."

    def scenario(page: Page) -> None:
        check_out(page, idle_shop.order_page())
        expect(headline(page)).to_have_text("Waiting for a worker")
        expect_steps(page, *["to come"] * 6)
        expect(page.get_by_text(hint)).to_be_visible()
        idle_shop.bank.open.set()
        with idle_shop.worker():
            expect(headline(page)).to_contain_text("€ charged")
        expect(page.get_by_text(hint)).to_be_hidden()

    visit(idle_shop, scenario)


def test_a_page_that_cannot_reach_the_site_goes_on_trying(shop: Shop, visit: Callable[..., Any]):
    """It says so while that lasts. That requests fail is what the browser notes, and nothing more."""
    ends: list[str] = []

    def scenario(page: Page) -> None:
        page.route("**/status/", lambda route: route.abort())
        check_out(page, shop.order_page())
        lost = page.get_by_text("The site cannot be reached.")
        expect(lost).to_be_visible()
        page.unroute("**/status/")
        expect(headline(page)).to_contain_text("€ charged")
        expect(lost).to_be_hidden()
        ends.append("well")

    with pytest.raises(AssertionError, match="ERR_FAILED"):
        visit(shop, scenario)
    assert ends == ["well"]


def test_a_checkout_can_be_followed_without_scripts(shop: Shop, visit: Callable[..., Any]):
    """The page loads itself again until the run is finished, and the buttons are there."""

    def scenario(page: Page) -> None:
        shop.bank.open.clear()
        check_out(page, shop.order_page())
        expect_steps(page, "done in", "done in", "done in", "running", "to come", "to come")
        expect(page.locator("noscript p")).to_have_text("This page loads itself again every two seconds.")
        expect(page.get_by_role("button")).to_have_text(["Cancel"])
        shop.bank.open.set()
        expect(headline(page)).to_contain_text("€ charged")
        expect(page.locator("noscript")).to_have_count(0)

    visit(shop, scenario, java_script_enabled=False)


def test_shipping_quotes_come_from_the_cache_the_second_time(shop: Shop, visit: Callable[..., Any]):
    """One for each country, asked for by the page itself."""

    def scenario(page: Page) -> None:
        page.goto(shop.order_page())
        page.get_by_role("link", name="What would shipping cost?").click()
        expect(page.get_by_role("cell", name="asked for just now")).to_have_count(7)
        page.reload()
        expect(page.get_by_role("cell", name="from the cache")).to_have_count(7)

    visit(shop, scenario)


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_is_accessible(look: str, shop: Shop, visit: Callable[..., Any]):
    """Light, dark and narrow, in each state of a checkout; nothing is wider than a narrow window."""

    def fine(page: Page) -> None:
        assert_accessible(page)
        assert_fits(page)

    def scenario(page: Page) -> None:
        order = shop.order_page()
        for address in ("/", "/orders/", order, f"{order}shipping/"):
            page.goto(address)
            fine(page)
        shop.bank.open.clear()
        shop.bank.declines = True
        check_out(page, order)
        expect_steps(page, "done in", "done in", "done in", "running", "to come", "to come")
        fine(page)
        shop.bank.open.set()
        expect(headline(page)).to_contain_text("Failed")
        fine(page)
        shop.bank.declines = False
        page.get_by_role("button", name="Try again").click()
        expect(headline(page)).to_contain_text("€ charged")
        fine(page)
        page.goto(order)
        fine(page)

    # The checker of accessibility writes styles into the page, which the policy would forbid.
    visit(shop, scenario, bypass_csp=True, **LOOKS[look])
