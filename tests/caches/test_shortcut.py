"""Redis: a GET straight on the connection, and when it takes the long way."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import redis
from django.core.cache import caches
from redis import asyncio as aredis
from redis.backoff import ConstantBackoff
from redis.cache import CacheConfig
from redis.exceptions import ResponseError
from redis.retry import Retry

from stepflows import CacheUnavailable
from stepflows.caches import backend_for
from stepflows.caches.backend import Write
from stepflows.caches.names import Name
from stepflows.caches.shortcut import shortcut

NAME = Name("checkout", "user:1")
_numbers = itertools.count()


@pytest.fixture
def client(valkey: Any) -> Any:
    """As the caches of Django and django-redis make it."""
    pool = redis.ConnectionPool.from_url(valkey.url, client_name=f"shortcut-{next(_numbers)}")
    with redis.Redis(connection_pool=pool) as client:
        yield client
    pool.disconnect()


def test_it_gives_what_is_there(client: Any):
    """The bytes, or nothing; on a connection that goes back to the pool."""
    get = shortcut(client)
    client.set("a", b"data")
    assert get("a") == b"data"
    assert get("b") is None
    assert len(client.connection_pool._available_connections) == 1


def test_the_backends_take_it(redis_alias: str, monkeypatch: pytest.MonkeyPatch):
    """A hit does not go through execute_command."""
    backend = backend_for(redis_alias)
    backend.write([Write(NAME, b"data")])
    monkeypatch.setattr(redis.Redis, "_execute_command", None)
    assert backend.read(NAME) == b"data"


def test_a_key_of_another_type_keeps_the_connection(client: Any):
    """The server's refusal is a whole reply."""
    client.lpush("a", "b")
    get = shortcut(client)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        get("a")
    (connection,) = client.connection_pool._available_connections
    assert connection._sock is not None


def test_a_connection_with_an_unread_reply_is_dropped(client: Any, monkeypatch: pytest.MonkeyPatch):
    """The next one would take it for its own."""
    client.set("a", b"first")
    client.set("b", b"second")
    get = shortcut(client)
    with monkeypatch.context() as patch:
        patch.setattr(redis.Connection, "read_response", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            get("a")
    assert get("b") == b"second"


def _interrupted(connection: Any, *_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_a_server_that_has_closed_the_connection_is_asked_on_another(client: Any, valkey: Any):
    """As with any command of redis-py."""
    client.set("a", b"data")
    get = shortcut(client)
    valkey.client.client_kill_filter(_type="normal", skipme=True)
    assert get("a") == b"data"


def test_a_tracer_sees_every_hit(valkey: Any, settings: Any, monkeypatch: pytest.MonkeyPatch):
    """Who has wrapped redis-py's method, by whatever means, is not gone round."""
    seen: list[Any] = []
    original = redis.Redis.execute_command

    def traced(self: Any, *args: Any, **options: Any) -> Any:
        seen.append(args[0])
        return original(self, *args, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", traced)
    settings.CACHES = {"a": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": valkey.url}}
    caches["a"].set("x", 1)
    assert backend_for("a").read(NAME) is None
    assert "GET" in seen


def test_a_wrapper_object_is_seen_as_well(client: Any, monkeypatch: pytest.MonkeyPatch):
    """Some tracers put an object in the method's place."""

    class Wrapper:
        def __init__(self, wrapped: Any) -> None:
            self.__code__ = wrapped.__code__

    monkeypatch.setattr(redis.Redis, "execute_command", Wrapper(redis.Redis.execute_command))
    assert shortcut(client) is None


def test_retries_of_the_project_hold(valkey: Any):
    """They are in the layer that would be left out."""
    pool = redis.ConnectionPool.from_url(valkey.url, retry=Retry(ConstantBackoff(0), 3))
    assert shortcut(redis.Redis(connection_pool=pool)) is None
    pool = redis.ConnectionPool.from_url(valkey.url, retry=Retry(ConstantBackoff(0), 0))
    assert shortcut(redis.Redis(connection_pool=pool)) is not None


def test_redis_pys_own_cache_is_asked(valkey: Any):
    """And a client of somebody's own is left to do as it likes."""
    pool = redis.ConnectionPool.from_url(valkey.url, protocol=3, cache_config=CacheConfig())
    assert shortcut(redis.Redis(connection_pool=pool)) is None

    class Own(redis.Redis):
        pass

    assert shortcut(Own(connection_pool=redis.ConnectionPool.from_url(valkey.url))) is None


def test_a_server_that_is_away_is_an_outage(settings: Any):
    """With the error of redis-py as its cause."""
    settings.CACHES = {"a": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1"}}
    with pytest.raises(CacheUnavailable) as caught:
        backend_for("a").read(NAME)
    assert isinstance(caught.value.__cause__, redis.ConnectionError)


async def test_event_loops_have_one_as_well(redis_alias: str, monkeypatch: pytest.MonkeyPatch):
    """On a connection of their own."""
    backend = backend_for(redis_alias)
    backend.write([Write(NAME, b"data")])
    assert await backend.aread(NAME) == b"data"
    monkeypatch.setattr(aredis.Redis, "execute_command", None)
    assert await backend.aread(NAME) == b"data"


async def test_a_loop_asks_again_where_the_server_has_closed_the_connection(redis_alias: str, valkey: Any):
    """It cannot see that before it has tried."""
    backend = backend_for(redis_alias)
    await backend.awrite([Write(NAME, b"data")])
    valkey.client.client_kill_filter(_type="normal", skipme=True)
    assert await backend.aread(NAME) == b"data"


async def test_a_loop_keeps_the_connection_for_a_refusal(redis_alias: str, valkey: Any):
    """A list of somebody's in the place is no outage."""
    backend = backend_for(redis_alias)
    await backend.awrite([Write(NAME, b"data")])
    (key,) = valkey.client.keys("*user:1")
    valkey.client.delete(key)
    valkey.client.lpush(key, "a")
    assert await backend.aread(NAME) == b""
    valkey.client.delete(key)
    assert await backend.aread(NAME) is None


async def test_a_tracer_of_async_commands_sees_every_hit(valkey: Any, settings: Any, monkeypatch: pytest.MonkeyPatch):
    """As with the sync ones."""
    seen: list[Any] = []
    original = aredis.Redis.execute_command

    async def traced(self: Any, *args: Any, **options: Any) -> Any:
        seen.append(args[0])
        return await original(self, *args, **options)

    monkeypatch.setattr(aredis.Redis, "execute_command", traced)
    settings.CACHES = {"a": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": valkey.url}}
    assert await backend_for("a").aread(NAME) is None
    assert seen == ["GET"]


async def test_retries_of_the_project_hold_on_a_loop(valkey: Any, settings: Any, monkeypatch: pytest.MonkeyPatch):
    """They are in the layer that would be left out there too."""
    options = {"CONNECTION_POOL_KWARGS": {"retry": Retry(ConstantBackoff(0), 3)}}
    location = f"{valkey.url}?client_name=shortcut-{next(_numbers)}"
    settings.CACHES = {
        "a": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": location, "OPTIONS": options},
    }
    seen: list[Any] = []
    original = aredis.Redis._send_command_parse_response

    async def noted(self: Any, connection: Any, command: str, *args: Any, **options: Any) -> Any:
        seen.append(command)
        return await original(self, connection, command, *args, **options)

    monkeypatch.setattr(aredis.Redis, "_send_command_parse_response", noted)
    assert await backend_for("a").aread(NAME) is None
    assert seen == ["GET"]
