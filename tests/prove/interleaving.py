"""The interleaving test at large: every order of few callers, and random orders of many, on a model and on real caches.

The callers, their faults and the rules are those of ``tests/engine``.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from redis import Redis

from stepflows.engine.policy import Policy
from stepflows.results import Err
from tests import settings as site
from tests.engine import rules
from tests.engine.callers import Asks
from tests.engine.model import ModelCache
from tests.engine.schedules import explore, wander
from tests.engine.test_real_schedules import KINDS, open_django, open_mapping, open_redis, raising
from tests.engine.world import Ground, Violation, World
from tests.prove.trial import Row, Terms
from tests.servers import Valkey

__all__ = ["schedules"]

Rule = Callable[[World], None]
Maker = Callable[[], World]


class Case(NamedTuple):
    """Some callers that go through every order there is."""

    asks: Sequence[Asks]
    rule: Rule
    faults: Mapping[str, int]


def some(number: int, **options: object) -> list[Asks]:
    return [Asks(name, **options) for name in "ABCDEF"[:number]]


#: Beyond what the test suite goes through; the small ones first.
CASES = [
    Case(some(2), rules.one_result, {"cut off": 1, "expire": 1, "crash": 1}),
    Case(some(2), rules.one_result, {"expire": 2, "crash": 1, "cancel": 1}),
    Case(some(2, outcome=Err), rules.one_result, {"cut off": 1, "expire": 1, "cancel": 1}),
    Case(some(3, outcome=raising), rules.one_result, {"crash": 2}),
    Case(some(3, transaction=True), rules.one_result, {"roll back": 2}),
    Case(some(3, outcome=Err, policy=Policy(cache_errors=False)), rules.each_its_own, {"crash": 2}),
    Case([Asks("A", keys="abc"), Asks("B", keys="cba")], rules.one_result, {"expire": 1, "crash": 1}),
    Case(some(3), rules.one_result, {"expire": 1, "crash": 1}),
    Case(some(4), rules.one_result, {}),
    Case([Asks("A", refresh=True), *some(4)[1:]], rules.refreshed_by_a, {}),
    Case(some(3), rules.one_result, {"expire": 2}),
    Case(some(3), rules.one_result, {"cut off": 1, "expire": 1}),
    Case(some(3), rules.one_result, {"cancel": 1, "expire": 1}),
    Case(some(4, outcome=Err), rules.one_result, {"crash": 1}),
    Case(some(4), rules.one_result, {"expire": 1}),
    Case([*some(2, keys="abc"), Asks("C", keys="b")], rules.one_result, {"crash": 1}),
]


def schedules(terms: Terms) -> Iterator[Row]:
    """A third of the time for every order, the rest for random ones, shared by the caches."""
    with _silence():
        yield _every_order(terms.seconds / 3)
        grounds = _grounds()
        for name, ground in grounds.items():
            yield _random_orders(name, ground, terms.chance(name), terms.seconds / 3 * 2 / len(grounds))


def _every_order(seconds: float) -> Row:
    deadline = time.monotonic() + seconds
    schedules = cases = 0
    violations = []
    for case in CASES:
        if cases and time.monotonic() > deadline:
            break
        cases += 1
        try:
            schedules += explore(_maker(case), case.rule).schedules
        except Violation as violation:
            violations.append(str(violation))
    note = f"{cases} of {len(CASES)} cases: crashes, cancellations, lost leases, lost answers, rollbacks"
    return Row("every order of 2 to 4 callers", f"{schedules:,} orders", len(violations), note, tuple(violations))


def _maker(case: Case) -> Maker:
    return lambda: World(ModelCache(), case.asks, case.faults)


def _random_orders(name: str, ground: Callable[[], Ground], chance: random.Random, seconds: float) -> Row:
    deadline = time.monotonic() + seconds
    tried, moves = 0, 0
    violations = []
    while not tried or time.monotonic() < deadline:
        asks, rule = KINDS[chance.choice(sorted(KINDS))]
        world = World(ground(), asks, _faults(name, chance))
        try:
            wander(world, rule, chance.randrange)
        except Violation as violation:
            violations.append(str(violation))
        tried += 1
        moves += len(world.schedule)
    return Row(f"random orders, {name}", f"{tried:,} orders", len(violations), f"{moves:,} moves", tuple(violations))


def _faults(name: str, chance: random.Random) -> dict[str, int]:
    faults = {"crash": chance.randint(0, 2), "cancel": chance.randint(0, 2)}
    # Leases on a mapping end with whoever refers to them, and in no other way.
    return faults if name == "dict" else faults | {"expire": chance.randint(0, 3)}


def _grounds() -> dict[str, Callable[[], Ground]]:
    valkey = Valkey(site.CACHE_URL, Redis.from_url(site.CACHE_URL))
    return {
        "model": ModelCache,
        "dict": open_mapping,
        "local memory": lambda: open_django("locmem"),
        "Django's Redis": lambda: open_redis("redis", valkey),
        "django-redis": lambda: open_redis("django_redis", valkey),
    }


@contextmanager
def _silence() -> Iterator[None]:
    """That a lease was lost is what these orders are about."""
    logger = logging.getLogger("stepflows")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
