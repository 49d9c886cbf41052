"""The caches that workflows use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from django.conf import settings as django_settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import BaseMemcachedCache
from django.core.checks import CheckMessage, Error, Warning
from django.utils.module_loading import import_string

from stepflows import conf
from stepflows.caches import StepCache, backend_for
from stepflows.caches.django import BaseCacheBackend
from stepflows.caches.files import FileBackend
from stepflows.checks.settings import check_settings
from stepflows.registry import registry

__all__ = ["aliases", "check_caches"]

#: A cache that holds this many entries before it throws some away is taken for large enough.
_PLENTY: Final = 1_000_000


class _Weakness(NamedTuple):
    """What a cache cannot promise."""

    problem: str
    remedy: str


_MEMCACHED: Final = _Weakness(
    "evicts entries when it is full, loses all when it restarts and cannot list its keys: steps whose entry is "
    "gone run again",
    "Use django-redis, unless every step may run again.",
)
_WEAK: Final[dict[type, _Weakness]] = {
    FileBackend: _Weakness(
        "keeps leases by locking a file, for which a network file system may be no good: two machines that share the "
        "folder may then run a step at the same time",
        "Use django-redis, unless the folder is on a disk of one machine.",
    ),
    BaseCacheBackend: _Weakness(
        "stepflows does not know: entries go through its own serializer (perhaps pickle), its keys cannot be listed, "
        "and a step runs once only if its add() is atomic",
        "Use django-redis, or one of the caches that Django ships.",
    ),
}


def check_caches(**_: Any) -> list[CheckMessage]:
    """The caches that registered workflows and ``StepCache()`` use."""
    return [message for alias, user in aliases().items() for message in _check_alias(alias, user)]


def aliases() -> dict[str, str]:
    """The aliases in use, and what uses each; none while the settings are wrong."""
    if check_settings():
        return {}
    used = {conf.settings().CACHE: "STEPFLOWS['CACHE']"}
    for workflow in registry.all():
        if isinstance(workflow.cache, StepCache) and isinstance(workflow.cache.alias, str):
            used.setdefault(workflow.cache.alias, f"workflow {workflow.name!r}")
    return used


def _check_alias(alias: str, user: str) -> Iterator[CheckMessage]:
    if alias not in django_settings.CACHES:
        yield Error(
            f"{user} names the cache alias {alias!r}, which is not in CACHES.",
            hint=f"Add it to CACHES, or use one of: {', '.join(django_settings.CACHES)}.",
            id="stepflows.E002",
        )
        return
    if issubclass(import_string(django_settings.CACHES[alias]["BACKEND"]), BaseMemcachedCache):
        # Not made, which would take the library of its client.
        yield _weak(alias, user, _MEMCACHED)
        return
    kind = type(backend_for(alias))
    if kind in _WEAK:
        yield _weak(alias, user, _WEAK[kind])
    yield from _check_cache(alias, user, caches[alias])


def _weak(alias: str, user: str, weakness: _Weakness) -> CheckMessage:
    name = django_settings.CACHES[alias]["BACKEND"].rpartition(".")[2]
    return Warning(
        f"{user} uses the cache alias {alias!r}, a {name}, which {weakness.problem}.",
        hint=weakness.remedy,
        id="stepflows.W003",
    )


def _check_cache(alias: str, user: str, cache: BaseCache) -> Iterator[CheckMessage]:
    if isinstance(cache, LocMemCache | DummyCache):
        yield Warning(
            f"{user} uses the cache alias {alias!r}, a {type(cache).__name__}, which no other process shares: a worker "
            "would run every step again.",
            hint="Use a cache that all processes share, such as django-redis. For tests this is fine.",
            id="stepflows.W001",
        )
    most = _max_entries(cache)
    if most < _PLENTY:
        yield Warning(
            f"{user} uses the cache alias {alias!r}, a {type(cache).__name__} that throws entries away above {most} "
            "(MAX_ENTRIES): steps whose entry is gone run again.",
            hint=f"Set OPTIONS['MAX_ENTRIES'] of the alias to {_PLENTY} or more, or use django-redis.",
            id="stepflows.W002",
        )


def _max_entries(cache: BaseCache) -> float:
    """How many entries the cache holds before it throws some away."""
    culling = isinstance(cache, LocMemCache | DatabaseCache | FileBasedCache)
    return vars(cache)["_max_entries"] if culling else math.inf
