"""The drivers alone, where a mistake of theirs would let steps run for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from stepflows.engine.drivers import AsyncDriver, Driver
from stepflows.engine.operations import Call, Plan, Together
from stepflows.results import Ok


class Struck(Exception):
    """A time limit that strikes while results are stored."""


def running(functions: Sequence[Any]) -> Plan:
    """A plan that has these functions called one at a time, and fails to store the first result."""

    def part(function: Any) -> Plan:
        yield Call(function)
        return Ok(None)

    def then(positions: Sequence[int]) -> Plan:
        yield from ()
        raise Struck

    yield Together([part(function) for function in functions], 1, then)
    return Ok(None)


def test_when_results_cannot_be_stored_nothing_more_begins():
    """What ran now would run again."""
    called: list[int] = []
    with pytest.raises(Struck):
        Driver(None).drive(running([lambda number=number: called.append(number) for number in range(5)]))
    assert called == [0]


async def test_when_results_cannot_be_stored_nothing_more_begins_on_a_loop():
    """The one that has begun meanwhile may end."""
    called: list[int] = []

    async def function(number: int) -> None:
        called.append(number)
        for _ in range(5):
            await asyncio.sleep(0)

    with pytest.raises(Struck):
        await AsyncDriver(None).drive(running([lambda number=number: function(number) for number in range(5)]))
    assert called in ([0], [0, 1])
