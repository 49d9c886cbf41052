"""Tests of the shop, and an example of how to test a workflow: ``manage.py test project``."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core import mail
from django.test import TestCase, override_settings

from project import services
from project.payment_service import Server
from project.shop import payments
from project.shop.factories import CustomerFactory, OrderFactory, OrderLineFactory, ProductFactory, make_shop
from project.shop.models import Customer, Order, OrderLine, Product
from project.shop.passes import DECLINED, PAID, SOLD_OUT, complaints, expected_end, expected_passes
from project.shop.payments import Charge
from project.shop.progress import ACTIONS, WORDS, Progress
from project.shop.workflows import CHECKOUT_STEPS, COUNTRIES, checkout, shipping_quotes
from stepflows import Err, Event, Ok, dumps
from stepflows.models import Run
from stepflows.testing import assert_steps, runs_in_place


def place_order(card: str = "tok_4242", stock: int = 5) -> Order:
    """Two lamps at 10 euros each, for Norway."""
    order = OrderFactory.create(customer=CustomerFactory.create(card=card, country="NO"))
    lamp = ProductFactory.create(name="Oak lamp", price=Decimal(10), weight=500, stock=stock)
    OrderLineFactory.create(order=order, quantity=2, product=lamp)
    return order


def serve_payments(case: TestCase) -> None:
    """A payment service for one test."""
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    case.addCleanup(server.server_close)
    case.addCleanup(server.shutdown)
    case.enterContext(override_settings(PAYMENT_URL=server.url))


def serve_cache(case: TestCase) -> None:
    """A cache server for one test."""
    folder = case.enterContext(tempfile.TemporaryDirectory())
    url = case.enterContext(services.valkey(Path(folder)))
    case.enterContext(override_settings(CACHES={"default": {**settings.CACHES["default"], "LOCATION": url}}))


class FactoriesTests(TestCase):
    def shop(self) -> list[list[Any]]:
        """Everything in a new shop but the numbers of its rows."""
        OrderLine.objects.all().delete()
        Order.objects.all().delete()
        Customer.objects.all().delete()
        Product.objects.all().delete()
        make_shop(orders=40, customers=20, products=40)
        return [
            list(Customer.objects.order_by("pk").values_list("name", "email", "country", "card")),
            list(Product.objects.order_by("pk").values_list("name", "price", "weight", "stock")),
            list(Order.objects.order_by("pk").values_list("customer__email", "placed_at", "state")),
            list(OrderLine.objects.order_by("pk").values_list("order__placed_at", "product__name", "quantity")),
        ]

    def test_the_shop_is_the_same_every_time(self) -> None:
        """The seed decides names, prices, dates and who bought what."""
        self.assertEqual(self.shop(), self.shop())

    def test_there_is_something_of_everything(self) -> None:
        """A shop has a card that is declined and a product that is sold out."""
        make_shop(orders=40, customers=20, products=40)

        self.assertTrue(Customer.objects.filter(card__endswith="0002").exists())
        self.assertTrue(Product.objects.filter(stock=0).exists())


class CheckoutWithFakesTests(TestCase):
    """The workflow alone: no cache server, no payment service, no database."""

    def setUp(self) -> None:
        self.called: list[str] = []
        self.failures: list[Exception] = []
        basket = type("Basket", (), {"country": "NO", "weight": 1000, "card": "tok_4242", "total": Decimal(20)})
        self.answers: dict[str, Any] = {
            "load": basket,
            "quote_shipping": Decimal(10),
            "reserve_stock": None,
            "charge": Charge("ch_1", Decimal(30)),
            "mark_paid": None,
            "send_receipt": None,
        }
        self.workflow = checkout.using(cache={}, deps={name: self.fake(name) for name in self.answers})

    def fake(self, name: str) -> Any:
        def function(*_: Any) -> Any:
            self.called.append(name)
            if name == "quote_shipping" and self.failures:
                raise self.failures.pop()
            return self.answers[name]

        return function

    def test_steps_are_taken_in_order(self) -> None:
        """Goods are reserved before the card is charged, and the receipt comes last."""
        result = self.workflow.run(order_id=7)

        self.assertEqual(result, Ok(Charge("ch_1", Decimal(30))))
        self.assertEqual(self.called, list(self.answers))

    def test_the_steps_are_those_that_the_progress_page_announces(self) -> None:
        """Under these labels, in this order."""
        events: list[Event] = []

        self.workflow.using(on_event=events.append).run(order_id=7)

        self.assertEqual([event.label for event in events if event.type == "step_success"], list(CHECKOUT_STEPS))

    def test_a_declined_card_ends_the_checkout(self) -> None:
        """What comes after the charge is not done, then or later."""
        self.answers["charge"] = Err("CARD_DECLINED")

        results = [self.workflow.run(order_id=7), self.workflow.run(order_id=7)]

        self.assertEqual(results, [Err("CARD_DECLINED"), Err("CARD_DECLINED")])
        self.assertEqual(self.called, ["load", "quote_shipping", "reserve_stock", "charge"])

    def test_a_service_that_cannot_be_reached_is_asked_again(self) -> None:
        """The step is tried again, and the steps before it are not."""
        self.failures = [httpx.ConnectError("refused")]

        result = self.workflow.run(order_id=7)

        self.assertTrue(result.ok)
        self.assertEqual(self.called.count("quote_shipping"), 2)
        self.assertEqual(self.called.count("load"), 1)

    def test_another_card_is_tried_once_the_key_is_cleared(self) -> None:
        """Clearing the key of the charge runs that step again, and what it had kept back."""
        self.answers["charge"] = Err("CARD_DECLINED")
        self.workflow.run(order_id=7)
        self.answers["charge"] = Charge("ch_2", Decimal(30))
        self.called.clear()

        del self.workflow.cache["order:7:charge"]
        result = self.workflow.run(order_id=7)

        self.assertTrue(result.ok)
        self.assertEqual(self.called, ["charge", "mark_paid", "send_receipt"])


class CheckoutTests(TestCase):
    """The workflow with all it needs, asked over HTTP; here with a dict for a cache."""

    cache: Any

    def setUp(self) -> None:
        serve_payments(self)
        self.workflow = checkout.using(cache={})

    def test_an_order_is_paid_once(self) -> None:
        """Two runs: one charge, one e-mail, one reservation, and equal results."""
        order = place_order()

        first, again = self.workflow.run(order_id=order.pk), self.workflow.run(order_id=order.pk)

        self.assertEqual(first.unwrap().amount, Decimal("31.40"))
        self.assertEqual(first, again)
        self.assertEqual(payments.stats(), payments.Stats(quotes=1, charge_requests=1, cards_charged=1, declined=0))
        order.refresh_from_db()
        self.assertEqual(order.state, Order.State.PAID)
        self.assertEqual(Product.objects.get().stock, 3)
        self.assertEqual([message.subject for message in mail.outbox], [f"Your order {order.pk}"])
        self.assertIn("2 x Oak lamp at 10.00 EUR", str(mail.outbox[0].body))

    def test_a_declined_card_is_asked_once(self) -> None:
        """The refusal is kept; the goods stay reserved."""
        order = place_order(card="tok_0002")

        results = [self.workflow.run(order_id=order.pk) for _ in range(2)]

        self.assertEqual(results, [Err("CARD_DECLINED", cause="The bank said no.")] * 2)
        self.assertEqual(payments.stats().charge_requests, 1)
        order.refresh_from_db()
        self.assertEqual(order.state, Order.State.RESERVED)

    def test_nothing_is_charged_for_what_is_sold_out(self) -> None:
        """The checkout ends before the card is asked, and takes nothing off the shelf."""
        order = place_order(stock=1)

        result = self.workflow.run(order_id=order.pk)

        self.assertEqual(result, Err("OUT_OF_STOCK", cause="Oak lamp"))
        self.assertEqual(payments.stats().charge_requests, 0)
        order.refresh_from_db()
        self.assertEqual((order.state, Product.objects.get().stock), (Order.State.OPEN, 1))


class CheckoutOnRedisTests(CheckoutTests):
    """The same with django-redis and a real server."""

    def setUp(self) -> None:
        super().setUp()
        serve_cache(self)
        self.workflow = checkout


class PassesTests(TestCase):
    """The judgement at the end of the demo."""

    good = expected_passes(Counter({PAID: 10, DECLINED: 2, SOLD_OUT: 1}))

    def test_numbers_that_hold_are_not_complained_about(self) -> None:
        """What is expected is fine, however long it took."""
        self.assertEqual(list(complaints([replace(one, seconds=9.0) for one in self.good], self.good)), [])

    def test_a_second_charge_is_complained_about(self) -> None:
        """A number that does not hold is named with what it must be."""
        first, again, cleared = self.good

        wrong = list(complaints([first, replace(again, cards_charged=1), cleared], self.good))

        self.assertEqual(wrong, ["Pass 2, cards charged: 1, where it must be 0."])

    def test_an_unexpected_error_is_shown(self) -> None:
        """A checkout that fails in a way that no checkout should is named."""
        first, again, cleared = self.good

        wrong = list(complaints([replace(first, surprises=("ValueError('odd')",)), again, cleared], self.good))

        self.assertEqual(wrong, ["Pass 1: a checkout failed with ValueError('odd')."])

    def test_the_end_of_a_checkout_can_be_told_beforehand(self) -> None:
        """By the stock first, because the card is not asked for what is sold out."""
        orders = place_order(), place_order(card="tok_0002"), place_order(card="tok_0002", stock=1)

        self.assertEqual([expected_end(order) for order in orders], [PAID, DECLINED, SOLD_OUT])


class PagesTests(TestCase):
    def test_the_home_page_says_where_to_look(self) -> None:
        """It links to the orders, to the quotes for one of them, and to the admin."""
        order = place_order()

        page = self.client.get("/")

        for address in ("/orders/", f"/orders/{order.pk}/shipping/", "/admin/"):
            self.assertContains(page, f'href="{address}"')

    def test_a_shop_without_orders_has_a_home_page(self) -> None:
        """It has nothing to ship."""
        self.assertNotContains(self.client.get("/"), "Shipping")

    def test_orders_come_in_pages(self) -> None:
        """Newest first, 25 a page, with their state."""
        make_shop(orders=30, customers=5, products=5)

        newest = Order.objects.latest("placed_at")
        self.assertContains(self.client.get("/orders/"), newest.get_absolute_url())
        self.assertContains(self.client.get("/orders/?page=2"), "Page 2 of 2")

    def test_the_button_starts_a_checkout(self) -> None:
        """A POST makes a run of the checkout and leads to its progress; the order's page and the list link to it."""
        order = place_order()

        with runs_in_place() as runs:
            answer = self.client.post(f"/orders/{order.pk}/checkout/")
            self.assertEqual(runs[0].state, "queued")
            self.assertRedirects(answer, f"/runs/{runs[0].pk}/")
            for page in (f"/orders/{order.pk}/", "/orders/"):
                self.assertContains(self.client.get(page), f'href="/runs/{runs[0].pk}/"')
            runs[0].cancel()

    def test_a_checkout_cannot_be_started_by_a_link(self) -> None:
        """GET changes nothing."""
        order = place_order()

        self.assertEqual(self.client.get(f"/orders/{order.pk}/checkout/").status_code, 405)


