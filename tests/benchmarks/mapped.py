"""A thousand keys at once, all there and all missing."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from cashews import Cache as Cashews
from django.core.cache import caches
from redis.asyncio import Redis as AsyncRedis

from stepflows.caches.codec import current_codec
from stepflows.caches.names import Name, backend_key
from stepflows.engine.steps import AsyncStep, Step
from tests.benchmarks import peers
from tests.benchmarks.contest import contest
from tests.benchmarks.server import Server
from tests.benchmarks.steps import ALIAS, VALUE, acalled, called, made_workflow, step_cache, write
from tests.benchmarks.stopwatch import Repeat, arepeated, repeated
from tests.benchmarks.table import Table

__all__ = ["tables"]

SIZE = 1000
BATCH = 500
KEYS = [f"user:{number}" for number in range(SIZE)]
STEPFLOWS = "stepflows, step.map"
ASYNC = "stepflows, async step.map"

Keys = Callable[[], list[str]]


def tables(server: Server) -> Iterator[Table]:
    server.flush()
    write(KEYS)
    numbers = count()

    def fresh() -> list[str]:
        return [f"new:{next(numbers)}" for _ in range(SIZE)]

    goals = {name: {"ratio": 2.5, "round trips": 3.0} for name in (STEPFLOWS, ASYNC)}
    yield contest(f"A map of {SIZE:,} hits", "ms", server, _hits(server), times=2, rounds=15, goals=goals)
    with (
        asyncio.Runner() as runner,
        peers.async_redis(runner, server.url) as client,
        peers.made_cashews(runner, server.url) as cashews,
    ):
        contenders = _async_hits(runner, client, cashews)
        yield contest(f"A map of {SIZE:,} hits, async", "ms", server, contenders, times=2, rounds=15, goals=goals)
        goals = {name: {"ms": 40.0} for name in (STEPFLOWS, ASYNC)}
        contenders = _misses(server, runner, fresh)
        yield contest(f"A map of {SIZE:,} misses of a no-op", "ms", server, contenders, times=1, goals=goals)


def _value(*_: Any) -> dict[str, Any]:
    return VALUE


def _mapped(keys: Keys) -> Callable[[Step], object]:
    return lambda step: step.map("fetch", keys(), _value, key=str)


def _amapped(keys: Keys) -> Callable[[AsyncStep], Any]:
    return lambda step: step.map("fetch", keys(), _value, key=str)


def _names() -> tuple[str, list[str]]:
    """The scope, and the keys as the server has them."""
    scope = step_cache().scope
    return scope, [caches[ALIAS].make_key(backend_key(Name(scope, key))) for key in KEYS]


def _hits(server: Server) -> dict[str, Repeat]:
    cache: Any = caches[ALIAS]
    client, codec, region = cache.client.get_client(), current_codec(), peers.dogpile(server.url)
    scope, names = _names()
    cache.set_many(dict.fromkeys(KEYS, VALUE), None)
    region.set_multi(dict.fromkeys(KEYS, VALUE))

    def raw() -> list[Any]:
        found = [data for at in range(0, SIZE, BATCH) for data in client.mget(names[at : at + BATCH])]
        return [codec.decode(data, scope, key) for key, data in zip(KEYS, found, strict=True)]

    return {
        "raw MGET, twice, and decode": repeated(raw),
        STEPFLOWS: called(made_workflow(), _mapped(lambda: KEYS)),
        "dogpile.cache get_or_create_multi": repeated(lambda: region.get_or_create_multi(KEYS, _value)),
        "django-redis get_many": repeated(lambda: cache.get_many(KEYS)),
        "django-redis get, one by one": repeated(lambda: [cache.get(key) for key in KEYS]),
    }


def _async_hits(runner: asyncio.Runner, client: AsyncRedis, cashews: Cashews) -> dict[str, Repeat]:
    codec = current_codec()
    scope, names = _names()
    runner.run(cashews.set_many(dict.fromkeys([f"cashews:{key}" for key in KEYS], VALUE), expire="1h"))

    async def raw() -> list[Any]:
        found = [data for at in range(0, SIZE, BATCH) for data in await client.mget(names[at : at + BATCH])]
        return [codec.decode(data, scope, key) for key, data in zip(KEYS, found, strict=True)]

    return {
        "raw redis.asyncio MGET, twice, and decode": arepeated(runner, raw),
        ASYNC: acalled(runner, made_workflow(), _amapped(lambda: KEYS)),
        "cashews get_many": arepeated(runner, lambda: cashews.get_many(*(f"cashews:{key}" for key in KEYS))),
    }


def _misses(server: Server, runner: asyncio.Runner, fresh: Keys) -> dict[str, Repeat]:
    cache: Any = caches[ALIAS]
    client, region = cache.client.get_client(), peers.dogpile(server.url)

    def pipelined() -> None:
        with client.pipeline(transaction=False) as pipeline:
            for key in fresh():
                pipeline.set(key, pickle.dumps(VALUE))
                pipeline.zadd("members", {key: 0})
            pipeline.execute()

    def created(*keys: str) -> list[Any]:
        return [VALUE for _ in keys]

    return {
        "pipeline of SET and ZADD, unprotected": repeated(pipelined),
        STEPFLOWS: called(made_workflow(), _mapped(fresh)),
        ASYNC: acalled(runner, made_workflow(), _amapped(fresh)),
        "dogpile.cache get_or_create_multi": repeated(lambda: region.get_or_create_multi(fresh(), created)),
        "django-redis set_many, unprotected": repeated(lambda: cache.set_many(dict.fromkeys(fresh(), VALUE), None)),
    }
