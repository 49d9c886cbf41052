"""A server of this folder's own, and a proxy before it: both do what a test wishes them to suffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django_redis.pool import ConnectionFactory

from stepflows import Event
from tests.outages.single import Single, running_single
from tests.proxies import Proxy, running_proxy
from tests.voices import Async, Sync, Voice

#: Seconds that the aliases of this folder wait for an answer.
TIMEOUT = 0.3
BACKENDS = {
    "redis": "django.core.cache.backends.redis.RedisCache",
    "django_redis": "django_redis.cache.RedisCache",
}


def cache_settings(kind: str, url: str, timeout: float = TIMEOUT, **options: Any) -> dict[str, Any]:
    """An entry of ``CACHES`` that waits for so many seconds, both to connect and for an answer."""
    limits = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    if kind == "django_redis":
        limits = {name.upper(): limit for name, limit in limits.items()}
    return {"BACKEND": BACKENDS[kind], "LOCATION": url, "OPTIONS": {**limits, **options}}


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def voice(request: pytest.FixtureRequest) -> Voice:
    """``run`` and ``arun`` in turn."""
    chosen: Voice = request.param()
    return chosen


@pytest.fixture
def events() -> list[Event]:
    """A listener's notebook: give its ``append`` as ``on_event``."""
    return []


@pytest.fixture(scope="session")
def _single(_folder: Path) -> Iterator[Single]:
    with running_single(_folder / "single") as single:
        yield single


@pytest.fixture
def single(_single: Single) -> Iterator[Single]:
    """A server that may be stopped, paused, filled and so on; the next test finds it well and empty."""
    yield _single
    _single.restore()


@pytest.fixture
def proxy(single: Single) -> Iterator[Proxy]:
    """The way to that server."""
    with running_proxy(single.port) as proxy:
        yield proxy


@pytest.fixture
def add_alias(settings: Any) -> Iterator[Callable[..., str]]:
    """Call it with a kind of cache, an address and options; the alias it names is there until the end of the test."""
    urls = []

    def add(kind: str, url: str, name: str = "outage", **options: Any) -> str:
        settings.CACHES = {**settings.CACHES, name: cache_settings(kind, url, **options)}
        urls.append(url)
        return name

    yield add
    for url in urls:
        # django-redis keeps one pool for each address for ever.
        if pool := ConnectionFactory._pools.pop(url, None):
            pool.disconnect()


@pytest.fixture(params=BACKENDS)
def alias(request: pytest.FixtureRequest, proxy: Proxy, add_alias: Callable[..., str]) -> str:
    """Both ways to a Redis server in turn, through the proxy."""
    return add_alias(request.param, proxy.url)