def run_of_checkout(state: str, order: Order | None = None, **fields: Any) -> Run:
    """The row of a run, without the run."""
    arguments = dumps(Ok(((), {"order_id": order.pk if order else 7})))
    return Run.objects.create(workflow="checkout", arguments=arguments, state=state, **fields)


def step_of_run(label: str, outcome: str, duration: float = 0.5) -> dict[str, Any]:
    return {"label": label, "key": "some:key", "outcome": outcome, "offset": 0.0, "duration": duration, "attempt": 1}


class ProgressTests(TestCase):
    """What is said of a run in each of its states."""

    def outcomes(self, run: Run) -> list[str]:
        steps = Progress(run).steps
        self.assertEqual([step["label"] for step in steps], list(CHECKOUT_STEPS))
        return [step["outcome"] for step in steps]

    def test_a_queued_run_has_everything_before_it(self) -> None:
        """All steps are announced."""
        run = run_of_checkout("queued")

        self.assertEqual(self.outcomes(run), ["pending"] * 6)
        self.assertEqual(Progress(run).headline, "Waiting for a worker")

    def test_a_running_run_says_where_it_is(self) -> None:
        """The step that is under way is marked, or the next one when the row names none."""
        done = [step_of_run("load order", "executed"), step_of_run("quote shipping", "cached")]
        silent = run_of_checkout("running", attempts=2, steps=done)
        telling = run_of_checkout("running", attempts=1, steps=[*done, step_of_run("reserve stock", "running")])

        for run in (silent, telling):
            self.assertEqual(self.outcomes(run), ["executed", "cached", "running", "pending", "pending", "pending"])
        self.assertEqual([Progress(run).headline for run in (silent, telling)], ["Running, attempt 2", "Running"])

    def test_a_failed_run_says_why(self) -> None:
        """With the cause, or the kind of the exception; what comes after was not reached."""
        steps = [step_of_run("load order", "error")]
        refused = run_of_checkout("failed", steps=steps, outcome=dumps(Err("CARD_DECLINED", cause="The bank said no.")))
        broken = run_of_checkout("failed", steps=steps, outcome=dumps(Err(ValueError("odd"))))

        self.assertEqual(self.outcomes(refused), ["error"] + ["skipped"] * 5)
        self.assertEqual(Progress(refused).headline, "Failed: CARD_DECLINED (The bank said no.)")
        self.assertEqual(Progress(broken).headline, "Failed: ValueError: odd")

    def test_a_cancelled_run_has_nothing_under_way(self) -> None:
        """A step that was is not shown as if it still were."""
        run = run_of_checkout("cancelled", steps=[step_of_run("load order", "running")])

        self.assertEqual(self.outcomes(run), ["interrupted"] + ["skipped"] * 5)
        self.assertEqual(Progress(run).headline, "Cancelled")

    def test_there_are_words_for_every_outcome(self) -> None:
        """How long it took is said where it matters, in a unit that fits."""
        steps = [step_of_run(outcome, outcome, duration=0.0123) for outcome in WORDS]
        steps.append(step_of_run("slow", "executed", duration=0.9996))

        said = {step["label"]: step["says"] for step in Progress(run_of_checkout("succeeded", steps=steps)).steps}

        self.assertEqual(said["executed"], "done in 12 ms")
        self.assertEqual(said["slow"], "done in 1.0 s")
        self.assertEqual(said["cached"], "from the cache")
        self.assertEqual(said["waited"], "done by another run, after 12 ms")
        self.assertEqual(said["replayed_error"], "failed before: from the cache")

    def test_each_state_offers_what_can_be_done(self) -> None:
        """The other buttons are on the page too, hidden, for its script to show."""
        for state, actions in ACTIONS.items():
            page = self.client.get(f"/runs/{run_of_checkout(state).pk}/").content.decode()
            for action in ("cancel", "retry", "resume", "again"):
                self.assertEqual(f'data-action="{action}" hidden' in page, action not in actions, (state, action))

    def test_a_page_without_scripts_loads_itself_again_until_the_run_is_finished(self) -> None:
        """Then it stays as it is."""
        running, finished = run_of_checkout("running"), run_of_checkout("succeeded", outcome=dumps(Ok(None)))

        self.assertContains(self.client.get(f"/runs/{running.pk}/"), '<meta http-equiv="refresh" content="2">')
        self.assertNotContains(self.client.get(f"/runs/{finished.pk}/"), "refresh")

    def test_the_status_costs_one_query_and_is_never_cached(self) -> None:
        """It is asked for twice a second."""
        run = run_of_checkout("running")

        with self.assertNumQueries(1):
            answer = self.client.get(f"/runs/{run.pk}/status/")

        self.assertIn("no-store", answer["Cache-Control"])
        self.assertIn("no-store", self.client.get(f"/runs/{run.pk}/")["Cache-Control"])

    def test_a_run_that_is_no_checkout_has_no_page_here(self) -> None:
        """Nor has one that is not there."""
        other = Run.objects.create(workflow="shipping quotes", arguments=dumps(Ok(((), {"weight": 1}))))

        for pk in (other.pk, "00000000-0000-0000-0000-000000000000"):
            for view in ("", "status/"):
                self.assertEqual(self.client.get(f"/runs/{pk}/{view}").status_code, 404)

    def test_nothing_is_changed_by_a_link(self) -> None:
        """Cancel, resume and retry want a POST."""
        run = run_of_checkout("running")

        for change in ("cancel", "resume", "retry"):
            self.assertEqual(self.client.get(f"/runs/{run.pk}/{change}/").status_code, 405)


