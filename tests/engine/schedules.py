"""Every order of things.

A world has choices at each moment: one of its callers performs its next operation, or something bad happens. A
schedule is one way through all the choices, to where none is left. :func:`explore` goes through every schedule there
is. Worlds that have come to the same state by different ways go on in the same ways, so of those only the first is
followed; the number of schedules counts them all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

from tests.engine.world import Choice, World


@dataclass
class Explored:
    """How much there was."""

    schedules: int = 0
    states: int = 0


_LONGEST = 200


def explore(make: Callable[[], World], check: Callable[[World], None], *, merge: bool = True) -> Explored:
    """Go through every schedule, and check each world at its end. Raises :exc:`Violation`."""
    known: dict[Hashable, int] = {}
    explored = Explored()

    def replayed(schedule: Sequence[Choice]) -> World:
        world = make()
        for choice in schedule:
            world.take(choice)
        return world

    def follow(world: World) -> int:
        state = world.state() if merge else None
        if merge and state in known:
            world.require(known[state], "It goes round in circles.")
            return known[state]
        explored.states += 1
        world.require(len(world.schedule) < _LONGEST, "It never ends.")
        if merge:
            known[state] = 0
        schedules = sum(map(follow, branches(world))) or _end(world, check)
        if merge:
            known[state] = schedules
        return schedules

    def branches(world: World) -> Iterator[World]:
        path = list(world.schedule)
        for number, choice in enumerate(world.choices()):
            branch = replayed(path) if number else world
            branch.take(choice)
            yield branch

    explored.schedules = follow(make())
    return explored


def wander(world: World, check: Callable[[World], None], pick: Callable[[int], int]) -> None:
    """Go through one schedule; ``pick`` says which of so many choices."""
    while choices := world.choices():
        world.require(len(world.schedule) < _LONGEST, "It never ends.")
        world.take(choices[pick(len(choices))])
    _end(world, check)


def _end(world: World, check: Callable[[World], None]) -> int:
    waiting = [name for name, caller in world.callers.items() if caller.is_alive]
    world.require(not waiting, f"{waiting} wait for ever.")
    check(world)
    return 1
