"""What a checkout does to an order in the shop's own database and mailbox."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import F
from django.template.loader import render_to_string

from project.shop.models import Order, Product
from project.shop.payments import Charge
from stepflows import Err


@dataclass(frozen=True)
class Item:
    product_id: int
    name: str
    quantity: int
    price: Decimal
    weight: int


@dataclass(frozen=True)
class Basket:
    """An order as its checkout sees it: plain values, which a cache can keep, and no model instances."""

    order_id: int
    customer: str
    email: str
    country: str
    card: str
    items: tuple[Item, ...]

    @property
    def total(self) -> Decimal:
        return sum((item.price * item.quantity for item in self.items), Decimal(0))

    @property
    def weight(self) -> int:
        """In grams."""
        return sum(item.weight * item.quantity for item in self.items)


def load(order_id: int) -> Basket:
    """Raises :exc:`~project.shop.models.Order.DoesNotExist`."""
    order = Order.objects.select_related("customer").get(pk=order_id)
    items = tuple(
        Item(line.product_id, line.product.name, line.quantity, line.price, line.product.weight)
        for line in order.lines.select_related("product").order_by("pk")
    )
    buyer = order.customer
    return Basket(order.pk, buyer.name, buyer.email, buyer.country, buyer.card, items)


def reserve_stock(basket: Basket) -> Err | None:
    """Take the goods off the shelf: all of them, or none when one is out of stock. Done once per order."""
    with transaction.atomic():
        reserved = Order.objects.filter(pk=basket.order_id, state=Order.State.OPEN).update(state=Order.State.RESERVED)
        for item in basket.items if reserved else ():
            on_shelf = Product.objects.filter(pk=item.product_id, stock__gte=item.quantity)
            if not on_shelf.update(stock=F("stock") - item.quantity):
                transaction.set_rollback(True)
                return Err("OUT_OF_STOCK", cause=item.name)
    return None


def mark_paid(order_id: int) -> None:
    Order.objects.filter(pk=order_id).update(state=Order.State.PAID)


def send_receipt(basket: Basket, shipping: Decimal, charge: Charge) -> None:
    """Write the customer an e-mail."""
    text = render_to_string("shop/receipt.txt", {"basket": basket, "shipping": shipping, "charge": charge})
    EmailMessage(
        subject=f"Your order {basket.order_id}",
        body=text,
        to=[basket.email],
        headers={"Message-ID": f"<order-{basket.order_id}@shop.example>"},
    ).send()
