"""Servers that throw entries away when their memory is full."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django_redis.cache import RedisCache
from redis import Redis

from stepflows.checks import check_eviction
from tests.checks.bodies import ids, says
from tests.servers import Valkey


class Sharded(RedisCache):
    """A cache on several servers, which does not keep the steps by itself."""

    def __init__(self, server, params):
        super().__init__(["redis://127.0.0.1:1/0"], {"OPTIONS": {"CLIENT_CLASS": "django_redis.client.ShardClient"}})


@pytest.fixture
def limited(valkey: Valkey, settings, redis_alias: str) -> Iterator[Redis]:
    """A server whose memory has a limit, behind each kind of alias in turn."""
    settings.STEPFLOWS = {"CACHE": redis_alias}
    names = ("maxmemory", "maxmemory-policy")
    before = {name: valkey.client.config_get(name)[name] for name in names}
    valkey.client.config_set("maxmemory", "1gb")
    yield valkey.client
    for name, value in before.items():
        valkey.client.config_set(name, value)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_a_warning(limited, policy):
    """Which names the alias, its user, the policy and the remedy."""
    limited.config_set("maxmemory-policy", policy)
    (found,) = check_eviction()
    assert found.id == "stepflows.W004"
    assert says(found, f"STEPFLOWS\\['CACHE'\\].*redis'.*{policy}.*noeviction")


def test_a_server_that_evicts_nothing_is_left_alone(limited):
    """It refuses to store when it is full."""
    limited.config_set("maxmemory-policy", "noeviction")
    assert check_eviction() == []


def test_a_server_without_a_limit_is_left_alone(limited):
    """Whatever its policy would be."""
    limited.config_set("maxmemory-policy", "allkeys-lru")
    limited.config_set("maxmemory", 0)
    assert check_eviction() == []


@pytest.mark.parametrize(("rights", "said"), [("-config", "stepflows.W004"), ("-info", "stepflows.I001")])
def test_a_server_may_forbid_being_asked(limited, settings, rights, said):
    """CONFIG is not needed; without INFO the check says that it was not made."""
    limited.config_set("maxmemory-policy", "allkeys-lru")
    limited.execute_command("ACL", "SETUSER", "steps", "reset", "on", ">pw", "~*", "+@all", rights)
    alias = settings.CACHES[settings.STEPFLOWS["CACHE"]]
    location = alias["LOCATION"].replace("://", "://steps:pw@")
    settings.CACHES = {settings.STEPFLOWS["CACHE"]: {**alias, "LOCATION": location}}
    try:
        assert ids(check_eviction()) == [said]
    finally:
        limited.execute_command("ACL", "DELUSER", "steps")


@pytest.mark.parametrize("backend", ["django_redis.cache.RedisCache", "django.core.cache.backends.redis.RedisCache"])
def test_a_server_that_cannot_be_reached_is_no_failure(settings, backend):
    """A build machine has no servers."""
    settings.STEPFLOWS = {}
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": "redis://127.0.0.1:1/0"}}
    (found,) = check_eviction()
    assert found.id == "stepflows.I001"
    assert not found.is_serious()
    assert says(found, "'default' could not be asked.*ConnectionError.*maxmemory-policy")


@pytest.mark.parametrize(
    "backend",
    [
        "django.core.cache.backends.locmem.LocMemCache",
        "django.core.cache.backends.memcached.PyLibMCCache",
        "django.core.cache.backends.db.DatabaseCache",
        "tests.checks.test_eviction.Sharded",
    ],
)
def test_other_caches_are_not_asked(settings, backend):
    """Nor is one that is not in CACHES."""
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": "x"}}
    for alias in ("default", "nowhere"):
        settings.STEPFLOWS = {"CACHE": alias}
        assert check_eviction() == []


@pytest.mark.django_db
def test_a_plain_check_asks_no_server(limited, capsys):
    """Only the one for a deployment does."""
    limited.config_set("maxmemory-policy", "allkeys-lru")
    call_command("check", tags=["stepflows"])
    assert "W004" not in capsys.readouterr().err
    call_command("check", tags=["stepflows"], deploy=True)
    assert "W004" in capsys.readouterr().err
