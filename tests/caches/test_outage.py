"""A cache that cannot be reached, or that refuses."""

import socket
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core.cache.backends.locmem import LocMemCache
from django.db import connection

from stepflows import CacheUnavailable, InvalidUse, Ok, StepCache
from stepflows.caches.backend import Hold
from stepflows.caches.names import Name
from stepflows.engine.cache import Entry


def store(steps, key, result, *, replace=False):
    """What stands once this has been stored."""
    [standing] = steps.store([Entry(key, result, replace)])
    return standing


CALLS = {
    "load": lambda steps: steps.load("user:1"),
    "load_many": lambda steps: steps.load_many(["user:1"]),
    "store": lambda steps: store(steps, "user:1", Ok(1)),
    "replace": lambda steps: store(steps, "user:1", Ok(1), replace=True),
    "get": lambda steps: steps.get("user:1"),
    "set": lambda steps: steps.set("user:1", Ok(1)),
    "has": lambda steps: steps.has("user:1"),
    "delete": lambda steps: steps.delete("user:1"),
    "read": lambda steps: steps.backend.read(Name("", "user:1")),
    "claim": lambda steps: steps.backend.claim([Name("", "user:1")], "a", 60),
    "renew": lambda steps: steps.backend.renew([Hold(Name("", "user:1"), "a")], 60),
    "release": lambda steps: steps.backend.release([Hold(Name("", "user:1"), "a")]),
    "heads": lambda steps: steps.backend.heads([Name("", "user:1")]),
}
LISTING_CALLS = {
    "keys": lambda steps: steps.keys(),
    "len": len,
    "iter": list,
    "clear": lambda steps: steps.clear(),
    "clear prefix": lambda steps: steps.clear("user:"),
    "scopes": lambda steps: steps.backend.scopes(),
    "names of all": lambda steps: steps.backend.names(prefix="user:"),
    "walk": lambda steps: list(steps.backend.walk()),
    "survey": lambda steps: steps.backend.survey(),
}


def closed_port():
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(params=["redis", "django_redis", "django_redis ignoring"])
def down(request, settings):
    """An alias whose server does not answer, and does not make anybody wait."""
    if request.param == "redis":
        backend = "django.core.cache.backends.redis.RedisCache"
        options: dict[str, Any] = {"retry": None}
    else:
        backend = "django_redis.cache.RedisCache"
        options = {"CONNECTION_POOL_KWARGS": {"retry": None}, "IGNORE_EXCEPTIONS": request.param.endswith("ignoring")}
    alias = {"BACKEND": backend, "LOCATION": f"redis://127.0.0.1:{closed_port()}/0", "OPTIONS": options}
    settings.CACHES = {**settings.CACHES, "down": alias}
    return StepCache("down")


@pytest.mark.parametrize("call", [*CALLS.values(), *LISTING_CALLS.values()], ids=[*CALLS, *LISTING_CALLS])
def test_a_server_that_is_down(down, call):
    """Every method says that the cache is unavailable, naming the alias, and keeps the client's error as the cause."""
    with pytest.raises(CacheUnavailable, match=r"cache alias 'down' failed to .*See that its server runs") as caught:
        call(down)
    assert isinstance(caught.value.__cause__, Exception)


class Broken(LocMemCache):
    """A cache each of whose methods fails."""

    def _fail(self, *args, **kwargs):
        raise ConnectionResetError("gone")

    get = get_many = set = add = delete = _fail


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_backend_that_raises(call):
    """Whatever another backend raises counts as unavailable."""
    with pytest.raises(CacheUnavailable, match=r"cache object Broken failed to .*ConnectionResetError: gone"):
        call(StepCache(Broken("broken", {})))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("call", [*CALLS.values(), *LISTING_CALLS.values()], ids=[*CALLS, *LISTING_CALLS])
def test_a_table_that_is_missing(call, settings):
    """A database cache without its table is unavailable, like any other that fails."""
    settings.CACHES = {**settings.CACHES, "down": {**settings.CACHES["database"], "LOCATION": "no_such_table"}}

    with pytest.raises(CacheUnavailable, match=r"'down'.*no_such_table"):
        call(StepCache("down"))


#: How the table of the cache is made to take no new rows, and to take them again.
REFUSAL = {
    "sqlite": (
        "CREATE TRIGGER refuse BEFORE INSERT ON stepflows_cache BEGIN SELECT RAISE(ABORT, 'read only'); END",
        "DROP TRIGGER refuse",
    ),
    "postgresql": (
        "ALTER TABLE stepflows_cache ADD CONSTRAINT refuse CHECK (false) NOT VALID",
        "ALTER TABLE stepflows_cache DROP CONSTRAINT refuse",
    ),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("replace", [True, False])
def test_a_database_that_refuses_silently(replace):
    """Django's database cache swallows the error of a write; it is reported all the same."""
    steps = StepCache("database")
    refuse, accept = REFUSAL[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(refuse)
    try:
        with pytest.raises(CacheUnavailable, match="did not store an entry"):
            store(steps, "user:1", Ok(1), replace=replace)
    finally:
        with connection.cursor() as cursor:
            cursor.execute(accept)


class Fickle(LocMemCache):
    """Loses an entry between the add() that finds it and the get() that wants it."""

    refusals = 1

    def add(self, key, value, timeout=None, version=None):
        if self.refusals:
            self.refusals -= 1
            return False
        return super().add(key, value, timeout, version)


def test_an_entry_that_goes_while_it_is_in_the_way():
    """When what was there first has gone before it is read, there is room."""
    steps = StepCache(Fickle("fickle", {}))

    assert store(steps, "user:1", Ok(1)) == Ok(1)
    assert steps.get("user:1") == Ok(1)


def test_a_cache_that_refuses_for_no_reason():
    """One that never stores and never has anything is unavailable."""
    cache = Fickle("fickle refusing", {})
    cache.refusals = 100

    with pytest.raises(CacheUnavailable, match="did not store an entry"):
        store(StepCache(cache), "user:1", Ok(1))


class Slow(LocMemCache):
    """A time limit of Celery's strikes while the cache is asked."""

    def get(self, key, default=None, version=None):
        raise SoftTimeLimitExceeded


def test_a_time_limit_is_not_the_caches_doing():
    """Celery's time limit passes through as itself."""
    with pytest.raises(SoftTimeLimitExceeded):
        StepCache(Slow("slow", {})).get("user:1")


@pytest.mark.usefixtures("valkey")
@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("django.core.cache.backends.redis.RedisCache", {"decode_responses": True}),
        ("django_redis.cache.RedisCache", {"CONNECTION_POOL_KWARGS": {"decode_responses": True}}),
    ],
)
def test_a_connection_that_decodes(settings, backend, options, valkey):
    """A client that gives text instead of bytes is a mistake in the settings, and the message says which."""
    # django-redis keeps one pool per URL, so this is another URL of the same server.
    alias = {"BACKEND": backend, "LOCATION": f"{valkey.url}?client_name=decoding", "OPTIONS": options}
    settings.CACHES = {**settings.CACHES, "text": alias}

    with pytest.raises(InvalidUse, match=r"'text' has decode_responses=True"):
        StepCache("text").load("user:1")
