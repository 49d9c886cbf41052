"""A small value that is there: one step, and what else reads one value from Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from cache_memoize import cache_memoize
from cashews import Cache as Cashews
from django.core.cache import caches
from redis.asyncio import Redis as AsyncRedis

from stepflows.caches.codec import current_codec
from stepflows.caches.names import Name, backend_key
from tests.benchmarks import peers
from tests.benchmarks.contest import contest
from tests.benchmarks.server import Server
from tests.benchmarks.steps import ALIAS, VALUE, acalled, called, made_workflow, step_cache, write
from tests.benchmarks.stopwatch import Repeat, arepeated, repeated
from tests.benchmarks.table import Table

__all__ = ["ASYNC", "PLOTTED", "SYNC", "tables"]

SYNC = "A hit"
ASYNC = "A hit, async"
KEY = "user:7"
# Short rounds and many of them: some fall between what else the machine does.
CALLS = 500
ROUNDS = 25
#: What the README shows.
PLOTTED = frozenset(
    {
        "stepflows, a step",
        "stepflows, an async step",
        "django-redis get",
        "cache.get_or_set",
        "dogpile.cache get_or_create",
        "django-cache-memoize",
        "Django's own RedisCache get",
        "cashews",
    }
)


def tables(server: Server) -> Iterator[Table]:
    server.flush()
    write([KEY])
    write([KEY], alias="redis")
    goal = {"ratio": 1.25, "round trips": 1}
    goals = {"stepflows, a step": goal, "stepflows, an async step": goal}
    yield contest(SYNC, "µs", server, _sync(server), times=CALLS, rounds=ROUNDS, goals=goals, commands=True)
    with (
        asyncio.Runner() as runner,
        peers.async_redis(runner, server.url) as client,
        peers.made_cashews(runner, server.url) as cashews,
    ):
        contenders = _async(runner, client, cashews)
        yield contest(ASYNC, "µs", server, contenders, times=CALLS, rounds=ROUNDS, goals=goals, commands=True)


def _sync(server: Server) -> dict[str, Repeat]:
    cache: Any = caches[ALIAS]
    djangos: Any = caches["redis"]
    steps, codec = step_cache(), current_codec()
    client, key = cache.client.get_client(), cache.make_key(backend_key(Name(steps.scope, KEY)))
    region = peers.dogpile(server.url)
    for each in (cache, djangos):
        each.set("plain", VALUE, None)

    @cache_memoize(peers.HOUR, cache_alias=ALIAS)
    def memoized(number: int) -> dict[str, Any]:
        return VALUE

    return {
        "raw GET and decode": repeated(lambda: codec.decode(client.get(key), steps.scope, KEY)),
        "stepflows, a step": called(made_workflow(), lambda step: step("fetch", dict, key=KEY)),
        "stepflows, a step on Django's own RedisCache": called(
            made_workflow("redis"), lambda step: step("fetch", dict, key=KEY)
        ),
        "StepCache.get": repeated(lambda: steps.get(KEY)),
        "django-redis get": repeated(lambda: cache.get("plain")),
        "cache.get_or_set": repeated(lambda: cache.get_or_set("plain", dict, None)),
        "dogpile.cache get_or_create": repeated(lambda: region.get_or_create("user:7", lambda: VALUE)),
        "django-cache-memoize": repeated(lambda: memoized(7)),
        "Django's own RedisCache get": repeated(lambda: djangos.get("plain")),
    }


def _async(runner: asyncio.Runner, client: AsyncRedis, cashews: Cashews) -> dict[str, Repeat]:
    cache: Any = caches[ALIAS]
    scope, codec = step_cache().scope, current_codec()
    key = cache.make_key(backend_key(Name(scope, KEY)))

    async def raw() -> object:
        return codec.decode(await client.get(key), scope, KEY)

    @cashews(ttl="1h", key="user:{number}")
    async def plain(number: int) -> dict[str, Any]:
        return VALUE

    @cashews(ttl="1h", key="locked:{number}", lock=True)
    async def locked(number: int) -> dict[str, Any]:
        return VALUE

    return {
        "raw redis.asyncio GET and decode": arepeated(runner, raw),
        "stepflows, an async step": acalled(runner, made_workflow(), lambda step: step("fetch", dict, key=KEY)),
        "cashews": arepeated(runner, lambda: plain(7)),
        "cashews, with lock": arepeated(runner, lambda: locked(7)),
    }
