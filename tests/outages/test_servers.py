"""A server that forgets: its data, its scripts, its clients, between two steps and in the middle of one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stepflows import Event, Ok, create_workflow
from tests.calls import Calls
from tests.contract.test_steps import stepping
from tests.outages.conftest import BACKENDS
from tests.outages.single import Single
from tests.voices import Voice

#: What a server can suffer and go on, without a word to its clients.
KEEPING: dict[str, Callable[[Single], object]] = {
    "forgets scripts": lambda single: single.client.script_flush("SYNC"),
    "closes connections": lambda single: single.kill_clients(),
    "restarts with its data": lambda single: single.restart(keep=True),
}
FORGETTING: dict[str, Callable[[Single], object]] = {
    "is emptied": lambda single: single.client.flushall(),
    "restarts without its data": lambda single: single.restart(),
}
ACCIDENTS = {**KEEPING, **FORGETTING}


@pytest.fixture(params=BACKENDS)
def alias(request: pytest.FixtureRequest, single: Single, add_alias: Callable[..., str]) -> str:
    """Both ways to the server in turn; without a proxy, behind which the end of a connection is noticed later."""
    return add_alias(request.param, single.url)


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_in_the_middle_of_a_step(voice: Voice, alias: str, single: Single, events: list[Event], caplog, accident: str):
    """Its result is stored all the same, nothing is reported as lost, and the step ran once."""

    def charge():
        ACCIDENTS[accident](single)
        return "charged"

    work = Calls(charge)
    flow = create_workflow("shop", cache=alias, on_event=events.append)
    body = stepping("charge", work, key="order:7")

    assert [voice.run(flow, body), voice.run(flow, body)] == [Ok("charged")] * 2

    assert work.count == 1
    kinds = [event.type for event in events]
    assert kinds.count("step_cache_hit") == 1
    assert "step_cache_write_failed" not in kinds
    assert list(flow.cache.keys()) == ["order:7"]


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_between_two_steps(voice: Voice, alias: str, single: Single, accident: str):
    """The next step of the run notices nothing; what was there is there, or runs again if it is gone."""
    done, work = Calls("fetched"), Calls("charged")

    def body(step, deps):
        first = yield step("fetch", done, key="user:1")
        second = yield step("charge", work, key="order:7")
        ACCIDENTS[accident](single)
        third = yield step("fetch", done, key="user:1")
        fourth = yield step("charge", work, key="order:8")
        return first, second, third, fourth

    result = voice.run(create_workflow("shop", cache=alias), body)

    assert result == Ok(("fetched", "charged", "fetched", "charged"))
    assert done.count == (2 if accident in FORGETTING else 1)
    assert work.count == 2


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_in_the_middle_of_a_map(voice: Voice, alias: str, single: Single, accident: str):
    """No item runs twice in the run, and all it knows of is stored or was there."""

    def charge(item):
        if item == 3:
            ACCIDENTS[accident](single)
        return item

    work = Calls(charge)
    flow = create_workflow("shop", cache=alias)
    body = stepping("charge", range(6), work, key=str, method="map", limit=1)

    assert voice.run(flow, body) == Ok([0, 1, 2, 3, 4, 5])

    assert work.count == 6
    assert {"3", "4", "5"} <= set(flow.cache.keys())


@pytest.mark.parametrize("accident", KEEPING)
def test_between_two_runs(voice: Voice, alias: str, single: Single, accident: str):
    """The next run hits."""
    work = Calls("charged")
    flow = create_workflow("shop", cache=alias)
    body = stepping("charge", work, key="order:7")
    assert voice.run(flow, body) == Ok("charged")
    ACCIDENTS[accident](single)

    assert voice.run(flow, body) == Ok("charged")
    assert work.count == 1
