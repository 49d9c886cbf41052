"""Where steps are kept: Django's caches, mappings and Map-likes, all meeting one protocol."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from stepflows.caches.aliases import backend_for, is_django_cache
from stepflows.caches.codec import dumps, loads
from stepflows.caches.foreign import METHODS, ForeignCache
from stepflows.caches.mapping import MappingCache
from stepflows.caches.stepcache import StepCache
from stepflows.engine.cache import Cache
from stepflows.errors import InvalidUse

__all__ = ["StepCache", "backend_for", "dumps", "loads", "resolve"]


def resolve(cache: Any, namespace: str, version: int | str | None = None) -> Cache | None:
    """The cache of a workflow, of whatever its ``cache=`` was given; ``None`` stays ``None``.

    Raises :exc:`~stepflows.errors.InvalidUse` for what cannot be a cache. Whether an alias is in ``CACHES`` shows when
    the cache is used.
    """
    if cache is None or isinstance(cache, MappingCache | ForeignCache):
        return cache
    if isinstance(cache, StepCache):
        return cache.bound(namespace, version)
    if isinstance(cache, str) or is_django_cache(cache):
        return StepCache(cache).bound(namespace, version)
    if isinstance(cache, MutableMapping):
        return MappingCache(cache)
    if not isinstance(cache, type) and any(hasattr(cache, name) for name in METHODS):
        return ForeignCache(cache)
    raise InvalidUse(
        f"{cache!r} cannot be a cache. Give an alias of CACHES, one of Django's cache objects, a StepCache, a dict or "
        f"another MutableMapping, or an object with the methods {', '.join(METHODS)}."
    )
