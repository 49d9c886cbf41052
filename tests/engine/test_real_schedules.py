"""The same schedules over real caches: not all of them, but two hundred on each, picked at random."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.core.cache import caches
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepflows import StepCache
from stepflows.caches import local
from stepflows.caches.mapping import MappingCache
from stepflows.caches.names import Name, lease_key
from stepflows.engine.cache import Cache
from stepflows.engine.policy import Policy
from stepflows.results import Err
from tests.conftest import REDIS_ALIASES
from tests.engine import rules
from tests.engine.callers import Asks
from tests.engine.schedules import wander
from tests.engine.world import World
from tests.servers import Valkey

NAMESPACES = itertools.count()
SOME = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _silence(monkeypatch):
    """That a lease was lost is what these schedules are about."""
    monkeypatch.setattr(logging.getLogger("stepflows"), "disabled", True)


class Open:
    """A real cache that can be looked into; how leases are seen and ended differs."""

    def __init__(self, cache: Cache, holders: Callable[[], dict[str, str]], expire: Callable[[str], object]) -> None:
        self.load = self.standing = cache.load
        self.load_many = cache.load_many
        self.claim = cache.claim
        self.store = cache.store
        self.release = cache.release
        self.abandon = cache.abandon
        self.holders = holders
        self.expire = expire


def open_mapping() -> Open:
    """Its leases end when nobody refers to them, so no test has to end one."""
    cache = MappingCache({})

    def holders() -> dict[str, str]:
        taken = {key: lease() for (place, key), lease in list(local._taken.items()) if place == id(cache.given)}
        return {key: lease.token for key, lease in taken.items() if lease}

    return Open(cache, holders, holders().pop)


def open_django(alias: str) -> Open:
    """Through Django's own methods, with a scope that nobody has used."""
    cache = StepCache(alias, namespace=f"schedule-{next(NAMESPACES)}")

    def place(key: str) -> str:
        return lease_key(Name(cache.scope, key))

    def holders() -> dict[str, str]:
        found = {key: caches[alias].get(place(key)) for key in "kabc"}
        return {key: token.decode() for key, token in found.items() if token}

    return Open(cache, holders, lambda key: caches[alias].delete(place(key)))


def open_redis(alias: str, valkey: Valkey) -> Open:
    """In the server itself."""
    cache = StepCache(alias, namespace=f"schedule-{next(NAMESPACES)}")

    def place(key: str) -> str:
        return caches[alias].make_key(lease_key(Name(cache.scope, key)))

    def holders() -> dict[str, str]:
        found = zip("kabc", valkey.client.mget([place(key) for key in "kabc"]), strict=True)
        return {key: token.decode() for key, token in found if token}

    return Open(cache, holders, lambda key: valkey.client.delete(place(key)))


def raising(value: str) -> Any:
    raise ValueError(value)


def _three(**options: Any) -> list[Asks]:
    return [Asks(name, **options) for name in "ABC"]


KINDS: dict[str, tuple[Sequence[Asks], Callable[[World], None]]] = {
    "values": (_three(), rules.one_result),
    "errors": (_three(outcome=Err), rules.one_result),
    "exceptions": (_three(outcome=raising), rules.one_result),
    "errors not kept": (_three(outcome=Err, policy=Policy(cache_errors=False)), rules.each_its_own),
    "a refresh": ([Asks("A", refresh=True), *_three()[1:]], rules.refreshed_by_a),
    "maps": ([Asks("A", keys="abc"), Asks("B", keys="cba"), Asks("C", keys="b")], rules.one_result),
}
FAULTS = st.fixed_dictionaries({}, optional={"crash": st.just(1), "cancel": st.just(1)})
EXPIRIES = st.integers(0, 2).map(lambda number: {"expire": number})


def wander_over(ground: Open, data: st.DataObject, faults: dict[str, int]) -> None:
    asks, check = KINDS[data.draw(st.sampled_from(sorted(KINDS)))]
    wander(World(ground, asks, faults), check, lambda choices: data.draw(st.integers(0, choices - 1)))


@SOME
@given(data=st.data(), faults=FAULTS)
def test_schedules_on_a_mapping(data, faults):
    """A holder that dies is free at once."""
    wander_over(open_mapping(), data, faults)


@SOME
@given(data=st.data(), faults=FAULTS, expiries=EXPIRIES)
def test_schedules_on_the_local_memory_cache(data, faults, expiries):
    """With leases that end at any time."""
    wander_over(open_django("locmem"), data, faults | expiries)


@pytest.mark.parametrize("alias", REDIS_ALIASES)
@SOME
@given(data=st.data(), faults=FAULTS, expiries=EXPIRIES)
def test_schedules_on_redis(valkey, alias, data, faults, expiries):
    """The same on both of its backends."""
    wander_over(open_redis(alias, valkey), data, faults | expiries)
