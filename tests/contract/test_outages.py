"""A cache that cannot be reached."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from stepflows import CacheUnavailable, Event, Ok, create_workflow
from tests.calls import Calls
from tests.contract.test_steps import stepping
from tests.maplikes import BrokenMap
from tests.voices import Voice


@pytest.mark.parametrize("method", ["__call__", "map"])
def test_by_default_nothing_runs(voice: Voice, events: list[Event], method: str):
    """Err(CacheUnavailable), so that nothing is charged twice."""
    work = Calls(1)
    flow = create_workflow("shop", cache=BrokenMap(), on_event=events.append)
    arguments: list[Any] = [work] if method == "__call__" else [[1, 2], work]
    key: Any = "a" if method == "__call__" else str
    result = voice.run(flow, stepping("charge", *arguments, key=key, method=method))
    assert isinstance(result.error, CacheUnavailable)
    assert isinstance(result.cause, ConnectionError)
    assert result.step.label == "charge"
    assert work.count == 0
    assert "step_error" in [event.type for event in events]


@pytest.mark.parametrize("place", ["workflow", "settings"])
def test_steps_run_uncached_if_so_wished(voice: Voice, settings, place: str, caplog):
    """on_cache_down="run"; a key still runs once in one run."""
    work = Calls(lambda *_: 1)
    if place == "settings":
        settings.STEPFLOWS = {"ON_CACHE_DOWN": "run"}
    options: Any = {"on_cache_down": "run"} if place == "workflow" else {}

    def body(step, deps):
        first = yield step("a", work, key="a")
        second = yield step("a", work, key="a")
        third = yield step.map("b", [1, 2], work, key=str)
        return first, second, third

    with caplog.at_level(logging.WARNING, "stepflows"):
        assert voice.run(create_workflow("shop", cache=BrokenMap(), **options), body) == Ok((1, 1, [1, 1]))
    assert work.count == 3
    assert "uncached" in caplog.text


def test_steps_without_a_key_never_ask_the_cache(voice: Voice):
    """So they run whatever its state."""
    assert voice.run(create_workflow("shop", cache=BrokenMap()), stepping("a", lambda: 1)) == Ok(1)


def test_a_body_may_catch_the_outage(voice: Voice):
    """It leaves the step as an exception like others."""

    def body(step, deps):
        try:
            yield step("a", lambda: 1, key="a")
        except CacheUnavailable:
            return "later"

    assert voice.run(create_workflow("shop", cache=BrokenMap()), body) == Ok("later")
