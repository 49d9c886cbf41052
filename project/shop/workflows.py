"""The shop's workflows. Run them as often as you like: a step that is done is not done again."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
from django.db import transaction

from project.shop import orders, payments
from project.shop.models import Order
from stepflows import Retry, workflow
from stepflows.models import Run

deps = {
    "load": orders.load,
    "quote_shipping": payments.quote_shipping,
    "reserve_stock": orders.reserve_stock,
    "charge": payments.charge,
    "mark_paid": orders.mark_paid,
    "send_receipt": orders.send_receipt,
}

#: The labels of the checkout's steps, for those who want to show what is to come.
CHECKOUT_STEPS = ("load order", "quote shipping", "reserve stock", "charge card", "mark paid", "send receipt")

#: For when the payment service cannot be reached. A charge may be tried again, because it has an idempotency key.
patiently = Retry(attempts=6, on=httpx.TransportError)


@workflow("checkout", deps=deps)
def checkout(step: Any, deps: Any, order_id: int) -> payments.Charge:
    """From an open order to a paid one, with a receipt in the mail."""
    order = f"order:{order_id}"

    basket = step("load order", lambda: deps.load(order_id), key=f"{order}:basket")
    shipping = step(
        "quote shipping",
        lambda: deps.quote_shipping(basket.country, basket.weight),
        key=f"{order}:shipping",
        retry=patiently,
    )
    step("reserve stock", lambda: deps.reserve_stock(basket), key=f"{order}:stock")
    charge: payments.Charge = step(
        "charge card",
        lambda: deps.charge(basket.card, basket.total + shipping),
        key=f"{order}:charge",
        retry=patiently,
    )
    step("mark paid", lambda: deps.mark_paid(order_id), key=f"{order}:paid")
    step("send receipt", lambda: deps.send_receipt(basket, shipping, charge), key=f"{order}:receipt")
    return charge


def start_checkout(order: Order) -> Run:
    """Check the order out on a worker. The order remembers its latest run."""
    with transaction.atomic():
        order.run = checkout.delay(order_id=order.pk)
        order.save(update_fields=["run"])
    return order.run


#: Where the shop could ship to.
COUNTRIES = {
    "DE": "Germany",
    "DK": "Denmark",
    "FI": "Finland",
    "IS": "Iceland",
    "NL": "Netherlands",
    "NO": "Norway",
    "SE": "Sweden",
}


@workflow("shipping quotes", deps={"quote_shipping": payments.aquote_shipping})
async def shipping_quotes(step: Any, deps: Any, weight: int) -> dict[str, Decimal]:
    """What it costs to ship so many grams to each country. All are asked for at the same time, and kept for a while."""
    async with payments.aservice() as service:
        prices = await step.map(
            "quote shipping",
            COUNTRIES,
            lambda country: deps.quote_shipping(service, country, weight),
            key=lambda country: quote_key(country, weight),
            ttl=timedelta(minutes=1),
            cache_errors=False,
        )
    return dict(zip(COUNTRIES, prices, strict=True))


def quote_key(country: str, weight: int) -> str:
    return f"{country}:{weight}"
