"""From an alias of ``CACHES``, or a Django cache object, to the backend that serves it."""

from __future__ import annotations

import functools
from functools import partial
from typing import Any, Final

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache as DjangoRedisCache
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.connection import ConnectionProxy
from django_redis.cache import RedisCache
from django_redis.client import ShardClient

from stepflows.caches.backend import Backend
from stepflows.caches.database import DatabaseBackend
from stepflows.caches.django import BaseCacheBackend, DummyBackend
from stepflows.caches.files import FileBackend
from stepflows.caches.locmem import LocMemBackend
from stepflows.caches.redis import RedisBackend
from stepflows.errors import InvalidUse

__all__ = ["alias_of", "backend_for", "backend_of", "is_django_cache"]

_KINDS: Final[list[tuple[type[BaseCache], type[BaseCacheBackend]]]] = [
    (LocMemCache, LocMemBackend),
    (DatabaseCache, DatabaseBackend),
    (FileBasedCache, FileBackend),
    (DummyCache, DummyBackend),
]

# Whoever changes one of these keeps values in a way of their own, which only their own methods can read.
_METHODS: Final = ("get", "get_many", "set", "add", "delete", "_set", "_base_set", "_write_content", "_key_to_file")


@functools.cache
def backend_for(alias: str) -> Backend:
    """The backend of an alias.

    Raises :exc:`~stepflows.errors.InvalidUse` when ``CACHES`` has no such alias or its backend cannot be made.
    """
    if alias not in caches.settings:
        known = ", ".join(map(repr, caches.settings))
        raise InvalidUse(
            f"There is no cache alias {alias!r}. The setting CACHES has {known}; add it there or use one of them."
        )
    source = partial(caches.__getitem__, alias)
    title = f"cache alias {alias!r}"
    try:
        return _kind(source())(title, source)
    except ImproperlyConfigured as error:
        raise InvalidUse(f"The {title} cannot be used: {error} Correct CACHES[{alias!r}].") from error


def backend_of(cache: BaseCache) -> Backend:
    """The backend of a cache object that is no alias of ``CACHES``."""
    return _kind(cache)(f"cache object {type(cache).__name__}", lambda: cache)


def is_django_cache(cache: Any) -> bool:
    """Whether this is one of Django's cache objects, or a proxy of one such as ``django.core.cache.cache``."""
    if isinstance(cache, ConnectionProxy):
        return vars(cache)["_connections"] is caches
    return isinstance(cache, BaseCache)


def alias_of(cache: Any) -> str | BaseCache:
    """The alias that a Django cache object has in this thread, or the object itself when it has none."""
    if isinstance(cache, ConnectionProxy):
        alias: str = vars(cache)["_alias"]
        return alias
    # What this thread has, without making all the others.
    made = vars(caches)["_connections"]
    return next((alias for alias in caches if getattr(made, alias, None) is cache), cache)


def _kind(cache: BaseCache) -> type[RedisBackend | BaseCacheBackend]:
    if isinstance(cache, RedisCache):
        # Its keys lie on several servers; there is no connection for all of them.
        return BaseCacheBackend if isinstance(cache.client, ShardClient) else RedisBackend
    if isinstance(cache, DjangoRedisCache):
        return RedisBackend
    for known, kind in _KINDS:
        if isinstance(cache, known):
            return BaseCacheBackend if _changed(type(cache), known) else kind
    return BaseCacheBackend


def _changed(cls: type[BaseCache], known: type[BaseCache]) -> bool:
    return any(getattr(cls, name, None) is not getattr(known, name, None) for name in _METHODS)


def _reset(*, setting: str, **_: Any) -> None:
    if setting == "CACHES":
        backend_for.cache_clear()


setting_changed.connect(_reset)
