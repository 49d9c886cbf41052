"""What a workflow's ``cache=`` takes."""

from typing import Any

import pytest
from django.core.cache import cache as default_cache
from django.core.cache import caches
from django_redis.client import ShardClient

from stepflows import InvalidUse, Ok, StepCache
from stepflows.caches import backend_for, resolve
from stepflows.caches.django import BaseCacheBackend
from stepflows.caches.foreign import ForeignCache
from stepflows.caches.mapping import MappingCache
from stepflows.caches.redis import RedisBackend
from stepflows.engine.cache import Entry


class Map:
    def get(self, key): ...

    def set(self, key, result): ...

    def has(self, key): ...

    def delete(self, key): ...


def test_no_cache_is_no_cache():
    """None stays None."""
    assert resolve(None, "checkout") is None


@pytest.mark.parametrize("given", ["default", default_cache, StepCache("default")], ids=["alias", "proxy", "StepCache"])
def test_an_alias_in_every_form(given):
    """Each is a StepCache under the workflow's name and version."""
    assert resolve(given, "checkout", 2) == StepCache("default", "checkout", version=2)


def test_a_cache_object():
    """Django's own object is its alias."""
    assert resolve(caches["locmem"], "checkout") == StepCache("locmem", "checkout")


def test_a_scope_that_is_spelt_out_stays():
    """A namespace shared on purpose is not replaced."""
    assert resolve(StepCache("locmem", "shared"), "checkout") == StepCache("locmem", "shared")


def test_mappings_and_objects():
    """A mapping is kept in, an object is called."""
    mapping: dict[str, Any] = {}
    given = Map()
    kept, called = resolve(mapping, "checkout"), resolve(given, "checkout")

    assert isinstance(kept, MappingCache)
    assert kept.given is mapping
    assert isinstance(called, ForeignCache)
    assert called.given is given


@pytest.mark.parametrize("cache", [MappingCache({}), ForeignCache(Map())], ids=repr)
def test_what_is_resolved_stays(cache):
    """A cache that is one already is taken as it is."""
    assert resolve(cache, "checkout") is cache


@pytest.mark.parametrize(
    "given", [7, object(), ["a"], dict, Map, b"default"], ids=["int", "object", "list", "dict", "class", "bytes"]
)
def test_anything_else_is_refused(given):
    """The error says what can be given."""
    with pytest.raises(
        InvalidUse, match=r"cannot be a cache\. Give an alias.*StepCache.*MutableMapping.*get, set, has, delete"
    ):
        resolve(given, "checkout")


def test_half_an_object_is_told_what_it_lacks():
    """An object with some of the methods is told which are missing."""
    half = type("Half", (), {"get": lambda self, key: None})()

    with pytest.raises(InvalidUse, match=r"no set\(\) and no has\(\) and no delete\(\)"):
        resolve(half, "checkout")


def test_a_backend_is_made_once_per_setting(settings):
    """It is kept until CACHES changes."""
    first = backend_for("locmem")
    assert backend_for("locmem") is first
    settings.CACHES = dict(settings.CACHES)

    assert backend_for("locmem") is not first


# django-redis 7.0 warns about its own call.
@pytest.mark.filterwarnings("ignore:.* sharded client should not specify client")
@pytest.mark.usefixtures("valkey")
def test_sharded_redis_has_no_index(settings):
    """django-redis's sharding has no one connection, so it is served through its own methods."""
    changed = {**settings.CACHES["django_redis"], "OPTIONS": {"CLIENT_CLASS": "django_redis.client.ShardClient"}}
    settings.CACHES = {**settings.CACHES, "sharded": changed}
    steps = StepCache("sharded", "checkout")
    steps.set("user:1", Ok(1))

    cache: Any = caches["sharded"]
    assert isinstance(cache.client, ShardClient)
    assert type(steps.backend) is BaseCacheBackend
    assert steps.get("user:1") == Ok(1)
    assert steps.load_many(["user:1"]) == [Ok(1)]
    assert steps.store([Entry("user:1", Ok(2))]) == [Ok(1)]
    assert steps.delete("user:1") is True


def test_both_redis_backends_are_known():
    """django-redis and Django's own go through their connection."""
    assert all(isinstance(backend_for(alias), RedisBackend) for alias in ["redis", "django_redis"])
