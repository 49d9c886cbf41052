"""Commands on the connection of one of Django's Redis caches, in two voices."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from functools import partial
from hashlib import sha1
from typing import Any, Final, TypeAlias, TypeVar, cast

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import BaseCache, default_key_func
from django_redis.cache import RedisCache
from redis import BlockingConnectionPool, ConnectionPool, exceptions
from redis import asyncio as aredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import Connection as TCPConnection
from redis.connection import SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry as SyncRetry

from stepflows.caches.shortcut import ashortcut, shortcut
from stepflows.errors import InvalidUse

__all__ = ["Connection", "Flow", "Script"]

T = TypeVar("T")

#: Yields commands, is sent the replies (or thrown what the client raises), and returns what they come to.
Flow: TypeAlias = Generator[tuple[Any, ...], Any, T]

#: Connections that one event loop uses at the same time; whoever wants more waits for one.
_MOST: Final = 32
#: What a connection is made of, in either voice.
_KINDS: Final[dict[type, type[aredis.Connection | aredis.UnixDomainSocketConnection]]] = {
    TCPConnection: aredis.Connection,
    SSLConnection: aredis.SSLConnection,
    UnixDomainSocketConnection: aredis.UnixDomainSocketConnection,
}
# What the sync pool puts there for its own connections, or is of no use to one that only gives bytes.
_OWN: Final = {
    "event_dispatcher",
    "himport_registry",
    "maint_notifications_config",
    "maint_notifications_pool_handler",
    "orig_host_address",
    "orig_socket_connect_timeout",
    "orig_socket_timeout",
    "parser_class",
}


class Script:
    """A script of the server's, sent whole only when the server does not have it yet."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._digest = sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[Any], arguments: Iterable[str | bytes | int] = ()) -> Flow[Any]:
        rest = (len(keys), *keys, *arguments)
        try:
            return (yield ("EVALSHA", self._digest, *rest))
        except exceptions.NoScriptError:
            return (yield ("EVAL", self._text, *rest))


class Connection:
    """The connection of a cache, with bytes going in and out.

    How often and how long the client tries is as the project configured it, in both voices.
    """

    def __init__(self, title: str, cache: Any) -> None:
        # Both keep a pool that may be used by all threads and that notices a fork.
        if isinstance(cache, RedisCache):
            client: Any = cache.client.get_client(write=True)
        else:
            client = cache._cache.get_client(None, write=True)  # noqa: SLF001 - as the cache itself does
        if client.connection_pool.connection_kwargs.get("decode_responses"):
            raise InvalidUse(
                f"The {title} has decode_responses=True, but entries are bytes and no text. Take that option "
                "away, or use another alias for steps."
            )
        self.cache: BaseCache = cache
        self.make_key = cache.make_key
        # If the project's client has a cache of its own, that has to be told which of a command's words are keys.
        has_cache = getattr(client.connection_pool, "cache", None) is not None
        self._execute = partial(_with_keys, client) if has_cache else client.execute_command
        #: Gives the bytes under one key, at once.
        self.get = shortcut(client) or partial(self._execute, "GET")
        #: Whether every thread makes the same key of a name.
        self.has_stock_keys = cache.key_func is default_key_func and type(cache).make_key is BaseCache.make_key
        self._pool = client.connection_pool
        self._asynchronous = _Asynchronous.of(self._pool) if self.has_stock_keys else None

    @property
    def is_for_loops(self) -> bool:
        """Whether event loops have connections of their own, and no thread is needed."""
        return self._asynchronous is not None

    def run(self, flow: Flow[T]) -> T:
        """Execute the commands of a flow and return what they come to."""
        try:
            command = next(flow)
            while True:
                try:
                    reply = self._execute(*command)
                except Exception as error:
                    command = flow.throw(error)
                else:
                    command = flow.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def arun(self, flow: Flow[T]) -> T:
        """The same on the running event loop; or in a thread, where redis-py has no such connection for loops."""
        if self._asynchronous is None:
            # A KEY_FUNCTION of the project's may look at what belongs to the thread in which Django's sync code runs.
            return await sync_to_async(self.run, thread_sensitive=not self.has_stock_keys)(flow)
        execute = (await self._client()).execute
        try:
            command = next(flow)
            while True:
                try:
                    reply = await execute(*command)
                except Exception as error:
                    command = flow.throw(error)
                else:
                    command = flow.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def aget(self, key: str) -> bytes | None:
        """The bytes under one key, over a connection of the running loop's; only if there are such."""
        data: bytes | None = await (self._known_client() or await self._client()).get(key)
        return data

    def _known_client(self) -> _Client | None:
        return _clients.get((asyncio.get_running_loop(), self._pool))

    async def _client(self) -> _Client:
        asynchronous = cast("_Asynchronous", self._asynchronous)
        return self._known_client() or await _begin((asyncio.get_running_loop(), self._pool), asynchronous)