class CheckoutPagesTests(TestCase):
    """From the button to the end, with a worker's part done in place."""

    def setUp(self) -> None:
        serve_payments(self)
        serve_cache(self)

    def press(self, address: str) -> Run:
        """Post a form, and do here what a worker would. The run that the answer leads to."""
        with runs_in_place():
            answer = self.client.post(address)
        return Run.objects.get(pk=answer["Location"].split("/")[2])

    def status(self, run: Run) -> Any:
        return self.client.get(f"/runs/{run.pk}/status/").json()

    def test_the_status_tells_what_a_program_wants_to_know(self) -> None:
        """State, steps and result, as plain values."""
        order = place_order()

        run = self.press(f"/orders/{order.pk}/checkout/")

        status = self.status(run)
        self.assertEqual((status["id"], status["workflow"]), (str(run.pk), "checkout"))
        self.assertEqual((status["state"], status["finished"], status["attempts"]), ("succeeded", True, 1))
        self.assertEqual((status["result"], status["error"]), ("31.40 € charged (ch_1)", None))
        self.assertEqual([step["outcome"] for step in status["steps"]], ["executed"] * 6)
        charge = status["steps"][3]
        self.assertEqual((charge["label"], charge["key"]), ("charge card", f"order:{order.pk}:charge"))
        self.assertGreaterEqual(charge["offset"], status["steps"][2]["offset"])
        self.assertGreaterEqual(charge["duration"], 0)
        self.assertContains(self.client.get(f"/runs/{run.pk}/"), "Done: 31.40 € charged (ch_1)")

    def test_checking_out_again_does_nothing_twice(self) -> None:
        """The second run has all of it from the cache."""
        order = place_order()
        self.press(f"/orders/{order.pk}/checkout/")

        again = self.press(f"/orders/{order.pk}/checkout/")

        assert_steps(again, cached=list(CHECKOUT_STEPS), executed=[])
        self.assertContains(self.client.get(f"/runs/{again.pk}/"), "from the cache", count=6)
        self.assertEqual(payments.stats().charge_requests, 1)

    def test_a_declined_card_can_be_tried_again(self) -> None:
        """Try again asks the bank once more; resume does not."""
        run = self.press(f"/orders/{place_order(card='tok_0002').pk}/checkout/")
        self.assertEqual(self.status(run)["error"], "CARD_DECLINED (The bank said no.)")

        for change, requests in [("resume", 1), ("retry", 2)]:
            self.press(f"/runs/{run.pk}/{change}/")
            self.assertEqual(self.status(run)["error"], "CARD_DECLINED (The bank said no.)")
            self.assertEqual(payments.stats().charge_requests, requests)

    def test_a_checkout_can_be_cancelled_and_resumed(self) -> None:
        """Cancelling what is cancelled changes nothing."""
        run = run_of_checkout("queued", place_order())

        for _ in range(2):
            self.press(f"/runs/{run.pk}/cancel/")
            self.assertEqual(self.status(run)["state"], "cancelled")
        self.press(f"/runs/{run.pk}/resume/")
        self.assertEqual(self.status(run)["state"], "succeeded")


