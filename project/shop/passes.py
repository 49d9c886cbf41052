"""A pass checks many orders out on the worker and counts what that took."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from project.shop import payments
from project.shop.models import Order
from project.shop.workflows import start_checkout
from stepflows import Ok
from stepflows.models import Run

#: Seconds that a pass may take.
DEADLINE = 120.0
PAID, DECLINED, SOLD_OUT = "PAID", "CARD_DECLINED", "OUT_OF_STOCK"
#: How many steps a checkout takes to each of its ends.
STEPS = {PAID: 6, DECLINED: 4, SOLD_OUT: 3}


def _number(label: str) -> Any:
    return field(metadata={"label": label})


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What one pass came to: numbers with labels, and how long it took in seconds."""

    orders: int = _number("orders")
    paid: int = _number("paid")
    declined: int = _number("card declined")
    sold_out: int = _number("out of stock")
    executed: int = _number("steps executed")
    cached: int = _number("steps from the cache")
    replayed: int = _number("errors replayed")
    charge_requests: int = _number("charges seen by the payment service")
    cards_charged: int = _number("cards charged")
    seconds: float = 0.0
    #: Errors that no checkout in this shop should come to.
    surprises: tuple[str, ...] = ()

    @property
    def numbers(self) -> dict[str, int]:
        """What is counted, by label."""
        return {each.metadata["label"]: getattr(self, each.name) for each in fields(self) if each.metadata}


def check_out(orders: Sequence[Order], progress: Callable[[int], None]) -> Pass:
    """Check the orders out on the worker, telling ``progress`` how many are done.

    Raises :exc:`TimeoutError`.
    """
    payments.reset_stats()
    started = time.monotonic()
    runs = [start_checkout(order) for order in orders]
    for done, run in enumerate(runs, start=1):
        run.wait(started + DEADLINE - time.monotonic())
        progress(done)
    return _tally(runs, payments.stats(), time.monotonic() - started)


def expected_end(order: Order) -> str:
    """How the checkout of this order must end, from what is on the shelves and whether the card is good."""
    if any(line.product.stock < line.quantity for line in order.lines.all()):
        return SOLD_OUT
    return DECLINED if order.customer.card.endswith("0002") else PAID


def expected_passes(ends: Counter[str]) -> tuple[Pass, Pass, Pass]:
    """What three passes must come to when the charge of a paid order is cleared before the third."""
    steps = sum(STEPS[end] * count for end, count in ends.items())
    errors = ends[DECLINED] + ends[SOLD_OUT]
    orders: dict[str, Any] = {
        "orders": ends.total(),
        "paid": ends[PAID],
        "declined": ends[DECLINED],
        "sold_out": ends[SOLD_OUT],
    }
    asked = ends[PAID] + ends[DECLINED]
    return (
        Pass(**orders, executed=steps, cached=0, replayed=0, charge_requests=asked, cards_charged=ends[PAID]),
        Pass(**orders, executed=0, cached=steps, replayed=errors, charge_requests=0, cards_charged=0),
        # The service has seen the idempotency key of this charge before: it is asked, and no money moves.
        Pass(**orders, executed=1, cached=steps - 1, replayed=errors, charge_requests=1, cards_charged=0),
    )


def complaints(passes: Sequence[Pass], expected: Sequence[Pass]) -> Iterator[str]:
    """What does not hold, a sentence each."""
    for number, (one, must) in enumerate(zip(passes, expected, strict=True), start=1):
        for label, value in one.numbers.items():
            if value != must.numbers[label]:
                yield f"Pass {number}, {label}: {value}, where it must be {must.numbers[label]}."
        for surprise in sorted(set(one.surprises)):
            yield f"Pass {number}: a checkout failed with {surprise}."


def _tally(runs: Sequence[Run], asked: payments.Stats, seconds: float) -> Pass:
    ends = Counter(_end(run) for run in runs)
    steps = Counter(step["outcome"] for run in runs for step in run.steps)
    return Pass(
        orders=len(runs),
        paid=ends[PAID],
        declined=ends[DECLINED],
        sold_out=ends[SOLD_OUT],
        executed=steps["executed"] + steps["error"],
        cached=steps["cached"] + steps["replayed_error"],
        replayed=steps["replayed_error"],
        charge_requests=asked.charge_requests,
        cards_charged=asked.cards_charged,
        seconds=seconds,
        surprises=tuple(end for end in ends if end not in STEPS),
    )


def _end(run: Run) -> str:
    match run.result:
        case Ok():
            return PAID
        case None:
            return run.state
        case failure:
            return failure.error if isinstance(failure.error, str) else repr(failure.error)
