"""Every kind of cache passes the suite that ships with stepflows."""

from typing import Any
from uuid import uuid4

import pytest
from django.core.cache import caches
from redis.asyncio import Redis

from stepflows import dumps, loads
from stepflows.caches.names import Name, backend_key
from stepflows.caches.stepcache import StepCache
from stepflows.engine.cache import Damaged
from stepflows.testing import DamageConformance, Voice
from tests.maplikes import OwnMapping


class TestDict(DamageConformance):
    def make_cache(self):
        return {}

    def damage(self, voice, key):
        voice.given[key] = 17


class TestMutableMapping(TestDict):
    def make_cache(self):
        return OwnMapping()


class SyncMap:
    """A Map-like that keeps results in its memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def get(self, key):
        return self.kept.get(key)

    def set(self, key, result):
        self.kept[key] = result

    def has(self, key):
        return key in self.kept

    def delete(self, key):
        return self.kept.pop(key, None) is not None


class TestSyncMap(DamageConformance):
    def make_cache(self):
        return SyncMap()

    def damage(self, voice, key):
        voice.given.kept[key] = "junk"


class BytesMap(SyncMap):
    """A Map-like that keeps bytes, as one over a server would."""

    def get(self, key):
        data = self.kept.get(key)
        return None if data is None else loads(data)

    def set(self, key, result):
        self.kept[key] = dumps(result)


class TestBytesMap(DamageConformance):
    def make_cache(self):
        return BytesMap()

    def damage(self, voice, key):
        voice.given.kept[key] = b"junk"


class AwaitableMap(SyncMap):
    """A Map-like whose plain methods return something to await."""

    def get(self, key):
        return self._later(super().get(key))

    def set(self, key, result):
        return self._later(super().set(key, result))

    def delete(self, key):
        return self._later(super().delete(key))

    async def _later(self, answer):
        return answer


class TestAwaitableMap(TestSyncMap):
    def make_cache(self):
        return AwaitableMap()


class RedisMap:
    """An async Map-like over redis.asyncio; a connection belongs to one event loop, so each call has its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = uuid4().hex

    async def ask(self, command, *args, **options):
        async with Redis.from_url(self.url) as redis:
            return await getattr(redis, command)(*args, **options)

    async def get(self, key):
        data = await self.ask("get", self.prefix + key)
        return None if data is None else loads(data)

    async def set(self, key, result, ttl=None):
        await self.ask("set", self.prefix + key, dumps(result), px=ttl and max(1, int(ttl * 1000)))

    async def has(self, key):
        return bool(await self.ask("exists", self.prefix + key))

    async def delete(self, key):
        return bool(await self.ask("delete", self.prefix + key))


class TestAsyncMap(DamageConformance):
    @pytest.fixture(autouse=True)
    def _server(self, valkey):
        self.url = valkey.url

    def make_cache(self):
        return RedisMap(self.url)

    def damage(self, voice, key):
        voice.finish(voice.given.ask("set", voice.given.prefix + key, b"junk"))


class DjangoConformance(DamageConformance):
    alias: str

    def make_cache(self):
        return self.alias

    def damage(self, voice: Voice, key: str) -> None:
        assert isinstance(voice.cache, StepCache)
        caches[self.alias].set(backend_key(Name(voice.cache.scope, key)), {"foreign": object}, timeout=None)


class TestLocMem(DjangoConformance):
    alias = "locmem"


@pytest.mark.django_db(transaction=True)
class TestDatabase(DjangoConformance):
    alias = "database"


class TestFile(DjangoConformance):
    alias = "file"


@pytest.mark.usefixtures("valkey")
class TestDjangoRedisBackend(DjangoConformance):
    alias = "redis"


@pytest.mark.usefixtures("valkey")
class TestDjangoRedis(DjangoConformance):
    alias = "django_redis"


@pytest.mark.usefixtures("valkey")
class TestRedisValueOfAnotherType(DjangoConformance):
    """A list of somebody's in the place of an entry."""

    alias = "redis"

    def damage(self, voice, key):
        cache: Any = caches[self.alias]
        place = cache.make_key(backend_key(Name(voice.cache.scope, key)))
        cache._cache.get_client(write=True).rpush(place, "a")

    def test_a_damaged_entry_is_told_apart(self):
        """A lone read tells it apart; among many, Redis itself says that nothing is there."""
        for cache in self.voices():
            self.damage(cache, "user:1")
            assert isinstance(cache.load("user:1"), Damaged)


@pytest.mark.parametrize("method", ["make_cache", "damage"])
def test_a_suite_that_is_not_finished(method):
    """A suite says what its author has still to write."""
    with pytest.raises(NotImplementedError, match=r"Return a cache|Put something"):
        getattr(DamageConformance(), method)(*[None, "user:1"][: 2 * (method == "damage")])
