"""What a cached step takes on the server, its place in the index included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.core.cache import caches

from stepflows.caches.names import Name, backend_key, reserved_key
from tests.benchmarks import peers
from tests.benchmarks.server import Server
from tests.benchmarks.steps import ALIAS, VALUE, step_cache, write
from tests.benchmarks.table import Row, Table

__all__ = ["tables"]

SIZE = 50_000
KEYS = [f"order:{number:06d}" for number in range(SIZE)]


def tables(server: Server) -> Iterator[Table]:
    cache: Any = caches[ALIAS]
    entry = cache.make_key(backend_key(Name(step_cache().scope, KEYS[0])))
    yield Table(
        f"Memory, {SIZE:,} small values",
        [
            _row("django-redis set", server, lambda: _set(cache, None), cache.make_key(KEYS[0])),
            _row("django-redis set, with timeout", server, lambda: _set(cache, peers.HOUR), cache.make_key(KEYS[0])),
            _row("stepflows", server, lambda: write(KEYS), entry),
            _row("stepflows, with ttl", server, lambda: write(KEYS, ttl=peers.HOUR), entry),
        ],
    )


def _set(cache: Any, timeout: float | None) -> None:
    for start in range(0, SIZE, 1000):
        cache.set_many(dict.fromkeys(KEYS[start : start + 1000], VALUE), timeout)


def _row(name: str, server: Server, fill: Callable[[], object], key: str) -> Row:
    server.flush()
    before = server.client.info("memory")["used_memory"]
    fill()
    index = sum(server.client.memory_usage(found, samples=0) or 0 for found in _index_keys(server))
    return Row(
        name,
        {
            "bytes, entry": server.client.memory_usage(key),
            "bytes of index, per key": round(index / SIZE),
            # The table of keys too, and what the allocator rounds up.
            "bytes of the server, per key": round((server.client.info("memory")["used_memory"] - before) / SIZE),
        },
    )


def _index_keys(server: Server) -> list[bytes]:
    return list(server.client.scan_iter(f"*{reserved_key('')}*", count=10_000, _type="zset"))
