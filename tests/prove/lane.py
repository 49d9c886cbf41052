"""What all lanes of the soak have: orders of their own, some of them remembered, and a list of what was wrong."""

from __future__ import annotations

import itertools
import random
from collections import Counter, deque
from typing import Any, Final, NamedTuple

from django.core.cache import caches

from stepflows import Err, Ok, Result
from stepflows.definitions import RegisteredWorkflow
from tests.prove.workflows import CACHE, result_of

__all__ = ["MEMORY", "PATIENCE", "Lane", "Order"]

#: How many finished orders a lane has; the oldest is asked for once more, then removed.
MEMORY: Final = 12
#: Seconds until a run on a worker has to be finished, whatever happens to workers and broker.
PATIENCE: Final = 180
#: How many lanes place each order that is shared.
_SHARED_BY: Final = 4


class Order(NamedTuple):
    flow: RegisteredWorkflow[...]
    name: str
    items: int

    @property
    def expected(self) -> Result[Any]:
        return Ok(result_of(self.name, self.items))


class Lane:
    """One thread or task that does one thing after the other."""

    def __init__(self, name: str, seed: str, ttl: float) -> None:
        self.name, self.ttl = name, ttl
        self.chance = random.Random(f"{seed} {name}")
        self.memory: deque[Order] = deque()
        #: What was done, and how often.
        self.done: Counter[str] = Counter()
        #: How many results were compared with what they have to be.
        self.compared = 0
        self.wrong: list[str] = []
        self._numbers = itertools.count(1)

    def new_name(self) -> str:
        return f"{self.name}.{next(self._numbers)}"

    def new_order(self, flow: RegisteredWorkflow[...]) -> Order:
        return Order(flow, self.new_name(), self.chance.randint(1, 4))

    def shared_order(self, flow: RegisteredWorkflow[...]) -> Order:
        """One that other lanes place at the same time."""
        key = f"shared {flow.name}"
        caches[CACHE].add(key, 0, None)
        return Order(flow, f"{flow.name}.{caches[CACHE].incr(key) // _SHARED_BY}", 2)

    def expect(self, what: str, found: object, expected: object) -> None:
        self.compared += 1
        if found != expected:
            self.wrong.append(f"{self.name}, {what}: {_in_full(found)}, and not {expected!r}.")


def _in_full(found: object) -> str:
    told = f"{found!r} ({found.cause!r})" if isinstance(found, Err) else repr(found)
    return told[:1000]
