"""Entries of caches, as workflows leave them, and what can happen to them."""

from __future__ import annotations

import time
from typing import Any

from stepflows import Ok, StepCache
from stepflows.cachedsteps import Place
from stepflows.caches import backend_for
from stepflows.caches.backend import Write
from stepflows.caches.codec import current_codec
from stepflows.caches.names import Name, scope_of
from stepflows.results import Stamp, stamped

DONE = Ok("done")


def put(
    alias: str,
    workflow: str,
    key: str,
    result: Any = DONE,
    *,
    version: int | None = None,
    label: str = "step",
    ttl: float | None = None,
    ago: float = 0,
    duration: float = 0.25,
    run_id: str = "",
) -> Place:
    """Store a result as a step of a workflow does, and say where it lies."""
    # Straight into the cache, where names may lie that StepCache refuses.
    name = Name(scope_of(workflow, version), key)
    stored_at = time.time() - ago
    stamp = Stamp(label, stored_at, duration, run_id, None if ttl is None else stored_at + ttl)
    data = current_codec().encode(stamped(result, stamp), *name)
    backend_for(alias).write([Write(name, data, ttl, replace=True)])
    return Place(alias, name)


def put_many(alias: str, workflow: str, keys: list[str]) -> list[Place]:
    return [put(alias, workflow, key) for key in keys]


def keys(alias: str, workflow: str, version: int | None = None) -> list[str]:
    """Which keys of the workflow there are."""
    return StepCache(alias, namespace=workflow, version=version).keys()


def spoil(place: Place, data: bytes | None = None) -> None:
    """Put other bytes in place of an entry; or, without any, its own with the last one changed."""
    backend = backend_for(place.alias)
    if data is None:
        entry = backend.read(place.name)
        assert entry is not None
        data = entry[:-1] + bytes([entry[-1] ^ 1])
    backend.write([Write(place.name, data, replace=True)])
