"""Who buys what. Money is in euros."""

from __future__ import annotations

from decimal import Decimal

from django.db import models
from django.db.models import F, Sum
from django.urls import reverse


class Customer(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField()
    country = models.CharField(max_length=2)
    #: What the payment service knows the card by; the shop never sees a card number.
    card = models.CharField(max_length=40)

    def __str__(self) -> str:
        return self.name


class Product(models.Model):
    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    weight = models.PositiveIntegerField(help_text="Grams")
    stock = models.PositiveIntegerField()

    def __str__(self) -> str:
        return self.name


class OrderQuerySet(models.QuerySet["Order"]):
    def with_total(self) -> OrderQuerySet:
        """Adds ``total``, the price of the goods."""
        money = models.DecimalField(max_digits=10, decimal_places=2)
        return self.annotate(total=Sum(F("lines__price") * F("lines__quantity"), output_field=money))


class Order(models.Model):
    class State(models.TextChoices):
        OPEN = "open"
        RESERVED = "reserved"
        PAID = "paid"

    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="orders")
    placed_at = models.DateTimeField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    #: The latest run of its checkout.
    run = models.ForeignKey("stepflows.Run", on_delete=models.SET_NULL, null=True, blank=True, related_name="+")

    objects = OrderQuerySet.as_manager()

    def __str__(self) -> str:
        return f"Order {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("order", args=[self.pk])

    @property
    def weight(self) -> int:
        """That of the goods in grams. On an event loop, fetch the lines before."""
        return sum(line.product.weight * line.quantity for line in self.lines.all())


class OrderLine(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="+")
    quantity = models.PositiveIntegerField()
    price = models.DecimalField(max_digits=8, decimal_places=2, help_text="Of one piece, when it was ordered")

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product}"

    @property
    def total(self) -> Decimal:
        return self.price * self.quantity
