"""The alternatives, set up as their documentation recommends."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import cashews
from dogpile.cache import CacheRegion, make_region
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

__all__ = ["HOUR", "alocked", "async_redis", "dogpile", "locked", "made_cashews"]

HOUR: Final = 3600


def dogpile(url: str) -> CacheRegion:
    """One for many processes: with the lock of its Redis backend."""
    arguments = {"url": url, "redis_expiration_time": HOUR, "distributed_lock": True, "thread_local_lock": False}
    return make_region().configure("dogpile.cache.redis", arguments=arguments)


@contextmanager
def made_cashews(runner: asyncio.Runner, url: str) -> Iterator[cashews.Cache]:
    cache = cashews.Cache()
    cache.setup(url)
    yield cache
    runner.run(cache.close())


@contextmanager
def async_redis(runner: asyncio.Runner, url: str) -> Iterator[AsyncRedis]:
    client = AsyncRedis.from_url(url)
    yield client
    runner.run(client.aclose())


def locked(client: Redis, key: str, function: Callable[[], Any]) -> Any:
    """What one writes by hand: redis-py's lock around get and set."""
    with client.lock(f"lock:{key}", timeout=30):
        found = client.get(key)
        if found is not None:
            return pickle.loads(found)
        value = function()
        client.set(key, pickle.dumps(value))
        return value


async def alocked(client: AsyncRedis, key: str, function: Callable[[], Any]) -> Any:
    async with client.lock(f"lock:{key}", timeout=30):
        found = await client.get(key)
        if found is not None:
            return pickle.loads(found)
        value = function()
        await client.set(key, pickle.dumps(value))
        return value
