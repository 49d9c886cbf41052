"""What the Redis servers behind the caches do when their memory is full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings as django_settings
from django.core.cache import caches
from django.core.cache.backends.redis import RedisCache as DjangoRedisCache
from django.core.checks import CheckMessage, Info, Warning
from django.utils.module_loading import import_string
from django_redis.cache import RedisCache

from stepflows.caches import backend_for
from stepflows.caches.connection import Connection, Flow
from stepflows.caches.redis import RedisBackend
from stepflows.checks.caches import aliases

__all__ = ["check_eviction"]


def check_eviction(**_: Any) -> list[CheckMessage]:
    """The eviction policies, which the servers have to be asked for."""
    return [message for alias, user in aliases().items() for message in _check_alias(alias, user)]


def _check_alias(alias: str, user: str) -> Iterator[CheckMessage]:
    try:
        policy = _policy(alias)
    except Exception as error:
        yield Info(
            f"The server of the cache alias {alias!r} could not be asked whether it evicts entries: "
            f"{type(error).__name__}: {error}",
            hint="Run the check where the server can be reached, with a user that may ask INFO; or see yourself that "
            "its maxmemory-policy is noeviction.",
            id="stepflows.I001",
        )
        return
    if policy != "noeviction":
        yield Warning(
            f"{user} uses the cache alias {alias!r}, whose server evicts entries when its memory is full "
            f"(maxmemory-policy {policy}): steps whose entry is gone run again, and two at a time when it is a lease.",
            hint="Set maxmemory-policy to noeviction, and give steps a server of their own if others rely on eviction.",
            id="stepflows.W004",
        )


def _policy(alias: str) -> str:
    """What the server says of itself; ``noeviction`` as well for one whose memory has no limit, or is no Redis."""
    backend = backend_for(alias) if _is_redis(alias) else None
    if not isinstance(backend, RedisBackend):
        return "noeviction"
    memory = Connection(backend.title, caches[alias]).run(_memory())
    return str(memory["maxmemory_policy"]) if memory["maxmemory"] else "noeviction"


def _is_redis(alias: str) -> bool:
    """Told from the setting, because to make a cache of another kind may take a library that is not there."""
    kind = django_settings.CACHES.get(alias, {}).get("BACKEND")
    return kind is not None and issubclass(import_string(kind), RedisCache | DjangoRedisCache)


def _memory() -> Flow[Any]:
    # Servers that are rented out forbid CONFIG, but not INFO.
    return (yield ("INFO", "memory"))