def _with_keys(client: Any, *command: Any) -> Any:
    return client.execute_command(*command, keys=command[1:])


def _retry(retry: Any) -> Retry:
    return Retry(copy.deepcopy(retry._backoff), retry._retries, retry._supported_errors)  # noqa: SLF001


class _Asynchronous:
    """How to make connections for event loops that are like those of a pool."""

    def __init__(self, kind: type[Any], arguments: dict[str, Any], most: int, *, retries: bool) -> None:
        self.kind = kind
        #: Whether the project has said how often things are to be tried.
        self.retries = retries
        self.arguments = arguments
        self.most = min(most, _MOST)
        #: Seconds, or ``None`` for ever; and whether redis-py takes all the arguments.
        self.timeout: float | None = kind(**arguments).socket_timeout

    @classmethod
    def of(cls, pool: Any) -> _Asynchronous | None:
        """``None`` for Sentinel, and for whatever a project has changed so that only sync code can use it."""
        kind = _KINDS.get(pool.connection_class)
        if kind is None or type(pool) not in (ConnectionPool, BlockingConnectionPool):
            return None
        # The older protocol has all that is needed here and makes a shorter beginning.
        arguments = {name: each for name, each in pool.connection_kwargs.items() if name not in _OWN} | {"protocol": 2}
        if arguments.pop("redis_connect_func", None):
            return None
        # A sync connection is seen to be closed before it is used, but an event loop may not have got round to it.
        if "retry" not in arguments:
            arguments["retry"] = Retry(NoBackoff(), 1, (exceptions.ConnectionError,))
            arguments["retry_on_error"] = [exceptions.ConnectionError]
        elif isinstance(arguments["retry"], SyncRetry):
            arguments["retry"] = _retry(arguments["retry"])
        try:
            return cls(kind, arguments, pool.max_connections, retries="retry" in pool.connection_kwargs)
        except TypeError:
            return None


class _Client:
    """What one event loop uses."""

    life: AsyncGenerator[None]

    def __init__(self, asynchronous: _Asynchronous) -> None:
        # redis-py's pools refuse when they are full, or lose a place when its user is cancelled twice: counted here.
        self._pool = aredis.ConnectionPool(asynchronous.kind, max_connections=2**31, **asynchronous.arguments)
        self._client: Any = aredis.Redis(connection_pool=self._pool)
        self._shortcut = None if asynchronous.retries else ashortcut(self._pool)
        self._places = asyncio.Semaphore(asynchronous.most)
        self._timeout = asynchronous.timeout

    async def execute(self, *command: Any) -> Any:
        await (self._wait() if self._places.locked() else self._places.acquire())
        try:
            return await self._client.execute_command(*command)
        finally:
            self._places.release()

    async def get(self, key: str) -> Any:
        if self._shortcut is None:
            return await self.execute("GET", key)
        await (self._wait() if self._places.locked() else self._places.acquire())
        try:
            return await self._shortcut(key)
        except exceptions.ConnectionError:
            # Once more, on another connection.
            return await self._client.execute_command("GET", key)
        finally:
            self._places.release()

    async def close(self) -> None:
        await self._pool.aclose()

    async def _wait(self) -> None:
        """So that a server which does not answer makes nobody wait for all the others' timeouts."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._places.acquire()
        except TimeoutError:
            raise exceptions.TimeoutError(f"no connection became free within {self._timeout} seconds") from None


#: For each event loop and (sync) pool, until the loop ends.
_clients: Final[dict[tuple[asyncio.AbstractEventLoop, Any], _Client]] = {}


async def _begin(place: tuple[asyncio.AbstractEventLoop, Any], asynchronous: _Asynchronous) -> _Client:
    for loop, pool in list(_clients):
        if loop.is_closed():  # without its generators
            _clients.pop((loop, pool), None)
    client = _clients[place] = _Client(asynchronous)
    client.life = _closing(place, client)
    await anext(client.life)
    return client


async def _closing(place: tuple[asyncio.AbstractEventLoop, Any], client: _Client) -> AsyncGenerator[None]:
    """A loop that ends (by ``asyncio.run``, on which asgiref builds too) closes the generators begun on it."""
    try:
        yield
    finally:
        _clients.pop(place, None)
        await client.close()
