"""The client of the payment service."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cache

import httpx
from django.conf import settings

from stepflows import Err, current_step


@dataclass(frozen=True)
class Charge:
    """Money that was taken from a card."""

    id: str
    amount: Decimal

    def __str__(self) -> str:
        return f"{self.amount} € charged ({self.id})"


@dataclass(frozen=True)
class Stats:
    """What the service says it was asked since it was last reset."""

    quotes: int
    #: Requests to charge a card, whatever came of them.
    charge_requests: int
    #: Those that moved money.
    cards_charged: int
    declined: int


def quote_shipping(country: str, weight: int) -> Decimal:
    """What it costs to send so many grams to this country."""
    answer = _service(settings.PAYMENT_URL).post("/quotes", json={"country": country, "weight": weight})
    answer.raise_for_status()
    return Decimal(answer.json()["price"])


async def aquote_shipping(service: httpx.AsyncClient, country: str, weight: int) -> Decimal:
    """The same on an event loop."""
    answer = await service.post("/quotes", json={"country": country, "weight": weight})
    answer.raise_for_status()
    return Decimal(answer.json()["price"])


def charge(card: str, amount: Decimal) -> Charge | Err:
    """Take the amount from the card, at most once however often the step is tried: the service knows its key."""
    answer = _service(settings.PAYMENT_URL).post(
        "/charges",
        json={"card": card, "amount": str(amount)},
        headers={"Idempotency-Key": current_step().idempotency_key},
    )
    if answer.status_code == httpx.codes.PAYMENT_REQUIRED:
        return Err(answer.json()["error"], cause=answer.json()["message"])
    answer.raise_for_status()
    return Charge(answer.json()["id"], Decimal(answer.json()["amount"]))


def stats() -> Stats:
    return Stats(**_service(settings.PAYMENT_URL).get("/stats").raise_for_status().json())


def reset_stats() -> None:
    _service(settings.PAYMENT_URL).post("/reset").raise_for_status()


def aservice() -> httpx.AsyncClient:
    """A client for one event loop, to be opened there: ``async with payments.aservice() as service``."""
    return httpx.AsyncClient(base_url=settings.PAYMENT_URL, timeout=10, trust_env=False)


@cache
def _service(url: str) -> httpx.Client:
    """One client, and with it one pool of connections, per process."""
    return httpx.Client(base_url=url, timeout=10, trust_env=False)
