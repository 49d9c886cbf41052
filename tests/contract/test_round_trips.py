"""What a cache server is asked, counted by the server itself."""

from __future__ import annotations

from typing import Any

import pytest

from stepflows import Ok, create_workflow
from tests.calls import Calls
from tests.contract.test_steps import stepping
from tests.voices import Voice


def test_a_hit_is_exactly_one_get(voice: Voice, redis_alias: str, commandstats: Any):
    """Whatever the step, group or map of one entry."""
    flow = create_workflow("shop", cache=redis_alias)
    bodies = [
        stepping("a", lambda: 1, key="a"),
        stepping("b", {"x": lambda: 1}, key="b", method="all"),
        stepping("c", [1], str, key="c", method="map"),
    ]
    for body in bodies:
        voice.run(flow, body)
        with commandstats() as asked:
            voice.run(flow, body)
        assert asked == {"get": 1}


@pytest.mark.parametrize(("items", "round_trips"), [(1, 1), (500, 1), (501, 2), (1000, 2)])
def test_a_map_of_hits_is_one_mget_for_500(voice: Voice, redis_alias: str, commandstats: Any, items, round_trips):
    """Never a look-up per item."""
    flow = create_workflow("shop", cache=redis_alias)
    for item in range(items):
        flow.cache.set(str(item), Ok(item))
    work = Calls(1)
    with commandstats() as asked:
        result = voice.run(flow, stepping("map", range(items), work, key=str, method="map"))
    assert result == Ok(list(range(items)))
    assert work.count == 0
    assert asked == {"mget": round_trips}


def test_a_step_without_a_key_asks_nothing(voice: Voice, redis_alias: str, commandstats: Any):
    """There is nothing to look up."""
    flow = create_workflow("shop", cache=redis_alias)
    with commandstats() as asked:
        voice.run(flow, stepping("a", lambda: 1))
    assert asked == {}
