"""stepflows as the benchmarks use it: workflows, steps called many times, and entries written in bulk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from stepflows import Ok, StepCache, Workflow, create_workflow
from stepflows.caches import backend_for
from stepflows.caches.backend import Write
from stepflows.caches.codec import current_codec
from stepflows.caches.names import Name, scope_of
from stepflows.engine.steps import AsyncStep, Step
from stepflows.results import Stamp, stamped
from tests.benchmarks.stopwatch import Repeat

__all__ = ["ALIAS", "FLOW", "VALUE", "acalled", "called", "made_workflow", "step_cache", "write"]

ALIAS: Final = "django_redis"
FLOW: Final = "bench"
VALUE: Final = {"id": 7, "name": "Ada", "total": 12.5, "tags": ["a", "b"]}

_BATCH: Final = 1000


def made_workflow(alias: str = ALIAS) -> Workflow:
    return create_workflow(FLOW, cache=alias)


def step_cache(alias: str = ALIAS) -> StepCache:
    """The cache of that workflow."""
    return StepCache(alias, namespace=FLOW)


def called(flow: Workflow, call: Callable[[Step], object]) -> Repeat:
    """Steps of one run, one after the other."""

    def body(step: Step, deps: Any, times: int) -> None:
        for _ in range(times):
            call(step)

    return lambda times: flow.run(body, times).unwrap()


def acalled(runner: asyncio.Runner, flow: Workflow, call: Callable[[AsyncStep], Awaitable[object]]) -> Repeat:
    """The same with an async body."""

    async def body(step: AsyncStep, deps: Any, times: int) -> None:
        for _ in range(times):
            await call(step)

    async def run(times: int) -> None:
        (await flow.arun(body, times)).unwrap()

    return lambda times: runner.run(run(times))


def write(keys: Iterable[str], *, alias: str = ALIAS, ttl: float | None = None) -> None:
    """The entries that steps of the workflow leave behind."""
    backend, codec, scope = backend_for(alias), current_codec(), scope_of(FLOW)
    now = time.time()
    result = stamped(Ok(VALUE), Stamp("fetch", now, 0.2, "bench", None if ttl is None else now + ttl))
    for batch in _batches(keys):
        backend.write([Write(Name(scope, key), codec.encode(result, scope, key), ttl) for key in batch])


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    keys = iter(keys)
    while batch := list(islice(keys, _BATCH)):
        yield batch
