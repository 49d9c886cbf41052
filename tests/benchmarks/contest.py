"""Contenders that do the same thing in their own way: how long each takes, and what it asks the server."""

from __future__ import annotations

from collections.abc import Mapping

from tests.benchmarks.server import Server
from tests.benchmarks.stopwatch import Repeat, fastest
from tests.benchmarks.table import Table, Value, compared

__all__ = ["contest"]


def contest(
    title: str,
    unit: str,
    server: Server,
    contenders: Mapping[str, Repeat],
    *,
    times: int,
    rounds: int = 7,
    goals: Mapping[str, Mapping[str, float]] | None = None,
    commands: bool = False,
) -> Table:
    """The first contender is what the others are compared with. The server is asked in a call that is not timed."""
    seconds = fastest(contenders, times=times, rounds=rounds)
    more: dict[str, dict[str, Value]] = {}
    for name, repeat in contenders.items():
        asked = server.asked(lambda repeat=repeat: repeat(1))
        more[name] = {"round trips": asked.round_trips} | ({"commands": asked.commands} if commands else {})
    return compared(title, unit, seconds, goals=goals, more=more)
