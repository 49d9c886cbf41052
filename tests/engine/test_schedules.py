"""Callers of one key in every order of load, claim, call, store, release, expiry and crash: schedules, not luck.

Each test says how many schedules there are at least, and all of them are covered. Where two come to the same state,
what follows is gone through once; that this loses nothing is a test of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import pytest

from stepflows.engine import flight, storing
from stepflows.engine.cache import Claimed, Entry, Lease, Standing
from stepflows.engine.operations import Operation
from stepflows.engine.policy import Policy
from stepflows.results import Err, Ok, Stamp
from tests.engine import rules
from tests.engine.callers import Asks, shown
from tests.engine.model import ModelCache
from tests.engine.schedules import explore
from tests.engine.world import Violation, World

NAMES = "ABC"


def raising(value: str) -> Any:
    raise ValueError(value)


def value(value: str) -> str:
    return value


@pytest.fixture(autouse=True)
def _silence(monkeypatch):
    """What is logged of a lost lease is of no interest a million times."""
    monkeypatch.setattr(logging.getLogger("stepflows"), "disabled", True)


OUTCOMES = pytest.mark.parametrize("outcome", [value, Err, raising])


def callers(number: int, **options: Any) -> list[Asks]:
    return [Asks(name, **options) for name in NAMES[:number]]


def world(
    asks: Sequence[Asks], faults: Mapping[str, int] | None = None, ground: Callable[[], ModelCache] = ModelCache
) -> Callable[[], World]:
    return lambda: World(ground(), asks, faults)


@OUTCOMES
@pytest.mark.parametrize(
    ("faults", "least"),
    [
        ({}, 24),
        ({"expire": 1}, 316),
        ({"expire": 2}, 964),
        ({"crash": 1}, 170),
        ({"crash": 1, "expire": 2}, 4_200),
        ({"cancel": 1}, 316),
        ({"cancel": 1, "expire": 1}, 4_444),
        ({"cut off": 2}, 1_758),
        ({"cut off": 1, "cancel": 1}, 3_274),
        ({"cut off": 1, "expire": 1}, 5_084),
    ],
)
def test_two_callers_have_one_result(faults, least, outcome):
    """It ran once, and once more for each lease or run that was lost: 20,550 schedules for values, more for errors."""
    explored = explore(world(callers(2, outcome=outcome), faults), rules.one_result)
    assert explored.schedules >= least


@OUTCOMES
@pytest.mark.parametrize(
    ("faults", "least"),
    [
        ({}, 3_108),
        ({"expire": 1}, 299_808),
        ({"crash": 1}, 57_546),
        ({"cancel": 1}, 96_582),
        ({"cut off": 1}, 76_938),
    ],
)
def test_three_callers_have_one_result(faults, least, outcome):
    """The same for three: 533,982 schedules for values, 1,552,800 for errors and for exceptions."""
    explored = explore(world(callers(3, outcome=outcome), faults), rules.one_result)
    assert explored.schedules >= least


def test_three_callers_survive_an_expiry_and_a_crash():
    """3,030,606 schedules."""
    explored = explore(world(callers(3), {"expire": 1, "crash": 1}), rules.one_result)
    assert explored.schedules >= 3_030_606


@pytest.mark.parametrize(
    ("number", "faults", "least"),
    [
        (2, {"expire": 2}, 1_152),
        (2, {"expire": 1, "crash": 1}, 2_052),
        (3, {}, 12_960),
        (3, {"expire": 1}, 546_678),
        (3, {"crash": 1}, 164_046),
    ],
)
def test_an_error_that_is_not_kept_is_everybodys_own(number, faults, least):
    """One after the other, each runs it once and gives the lease back: 726,888 schedules."""
    asks = callers(number, outcome=Err, policy=Policy(cache_errors=False))
    assert explore(world(asks, faults), rules.each_its_own).schedules >= least


class Filled(ModelCache):
    """Somebody was here before."""

    def __init__(self) -> None:
        super().__init__()
        self.entries["k"] = Ok("old", stamp=Stamp("label"))


@OUTCOMES
@pytest.mark.parametrize(
    ("faults", "ground", "least"),
    [
        ({}, ModelCache, 1_634),
        ({"expire": 1}, ModelCache, 465_864),
        ({"crash": 1}, ModelCache, 22_910),
        ({}, Filled, 20),
        ({"expire": 1}, Filled, 80),
        ({"crash": 1}, Filled, 116),
    ],
)
def test_a_refresh_is_its_own_and_stands(faults, ground, least, outcome):
    """The others have what was stored before or after it: 490,624 schedules for values, more for errors."""
    asks = [Asks("A", refresh=True, outcome=outcome), *callers(3, outcome=outcome)[1:]]
    assert explore(world(asks, faults, ground), rules.refreshed_by_a).schedules >= least


@pytest.mark.parametrize(
    ("faults", "least"), [({}, 600), ({"expire": 1}, 65_070), ({"crash": 1}, 21_038), ({"cancel": 1}, 11_410)]
)
def test_maps_in_opposite_orders_do_not_block_each_other(faults, least):
    """Each of three keys runs once: 98,118 schedules."""
    explored = explore(world([Asks("A", keys="abc"), Asks("B", keys="cba")], faults), rules.one_result)
    assert explored.schedules >= least


@pytest.mark.parametrize(("faults", "least"), [({}, 62), ({"expire": 1}, 3_670), ({"crash": 1}, 5_926)])
def test_a_map_that_fails_gives_the_rest_back(faults, least):
    """Its other leases end, so nobody waits for what will not run: 9,658 schedules."""
    asks = [Asks("A", keys="abc", outcome=Err), Asks("B", keys="cba", outcome=Err)]
    assert explore(world(asks, faults), rules.one_failure).schedules >= least


def test_without_single_flight_the_first_stored_wins():
    """All may run it, nobody waits: 1,428 schedules."""
    asks = callers(3, policy=Policy(single_flight=False))
    assert explore(world(asks), rules.first_stored_wins).schedules >= 1_428


def test_whoever_rather_runs_never_fails_for_the_cache():
    """Its own result is as good as any: 139,194 schedules."""
    asks = callers(3, policy=Policy(on_cache_down="run"))
    assert explore(world(asks, {"cut off": 1}), rules.never_down).schedules >= 139_194


@pytest.mark.parametrize(("number", "faults", "least"), [(2, {}, 50), (3, {}, 13_506), (3, {"roll back": 1}, 73_806)])
def test_a_result_that_waits_for_its_transaction_is_the_one_of_all(number, faults, least):
    """The others wait for the commit; after a rollback the next one runs: 87,362 schedules."""
    explored = explore(world(callers(number, transaction=True), faults), rules.one_result)
    assert explored.schedules >= least


@pytest.mark.parametrize("faults", [{}, {"expire": 1}, {"crash": 1}, {"cancel": 1}])
def test_what_comes_of_a_state_does_not_depend_on_the_way_there(faults):
    """Following each state once finds the very ends, and counts the very schedules, that following each way finds."""
    merged, separate = set(), set()

    def noting(ends: set[str]) -> Callable[[World], None]:
        return lambda world: ends.add(f"{[(c.left, shown(c.result), c.runs) for c in world.callers.values()]}")

    asks = callers(2, outcome=Err)
    explored = explore(world(asks, faults), noting(merged))
    every = explore(world(asks, faults), noting(separate), merge=False)
    assert merged == separate
    assert explored.schedules == every.schedules
    assert explored.states < every.states


# The rules have teeth: a cache, or a plan, that breaks one of its own is found out.


class Forgetful(ModelCache):
    """Grants a lease without looking the entry up again."""

    def _claim(self, key: str, *, refresh: bool) -> Claimed:
        return super()._claim(key, refresh=True)


class Overwriting(ModelCache):
    """Stores over what was there first."""

    def _store(self, entry: Entry) -> Standing:
        return super()._store(entry._replace(replace=True, lease=None))


class Generous(ModelCache):
    """Grants a lease that somebody has."""

    def _claim(self, key: str, *, refresh: bool) -> Claimed:
        self.leases.pop(key, None)
        return super()._claim(key, refresh=refresh)


class Careless(ModelCache):
    """Ends a lease whoever has it."""

    def release(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self.leases.pop(lease.key, None)


class Leaky(ModelCache):
    """Does not end leases."""

    def release(self, leases: Sequence[Lease]) -> None:
        pass


class Lossy(ModelCache):
    """Says that it has stored, and has not."""

    def _store(self, entry: Entry) -> Standing:
        return entry.result


class Rigid(ModelCache):
    """Leases outlive their holders."""

    def expire(self, key: str) -> None:
        pass


class Unending(ModelCache):
    """Has leases that cannot end."""

    def holders(self) -> dict[str, str]:
        return {}


class Distant(ModelCache):
    """Grants leases that it then does not have."""

    def _claim(self, key: str, *, refresh: bool) -> Claimed:
        claimed = super()._claim(key, refresh=refresh)
        self.leases.pop(key, None)
        return claimed


@pytest.mark.parametrize(
    ("broken", "number", "faults", "outcome", "found"),
    [
        (Forgetful, 2, {}, value, "k ran 2 times, and 1 would be enough"),
        (Overwriting, 2, {"expire": 1}, value, "different results"),
        (Generous, 2, {}, value, "k ran 2 times, and 1 would be enough"),
        (Careless, 3, {"expire": 1}, Err, "never ends"),
        (Leaky, 2, {}, value, "left behind"),
        (Lossy, 1, {}, value, "not what is stored"),
        (Distant, 2, {}, value, "somebody else may do so"),
        (Rigid, 2, {"crash": 1}, value, "never ends"),
    ],
)
def test_a_cache_that_breaks_a_rule_is_found_out(broken, number, faults, outcome, found):
    """There is a schedule in which it shows."""
    with pytest.raises(Violation, match=found):
        explore(world(callers(number, outcome=outcome), faults, broken), rules.one_result)


def test_a_wait_for_ever_is_found_out():
    """Somebody from elsewhere has the lease and does not end: nobody can go on, and nothing is left to happen."""

    def taken() -> ModelCache:
        cache = Unending()
        cache.claim(["k"], 30)
        return cache

    with pytest.raises(Violation, match=r"\['A', 'B'\] wait for ever"):
        explore(world(callers(2), {}, taken), rules.one_result)


def test_a_plan_that_keeps_its_leases_is_found_out(monkeypatch):
    """Without what gives them back, a cancelled caller and an error that is not kept leave theirs."""

    def kept(leases: Sequence[Lease]) -> Generator[Operation, Any, None]:
        yield from ()

    monkeypatch.setattr(flight, "let_go", kept)
    with pytest.raises(Violation, match="left behind"):
        explore(world(callers(2), {"cancel": 1}), rules.one_result)
    monkeypatch.setattr(storing, "let_go", kept)
    asks = callers(2, outcome=Err, policy=Policy(cache_errors=False))
    with pytest.raises(Violation, match="left behind"):
        explore(world(asks), rules.each_its_own)
