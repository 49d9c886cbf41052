"""What has to hold at the end of every schedule, whatever its order was."""

from __future__ import annotations

from typing import Any

from stepflows.errors import CacheUnavailable
from stepflows.results import Err, Ok
from tests.engine.callers import Caller, shown
from tests.engine.world import World


def one_result(world: World) -> None:
    """All that have a result have what stands in the cache, and nobody ran it again without need."""
    for key in world.keys:
        callers = [caller for caller in answered(world) if key in caller.asks.keys]
        results = {_result_of(caller, key) for caller in callers if not _stands_alone(world, caller)}
        world.require(len(results) <= 1, f"They have different results of {key}.")
        standing = shown(world.ground.standing(key))
        world.require(results <= {standing}, f"What they have of {key} is not what is stored.")
        world.require(world.runs(key) or not callers, f"{key} never ran.")
        runs_as_needed(world, key)
    nothing_left_behind(world)


def one_failure(world: World) -> None:
    """The same for maps whose functions all fail: each ends with a failure that is stored."""
    standing = {shown(world.ground.standing(key)) for key in world.keys}
    for caller in answered(world):
        world.require(shown(caller.result) in standing, f"What {caller.name} has is not what is stored.")
    for key in world.keys:
        world.require(world.runs(key) <= 1 + world.lost, f"{key} ran {world.runs(key)} times.")
    nothing_left_behind(world)


def each_its_own(world: World) -> None:
    """For errors that are not stored: all that have a result ran it once, each in its turn."""
    for caller in answered(world):
        world.require(caller.runs["k"] == 1, f"{caller.name} ran it {caller.runs['k']} times.")
        world.require(f"k:{caller.name}1" in shown(caller.result), f"{caller.name} has somebody else's error.")
    world.require(len(world.stood) == 1, "Something was stored.")
    nothing_left_behind(world)


def refreshed_by_a(world: World) -> None:
    """The first caller has its own result, which stands at the end; the others have what stood at some time."""
    refreshing = world.callers["A"]
    if refreshing.result:
        world.require("k:A1" in shown(refreshing.result), "A has not refreshed it.")
        world.require(shown(world.ground.standing("k")) == shown(refreshing.result), "What A has was not stored.")
    for caller in world.finished():
        world.require(shown(caller.result) in world.stood, f"What {caller.name} has was never stored.")
    most = 2 + in_vain(world)
    world.require(world.runs() <= most, f"It ran {world.runs()} times, and {most} would be enough.")
    others = world.runs() - refreshing.runs["k"]
    world.require("Ok('old')" not in world.stood or not others, "Others ran it, although it was there.")
    nothing_left_behind(world)


def first_stored_wins(world: World) -> None:
    """For callers that ask for no leases: they may all run it, and have one result."""
    results = {shown(caller.result) for caller in world.finished()}
    world.require(results <= {shown(world.ground.standing("k"))}, "Not all have what is stored.")
    world.require(all(caller.runs["k"] <= 1 for caller in world.callers.values()), "Somebody ran it twice.")


def never_down(world: World) -> None:
    """For callers that run uncached rather than fail."""
    world.require(all(caller.result and caller.result.ok for caller in world.finished()), "Somebody failed.")
    world.require(all(caller.runs["k"] <= 1 for caller in world.callers.values()), "Somebody ran it twice.")


def runs_as_needed(world: World, key: str) -> None:
    """Once, and once more for each run that came to nothing."""
    most = 1 + in_vain(world)
    world.require(world.runs(key) <= most, f"{key} ran {world.runs(key)} times, and {most} would be enough.")


def in_vain(world: World) -> int:
    """How many runs may have come to nothing."""
    return world.lost + sum(world.happened[fault] for fault in ("cancel", "cut off", "roll back"))


def nothing_left_behind(world: World) -> None:
    """Only who died, or was cut off from the cache, may leave a lease."""
    may = world.adrift or world.happened["crash"] or world.happened["cut off"]
    world.require(may or not (world.orphans or world.ground.holders()), "A lease is left behind.")


def answered(world: World) -> list[Caller]:
    """Who has a result, and not only word that the cache is away."""
    return [caller for caller in world.finished() if not _is_away(caller.result)]


def _stands_alone(world: World, caller: Caller) -> bool:
    """Its result counts for itself alone: it was rolled back, or it lost first the lease and then the cache."""
    cut_off = any(answer.startswith("cut off") for answer in caller.history)
    return "roll back" in caller.history or (cut_off and world.lost > 0)


def _result_of(caller: Caller, key: str) -> str:
    keys = caller.asks.keys
    if len(keys) == 1 or caller.result is None:
        return shown(caller.result)
    return shown(Ok(caller.result.unwrap()[keys.index(key)]))


def _is_away(result: Any) -> bool:
    return isinstance(result, Err) and isinstance(result.error, CacheUnavailable)
