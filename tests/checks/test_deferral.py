"""Steps that are given what a function returned."""

from __future__ import annotations

import functools
import types
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import methodcaller

import pytest

from tests.checks.bodies import ids, said_of, says


@dataclass
class Receipt:
    number: int


class Charger:
    def __init__(self, user):
        self.user = user

    def __call__(self):
        return Receipt(1)


class Gateway:
    def charge(self, user):
        return {"user": user}

    @staticmethod
    def refund(user):
        return [user]

    def posts(self, user):
        return self.client.post(user)


GATEWAY = Gateway()
HANDLERS = {"card": lambda: 1}


def charge(user):
    paid = Receipt(user)
    user.paid = paid.number
    return paid


def typed(user) -> Receipt:
    return user.receipt


def nothing(user):
    """A function that returns nothing."""


def posts(user):
    return user.client.post("/charge")


def charges_in_turn(user):
    return charge(user)


async def afetch(user):
    return user


def get_user(number) -> dict[str, int]:
    return number.user


def ended(user) -> None:
    HANDLERS.clear()


def rows(user):
    yield user


short = lambda user: {"user": user}


@types.coroutine
def old_style(user):
    yield user


def charging(user):
    def work():
        return charge(user)

    return work


def charger(user):
    return lambda: charge(user)


def deferred(user):
    return partial(charge, user)


def chosen(user):
    return HANDLERS.get(user)


def indexed(user):
    return HANDLERS[user]


def callable_object(user):
    return Charger(user)


def make_something(user):
    return user.client.post("/charge")


def untold(user) -> object:
    return Receipt(user)


def adelegates(user):
    return user.client.fetch()


def of_coroutine(user):
    return afetch(user)


def sometimes(user):
    if user:
        return Receipt(1)
    return user.later


@lru_cache
def remembered(user):
    return Receipt(user)


def wrapping(function):
    @functools.wraps(function)
    def call(*args):
        return partial(function, *args)

    return call


@wrapping
def paying(user):
    return Receipt(user)


DEPS = {
    "charge": charge,
    "ended": ended,
    "partial": partial,
    "gateway": GATEWAY,
    "make_function": charger,
    "odd": HANDLERS,
}
U = 7
CALLED = [
    lambda step, deps: step("a", charge(U), key="a"),
    lambda step, deps: step.run("a", typed(U), key="a"),
    lambda step, deps: step("a", nothing(U), key="a"),
    lambda step, deps: step("a", posts(U), key="a"),
    lambda step, deps: step("a", charges_in_turn(U), key="a"),
    lambda step, deps: step("a", afetch(U), key="a"),
    lambda step, deps: step("a", deps.charge(U), key="a"),
    lambda step, deps: step("a", function=deps.gateway.charge(U), key="a"),
    lambda step, deps: step("a", GATEWAY.refund(U)),
    lambda step, deps: step("a", GATEWAY.posts(U)),
    lambda step, deps: step("a", get_user(U), key="a"),
    lambda step, deps: step("a", deps.ended(U), key="a"),
    lambda step, deps: step("a", rows(U), key="a"),
    lambda step, deps: step("a", short(U), key="a"),
    lambda step, deps: step("a", Receipt(U), key="a"),
    lambda step, deps: step("a", len([U]), key="a"),
    lambda step, deps: step.all("a", {"x": lambda: 1, "y": charge(U)}, key="a"),
    lambda step, deps: step.map("a", [1], charge(U), key="a"),
]
PASSED = [
    lambda step, deps: step("a", lambda: charge(U), key="a"),
    lambda step, deps: step("a", charge, key="a"),
    lambda step, deps: step("a", partial(charge, U), key="a"),
    lambda step, deps: step("a", deps.partial(charge, U), key="a"),
    lambda step, deps: step("a", methodcaller("charge", U), key="a"),
    lambda step, deps: step("a", Charger(U), key="a"),
    lambda step, deps: step("a", charging(U), key="a"),
    lambda step, deps: step("a", charger(U), key="a"),
    lambda step, deps: step("a", deferred(U), key="a"),
    lambda step, deps: step("a", chosen(U), key="a"),
    lambda step, deps: step("a", indexed(U), key="a"),
    lambda step, deps: step("a", callable_object(U), key="a"),
    lambda step, deps: step("a", make_something(U), key="a"),
    lambda step, deps: step("a", untold(U), key="a"),
    lambda step, deps: step("a", sometimes(U), key="a"),
    lambda step, deps: step("a", old_style(U), key="a"),
    lambda step, deps: step("a", remembered(U), key="a"),
    lambda step, deps: step("a", paying(U), key="a"),
    lambda step, deps: step("a", deps.make_function(U), key="a"),
    lambda step, deps: step("a", deps.unknown(U), key="a"),
    lambda step, deps: step("a", deps.odd.get(U), key="a"),
    lambda step, deps: step("a", [charge, typed][0](U), key="a"),
    lambda step, deps: step.map("a", [1], partial(charge), key="a"),
]


@pytest.mark.parametrize("body", CALLED)
def test_a_called_function_is_a_warning(body):
    """Where what is called is known, and returns neither a function nor anything that may be one."""
    (found,) = said_of(body, DEPS)
    assert found.id == "stepflows.W010"
    assert says(found, r"Workflow 'shop' \(.*test_deferral\.py:\d+\): step 'a' is given .*\(.*called.*lambda: ")


@pytest.mark.parametrize("body", PASSED)
def test_a_function_is_left_alone(body):
    """As is whatever may return one."""
    assert said_of(body, DEPS) == []


def test_deps_may_be_any_object():
    """Its attributes are found without asking it."""

    class Deps:
        charge = staticmethod(charge)

        @property
        def gateway(self):
            raise AssertionError("asked")

    def body(step, deps):
        step("a", deps.charge(U))
        step("b", deps.gateway.charge(U))

    assert ids(said_of(body, Deps())) == ["stepflows.W010"]


def test_an_async_body_is_given_awaitables():
    """So only what is surely none is a warning."""

    async def body(step, deps):
        await step.run("a", afetch(U), key="a")
        await step.run("b", of_coroutine(U), key="b")
        await step.run("c", adelegates(U), key="c")
        await step.run("d", deps.unknown(U), key="d")

    assert said_of(body, DEPS) == []


def test_a_called_function_in_an_async_body_is_a_warning():
    """Where it is surely not awaited."""

    async def body(step, deps):
        await step("a", charge(U), key="a")

    assert ids(said_of(body, DEPS)) == ["stepflows.W010"]
