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


def reads(client: Any) -> int:
    """How often the server has read something from one of its clients; several commands at once are one."""
    return int(client.info("stats")["total_reads_processed"])


def test_a_lone_miss_is_three_round_trips(voice: Voice, redis_alias: str, valkey: Any, commandstats: Any):
    """Look up; ask for the lease and look again; store, list and give the lease back."""
    flow = create_workflow("shop", cache=redis_alias)
    # Scripts are loaded and connections made.
    voice.run(flow, stepping("a", lambda: 1, key="a"))

    def body(step, deps):
        # An event loop of its own begins with a connection of its own.
        yield step("a", lambda: 1, key="a")
        began = reads(valkey.client)
        yield step("b", lambda: 1, key="b")
        # The question itself is one.
        return reads(valkey.client) - began - 1

    with commandstats() as asked:
        assert voice.run(flow, body) == Ok(3)
    assert asked["evalsha"] == 2


@pytest.mark.parametrize("items", [500, 1000])
def test_a_map_of_misses_is_no_round_trip_per_item(voice: Voice, redis_alias: str, commandstats: Any, items: int):
    """Look-ups and leases go by 500, and what is done is stored as many at a time as have been done meanwhile."""
    flow = create_workflow("shop", cache=redis_alias)
    voice.run(flow, stepping("a", lambda: 1, key="a"))
    with commandstats() as asked:
        result = voice.run(flow, stepping("map", range(items), lambda item: item, key=str, method="map"))
    assert result == Ok(list(range(items)))
    assert asked["mget"] == items // 500
    # As many as items, if each were stored by itself.
    assert items // 500 < asked["evalsha"] < items // 4
