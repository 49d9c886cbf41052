"""Workflows that workers run. Their steps lie in the cache that all processes share."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from stepflows import Err, workflow
from tests.flows import gated as gated  # noqa: PLC0414 - registers its workflows too
from tests.flows import kills as kills  # noqa: PLC0414 - registers its workflow too
from tests.flows.notes import note, notes

CACHE = "django_redis"


class Declined(Exception):
    """A card that does not pay."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"declined with {code}")
        self.code = code


@dataclass(frozen=True)
class Basket:
    order_id: int
    items: tuple[str, ...]


@workflow("flows.order", cache=CACHE)
def order(step: Any, deps: Any, order_id: int) -> str:
    basket = step("load", lambda: Basket(order_id, (note(f"load {order_id}"),)), key=f"order:{order_id}:basket")
    charge: str = step("charge", lambda: note(f"charge {basket.order_id}"), key=f"order:{order_id}:charge")
    return charge


@workflow("flows.order_async", cache=CACHE)
async def order_async(step: Any, deps: Any, order_id: int) -> str:
    async def charge() -> str:
        return note(f"charge {order_id}")

    charged: str = await step("charge", charge, key=f"order:{order_id}:charge")
    return charged


@workflow("flows.declined", cache=CACHE)
def declined(step: Any, deps: Any, order_id: int) -> None:
    def charge() -> None:
        note(f"charge {order_id}")
        raise Declined(code=51)

    step("charge", charge, key=f"order:{order_id}:charge")


if os.environ.get("TEST_RELEASE") == "next":

    @workflow("flows.released", cache=CACHE)
    def released(step: Any, deps: Any, name: str) -> str:
        """What older code does not have."""
        done: str = step("released", lambda: note(f"released {name}"), key=f"{name}:released")
        return done


@workflow("flows.missing", cache=CACHE)
def missing(step: Any, deps: Any, order_id: int) -> None:
    step("load", lambda: Err(note("NOT_FOUND"), cause={"order_id": order_id}), key=f"order:{order_id}")


@workflow("flows.echo", cache=CACHE)
def echo(step: Any, deps: Any, *args: Any, **kwargs: Any) -> Any:
    return args, kwargs


@workflow("flows.exit", cache=CACHE)
def exits(step: Any, deps: Any, times: int) -> int:
    """Ends its process that many times, as a worker that is shut down does."""
    step("charge", lambda: note("charge"), key="charge")
    if notes().count("exit") < times:
        note("exit")
        sys.exit(1)
    return times


@workflow("flows.conflict", cache=CACHE)
def conflict(step: Any, deps: Any) -> None:
    step("load", lambda: 1, key="order:1")
    step("charge", lambda: 2, key="order:1")
