"""A shop full of customers, goods and orders: the same one every time, because the seed is fixed."""

# mypy: disable-error-code="attr-defined,no-untyped-call"
# factory-boy is typed in part only.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import product as combinations

import factory
import factory.random
from django.db import transaction
from factory.fuzzy import FuzzyDateTime, FuzzyDecimal, FuzzyInteger

from project.shop.models import Customer, Order, OrderLine, Product

SEED = 1729
THINGS = ("lamp", "bowl", "stool", "clock", "tray", "vase", "mirror", "basket")
MATERIALS = ("Oak", "Walnut", "Brass", "Linen", "Wool", "Clay", "Copper", "Birch", "Cork", "Slate")
NAMES = [f"{material} {thing}" for thing, material in combinations(THINGS, MATERIALS)]
COUNTRIES = ("DE", "NO", "SE", "NL")
#: The last digits of the customers' cards, in turn. The payment service declines 0002.
CARDS = ("4242",) * 9 + ("1881",) * 8 + ("0002",)
#: One product in so many is sold out; there is plenty of the others.
SOLD_OUT = 40


class CustomerFactory(factory.django.DjangoModelFactory[Customer]):
    class Meta:
        model = Customer

    name = factory.Faker("name")
    email = factory.Sequence(lambda n: f"customer{n}@example.com")
    country = factory.Sequence(lambda n: COUNTRIES[n % len(COUNTRIES)])
    card = factory.Sequence(lambda n: f"tok_{n}_{CARDS[n % len(CARDS)]}")


class ProductFactory(factory.django.DjangoModelFactory[Product]):
    class Meta:
        model = Product

    name = factory.Sequence(lambda n: NAMES[n % len(NAMES)])
    price = FuzzyDecimal(9, 250)
    weight = FuzzyInteger(200, 6000, step=50)
    stock = factory.Sequence(lambda n: 0 if (n + 1) % SOLD_OUT == 0 else 10_000)


class OrderFactory(factory.django.DjangoModelFactory[Order]):
    class Meta:
        model = Order

    customer = factory.SubFactory(CustomerFactory)
    placed_at = FuzzyDateTime(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 10, 31, tzinfo=UTC))


class OrderLineFactory(factory.django.DjangoModelFactory[OrderLine]):
    class Meta:
        model = OrderLine

    order = factory.SubFactory(OrderFactory)
    product = factory.SubFactory(ProductFactory)
    quantity = FuzzyInteger(1, 3)
    price = factory.SelfAttribute("product.price")


@transaction.atomic
def make_shop(orders: int = 3000, customers: int = 400, products: int = 80) -> None:
    """Fill an empty database, in a second or so."""
    factory.random.reseed_random(SEED)
    CustomerFactory.reset_sequence(0)
    ProductFactory.reset_sequence(0)
    buyers = Customer.objects.bulk_create(CustomerFactory.build_batch(customers))
    goods = Product.objects.bulk_create(ProductFactory.build_batch(products))
    anybody = factory.LazyFunction(lambda: factory.random.randgen.choice(buyers))
    placed = Order.objects.bulk_create(OrderFactory.build_batch(orders, customer=anybody))
    OrderLine.objects.bulk_create(_lines(placed, goods))


def _lines(orders: Sequence[Order], goods: Sequence[Product]) -> Iterator[OrderLine]:
    for order in orders:
        for product in factory.random.randgen.sample(goods, k=factory.random.randgen.choice((1, 1, 2, 3))):
            yield OrderLineFactory.build(order=order, product=product)
