"""What the engine itself costs: a hit in a ``dict``."""

from __future__ import annotations

from collections.abc import Iterator

from stepflows import Ok, create_workflow
from tests.benchmarks.contest import contest
from tests.benchmarks.server import Server
from tests.benchmarks.steps import FLOW, VALUE, called
from tests.benchmarks.stopwatch import repeated
from tests.benchmarks.table import Table

__all__ = ["tables"]


def tables(server: Server) -> Iterator[Table]:
    mapping = {"user:7": Ok(VALUE)}
    flow = create_workflow(FLOW, cache=mapping)
    contenders = {
        "dict look-up": repeated(lambda: mapping.get("user:7")),
        "stepflows, a step": called(flow, lambda step: step("fetch", dict, key="user:7")),
    }
    goals = {"stepflows, a step": {"µs": 4}}
    yield contest("A hit in a dict", "µs", server, contenders, times=2000, rounds=50, goals=goals)
