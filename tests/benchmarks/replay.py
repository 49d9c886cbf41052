"""A run that did ten thousand steps, run again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from django.core.cache import caches

from stepflows.caches.codec import current_codec
from stepflows.caches.names import Name, backend_key
from stepflows.engine.steps import AsyncStep, Step
from tests.benchmarks.contest import contest
from tests.benchmarks.server import Server
from tests.benchmarks.steps import ALIAS, VALUE, made_workflow, step_cache, write
from tests.benchmarks.stopwatch import Repeat, repeated
from tests.benchmarks.table import Table

__all__ = ["tables"]

STEPS = 10_000
BATCH = 500
KEYS = [f"order:{number}" for number in range(STEPS)]
PREFETCHED = "stepflows, prefetched"
ASYNC = "stepflows, prefetched, async"


def tables(server: Server) -> Iterator[Table]:
    server.flush()
    write(KEYS)
    title = f"A replay of {STEPS:,} steps in one run"
    with asyncio.Runner() as runner:
        contenders = _contenders() | _prefetched(runner)
        goal = {"ms": 60, "round trips": 20}
        goals = {PREFETCHED: goal, ASYNC: goal}
        yield contest(title, "ms", server, contenders, times=1, rounds=5, goals=goals)


def _body(step: Step, deps: Any) -> None:
    for key in KEYS:
        step("fetch", dict, key=key)


async def _abody(step: AsyncStep, deps: Any) -> None:
    for key in KEYS:
        await step("fetch", dict, key=key)


def _contenders() -> dict[str, Repeat]:
    cache: Any = caches[ALIAS]
    client, codec, flow, scope = cache.client.get_client(), current_codec(), made_workflow(), step_cache().scope
    names = [cache.make_key(backend_key(Name(scope, key))) for key in KEYS]
    cache.set_many(dict.fromkeys(KEYS, VALUE), None)

    def raw() -> list[Any]:
        found = [data for at in range(0, STEPS, BATCH) for data in client.mget(names[at : at + BATCH])]
        return [codec.decode(data, scope, key) for key, data in zip(KEYS, found, strict=True)]

    return {
        "cache.get each": repeated(lambda: [cache.get(key) for key in KEYS]),
        "raw MGET and decode": repeated(raw),
        "stepflows, one by one": repeated(lambda: flow.run(_body).unwrap()),
    }


def _prefetched(runner: asyncio.Runner) -> dict[str, Repeat]:
    flow = made_workflow()

    async def arun() -> None:
        (await flow.arun(_abody, prefetch=KEYS)).unwrap()

    return {
        PREFETCHED: repeated(lambda: flow.run(_body, prefetch=KEYS).unwrap()),
        ASYNC: repeated(lambda: runner.run(arun())),
    }
