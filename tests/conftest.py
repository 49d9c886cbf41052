"""What every test can ask for: real servers, every cache backend, a database that threads can see."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest
from celery import Celery, current_app
from django.core.cache import caches
from django.core.management import call_command
from django.db import connection
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pytest_django.plugin import DjangoDbBlocker
from redis import VERSION, Redis

from stepflows.caches.keeper import keeper
from tests import settings as site
from tests.brokers import Broker
from tests.chromium import chromium_path
from tests.memcached import MEMCACHED, memcached_path, running_memcached
from tests.postgres import end_other_sessions, running_postgres
from tests.servers import CommandStats, Valkey, counted_commands, running_server

#: Every backend that Django and django-redis ship and that can tell what it keeps.
CACHE_ALIASES = ["locmem", "database", "file", "redis", "django_redis"]
REDIS_ALIASES = ["redis", "django_redis"]
# What older ones have no part in.
collect_ignore = ["caches/test_shortcut.py"] if VERSION < (6,) else []

# A slow machine is no failure; the time limit of the test itself holds.
hypothesis_settings.register_profile("stepflows", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("stepflows")


def pytest_configure() -> None:
    """Be interrupted like any program, although a shell that starts one with ``&`` tells it and its children not to."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    browser = chromium_path() or "none: tests marked 'browser' are left out (install Chromium, or name it in CHROMIUM)"
    memcached = memcached_path() or "none: what holds over memcached too is not tried over it"
    return [f"chromium: {browser}", f"memcached: {memcached}", f"database: {site.TEST_DATABASE}"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the browser tests out where there is no browser, which CI may not do, nor may it do without memcached."""
    if os.environ.get("CI") and not memcached_path():
        raise pytest.UsageError("CI needs memcached on the path.")
    needing = [item for item in items if item.get_closest_marker("browser")]
    if not needing or chromium_path():
        return
    if os.environ.get("CI"):
        raise pytest.UsageError("CI needs Chromium for the tests marked 'browser'; install it or name it in CHROMIUM.")
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]


@pytest.fixture(scope="session", autouse=True)
def _folder() -> Iterator[Path]:
    """The folder of this test process, named in the settings and gone at the end."""
    site.FOLDER.mkdir(parents=True, exist_ok=True)
    yield site.FOLDER
    shutil.rmtree(site.FOLDER, ignore_errors=True)


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """Every test process has its folder, so the database needs no other name under pytest-xdist."""


@pytest.fixture(scope="session")
def _database_server() -> Iterator[None]:
    """The server of the database in the settings, unless that is a file or somebody else's."""
    if not site.POSTGRES_IS_OURS:
        yield
        return
    with running_postgres(int(site.DATABASES["default"]["PORT"])):
        yield


@pytest.fixture(scope="session")
def django_db_setup(
    _folder: Path, _database_server: None, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """Migrate, and make the table of the database cache, which no migration makes."""
    with django_db_blocker.unblock():
        call_command("createcachetable", verbosity=0)
        yield
        end_other_sessions()


@pytest.fixture(autouse=True)
def _fresh_caches() -> Iterator[None]:
    """No test sees what another left in the memory of this process, nor has a lease of another's taken up again."""
    yield
    keeper.forget(list(keeper._leases))
    for alias in ("default", "locmem"):
        caches[alias].clear()


@pytest.fixture(scope="session")
def _valkey_server(_folder: Path) -> Iterator[Valkey]:
    client = Redis.from_url(site.CACHE_URL)
    valkey = Valkey(site.CACHE_URL, client)
    with client:
        if not site.REDIS_IS_OURS:
            yield valkey
            return
        with running_server(valkey.port, _folder / "valkey"):
            yield valkey


@pytest.fixture(scope="session")
def _memcached_server() -> Iterator[None]:
    with running_memcached(site.MEMCACHED_PORT):
        yield


@pytest.fixture
def valkey(_valkey_server: Valkey) -> Valkey:
    """The Valkey server behind the aliases ``redis`` and ``django_redis``, empty."""
    _valkey_server.flush()
    return _valkey_server


@pytest.fixture
def broker(valkey: Valkey) -> Iterator[Broker]:
    """The broker of the tests' Celery app, empty before and after."""
    with Redis.from_url(site.BROKER_URL) as client:
        client.flushdb()
        yield Broker(client)
        client.flushdb()


@pytest.fixture
def no_broker() -> Iterator[Celery]:
    """The Celery app of this process, of a site whose broker is down."""
    with current(Celery("down", broker="redis://127.0.0.1:1/0", set_as_current=False)) as app:
        yield app


@pytest.fixture
def own_app() -> Iterator[Celery]:
    """The Celery app of this process, as the tests' own, but with connections that no other test has or gets."""
    app = Celery("own", set_as_current=False)
    app.config_from_object("django.conf:settings", namespace="CELERY")
    with current(app):
        yield app


@contextmanager
def current(app: Celery) -> Iterator[Celery]:
    before = current_app._get_current_object()
    app.set_current()
    yield app
    before.set_current()
    app.close()


@pytest.fixture
def no_table(transactional_db: None) -> Iterator[None]:
    """A database on which nobody has run ``migrate`` for this app."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE stepflows_run RENAME TO elsewhere")
    yield
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE elsewhere RENAME TO stepflows_run")


@pytest.fixture
def commandstats(valkey: Valkey) -> Callable[[], AbstractContextManager[CommandStats]]:
    """Call it in a ``with`` statement; the counter that it gives reads ``{"get": 1}`` afterwards."""
    return partial(counted_commands, valkey.client)


def prepared(alias: str, request: pytest.FixtureRequest) -> str:
    if alias in REDIS_ALIASES:
        request.getfixturevalue("valkey")
    else:
        if alias in MEMCACHED:
            request.getfixturevalue("_memcached_server")
        caches[alias].clear()
    return alias


@pytest.fixture(
    params=[
        pytest.param(alias, marks=[pytest.mark.django_db(transaction=True)] if alias == "database" else [])
        for alias in CACHE_ALIASES
    ]
)
def cache_alias(request: pytest.FixtureRequest) -> str:
    """Each backend in turn, empty."""
    return prepared(request.param, request)


@pytest.fixture(params=REDIS_ALIASES)
def redis_alias(request: pytest.FixtureRequest) -> str:
    """Both ways to a Redis server in turn, empty."""
    return prepared(request.param, request)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser; for tests marked ``browser``."""
    path = chromium_path()
    assert path, "Only tests marked 'browser' may ask for it."
    return path
