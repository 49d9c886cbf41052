"""A value that is not there, and nobody else wants it: look-up, lease, function, entry and index."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from cashews import Cache as Cashews
from django.core.cache import caches
from redis.asyncio import Redis as AsyncRedis

from tests.benchmarks import peers
from tests.benchmarks.contest import contest
from tests.benchmarks.server import Server
from tests.benchmarks.steps import ALIAS, VALUE, acalled, called, made_workflow
from tests.benchmarks.stopwatch import Repeat, arepeated, repeated
from tests.benchmarks.table import Table

__all__ = ["tables"]

CALLS = 100
ROUNDS = 25


def tables(server: Server) -> Iterator[Table]:
    server.flush()
    numbers = count()

    def fresh() -> str:
        return f"user:{next(numbers)}"

    goals = {"stepflows, a step": {"round trips": 3}, "stepflows, an async step": {"round trips": 3}}
    yield contest("A lone miss", "µs", server, _sync(server, fresh), times=CALLS, rounds=ROUNDS, goals=goals)
    with (
        asyncio.Runner() as runner,
        peers.async_redis(runner, server.url) as client,
        peers.made_cashews(runner, server.url) as cashews,
    ):
        contenders = _async(runner, client, cashews, fresh)
        yield contest("A lone miss, async", "µs", server, contenders, times=CALLS, rounds=ROUNDS, goals=goals)


def _value() -> dict[str, Any]:
    return VALUE


def _sync(server: Server, fresh: Callable[[], str]) -> dict[str, Repeat]:
    cache: Any = caches[ALIAS]
    client = cache.client.get_client()
    region = peers.dogpile(server.url)
    return {
        "redis-py Lock around GET and SET": repeated(lambda: peers.locked(client, fresh(), _value)),
        "stepflows, a step": called(made_workflow(), lambda step: step("fetch", _value, key=fresh())),
        "dogpile.cache get_or_create": repeated(lambda: region.get_or_create(fresh(), _value)),
        "cache.get_or_set, unprotected": repeated(lambda: cache.get_or_set(fresh(), _value, None)),
    }


def _async(runner: asyncio.Runner, client: AsyncRedis, cashews: Cashews, fresh: Callable[[], str]) -> dict[str, Repeat]:
    @cashews(ttl="1h", key="{key}", lock=True)
    async def locked(key: str) -> dict[str, Any]:
        return VALUE

    return {
        "redis.asyncio Lock around GET and SET": arepeated(runner, lambda: peers.alocked(client, fresh(), _value)),
        "stepflows, an async step": acalled(runner, made_workflow(), lambda step: step("fetch", _value, key=fresh())),
        "cashews, with lock": arepeated(runner, lambda: locked(fresh())),
    }
