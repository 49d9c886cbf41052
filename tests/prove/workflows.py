"""The order that the soak places again and again, for sync and for async bodies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from functools import partial
from typing import Any, Final

from django.core.cache import caches

from stepflows import Err, StepFailed, workflow
from tests.prove.deeds import deed, done, value_of
from tests.voices import async_body, sync_body

__all__ = ["CACHE", "NAMES", "gate_place", "keys_of", "open_gate", "order", "order_async", "result_of"]

CACHE: Final = "django_redis"
NAMES: Final = ("prove.order", "prove.order_async")


def keys_of(name: str, items: int) -> list[str]:
    """All that is stored of an order."""
    return [f"{name}:{place}" for place in range(items + 4)]


def gate_place(items: int) -> int:
    """The step that is declined while the gate is closed."""
    return items + 2


def result_of(name: str, items: int) -> list[Any]:
    """What an order comes to."""
    both: Any = {side: f"{value_of(name, items + 1)} {side}" for side in ("left", "right")}
    values: list[Any] = [value_of(name, place) for place in range(items + 4)]
    values[items + 1] = both
    return values


def open_gate(name: str) -> None:
    caches[CACHE].set(f"gate {name}", 1, 600)


def _play(
    step: Any, deps: Any, name: str, items: int, pause: float = 0.0, ttl: float | None = None, gate: bool = False
) -> Generator[Any, Any, list[Any]]:
    """A step, a map with an entry for each item, an all with one entry, one that may be declined, and a last one."""

    def work(place: int) -> str:
        text = deed(name, place)
        time.sleep(pause)
        return text

    async def side(which: str) -> str:
        await asyncio.sleep(pause)
        return f"{value_of(name, items + 1)} {which}"

    async def left() -> str:
        deed(name, items + 1)
        return await side("left")

    def charge() -> Any:
        text = work(gate_place(items))
        return Err("DECLINED") if gate and not caches[CACHE].get(f"gate {name}") else text

    keys = keys_of(name, items)
    first = yield step("first", partial(work, 0), key=keys[0], ttl=ttl)
    done(name, 0)
    values = yield step.map("item", range(1, items + 1), work, key=keys.__getitem__, limit=3, ttl=ttl)
    for place in range(1, items + 1):
        done(name, place)
    both = yield step.all("both", {"left": left, "right": partial(side, "right")}, key=keys[items + 1], ttl=ttl)
    done(name, items + 1)
    try:
        charged = yield step("charge", charge, key=keys[items + 2], ttl=ttl)
    except StepFailed:
        done(name, items + 2)
        raise
    done(name, items + 2)
    last = yield step("last", partial(work, items + 3), key=keys[items + 3], ttl=ttl)
    done(name, items + 3)
    return [first, *values, both, charged, last]


order = workflow(NAMES[0], cache=CACHE)(sync_body(_play))
order_async = workflow(NAMES[1], cache=CACHE)(async_body(_play))