class ShippingTests(TestCase):
    """A workflow that a view runs itself, on its event loop."""

    def setUp(self) -> None:
        serve_payments(self)
        serve_cache(self)

    async def test_all_quotes_are_asked_for_at_the_same_time(self) -> None:
        """None is answered before the last one is asked."""
        everybody = asyncio.Barrier(len(COUNTRIES))

        async def quote(_: httpx.AsyncClient, country: str, weight: int) -> Decimal:
            await everybody.wait()
            return Decimal(weight)

        result = await shipping_quotes.using(deps={"quote_shipping": quote}).arun(weight=800)

        self.assertEqual(result, Ok(dict.fromkeys(COUNTRIES, Decimal(800))))

    def test_the_page_says_what_it_had_in_the_cache(self) -> None:
        """The first visitor asks the payment service, the second does not."""
        address = f"/orders/{place_order().pk}/shipping/"

        first, second = self.client.get(address), self.client.get(address)

        self.assertContains(first, "11.40 €")
        self.assertContains(first, "asked for just now", count=len(COUNTRIES))
        self.assertNotContains(second, "asked for just now")
        self.assertEqual(payments.stats().quotes, len(COUNTRIES))

    async def test_the_page_is_served_by_an_asgi_server_too(self) -> None:
        """The same view, on the server's own event loop."""
        order = await sync_to_async(place_order)()

        answer = await self.async_client.get(f"/orders/{order.pk}/shipping/")

        self.assertContains(answer, "asked for just now", count=len(COUNTRIES))

    def test_a_service_that_is_down_is_said_and_asked_again(self) -> None:
        """The failure is not kept."""
        address = f"/orders/{place_order().pk}/shipping/"

        with override_settings(PAYMENT_URL=f"http://127.0.0.1:{services.free_port()}"):
            down = self.client.get(address)
        up = self.client.get(address)

        self.assertContains(down, "There are no quotes", status_code=503)
        self.assertContains(up, "asked for just now", count=len(COUNTRIES))

    def test_an_order_that_is_not_there_has_no_quotes(self) -> None:
        """As on its own page."""
        self.assertEqual(self.client.get("/orders/1/shipping/").status_code, 404)
