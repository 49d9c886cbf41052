"""Tests of the shop, and an example of how to test a workflow: ``manage.py test project``."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
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
from project.shop.workflows import checkout
from stepflows import Err, Ok


def place_order(card: str = "tok_4242", stock: int = 5) -> Order:
    """Two lamps at 10 euros each, for Norway."""
    order = OrderFactory.create(customer=CustomerFactory.create(card=card, country="NO"))
    lamp = ProductFactory.create(name="Oak lamp", price=Decimal(10), weight=500, stock=stock)
    OrderLineFactory.create(order=order, quantity=2, product=lamp)
    return order


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
        server = Server()
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.enterContext(override_settings(PAYMENT_URL=server.url))
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
        folder = self.enterContext(tempfile.TemporaryDirectory())
        url = self.enterContext(services.valkey(Path(folder)))
        self.enterContext(override_settings(CACHES={"default": {**settings.CACHES["default"], "LOCATION": url}}))
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
        """It links to the orders and to the admin."""
        page = self.client.get("/")

        self.assertContains(page, 'href="/orders/"')
        self.assertContains(page, 'href="/admin/"')

    def test_orders_come_in_pages(self) -> None:
        """Newest first, 25 a page, with their state."""
        make_shop(orders=30, customers=5, products=5)

        newest = Order.objects.latest("placed_at")
        self.assertContains(self.client.get("/orders/"), newest.get_absolute_url())
        self.assertContains(self.client.get("/orders/?page=2"), "Page 2 of 2")

    def test_the_button_starts_a_checkout(self) -> None:
        """A POST makes a run of the checkout, and the order's page shows it."""
        order = place_order()

        page = self.client.post(f"/orders/{order.pk}/checkout/", follow=True)

        order.refresh_from_db()
        self.assertEqual(order.run and order.run.state, "queued")
        self.assertContains(page, "Last checkout")

    def test_a_checkout_cannot_be_started_by_a_link(self) -> None:
        """GET changes nothing."""
        order = place_order()

        self.assertEqual(self.client.get(f"/orders/{order.pk}/checkout/").status_code, 405)
