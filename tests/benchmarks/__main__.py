"""``make bench``: what a stored result costs, beside what one would use instead, on a real server in one run.

Machines are noisy: read the ratios. The alternatives take turns, and the fastest of several rounds counts.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django
from rich.console import Console
from rich.table import Table

from tests import settings as site
from tests.servers import running_server

ROUNDS = 7
CALLS = 2000
VALUE = {"id": 7, "name": "Ada", "total": 12.5, "tags": ["a", "b"]}

Timed = dict[str, Callable[[], object]]


def fastest(calls: Timed) -> dict[str, float]:
    """Microseconds for one call of each, the fastest of all rounds, taken in turns."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(CALLS):
                call()
            best[name] = min(best[name], (time.perf_counter() - began) / CALLS * 1e6)
    return best


def show(title: str, times: dict[str, float]) -> None:
    base = next(iter(times.values()))
    table = Table("", "µs", "ratio", title=title, title_justify="left")
    for name, microseconds in times.items():
        table.add_row(name, f"{microseconds:.1f}", f"{microseconds / base:.2f}")
    Console().print(table)


def hits() -> Timed:
    from django.core.cache import caches

    from stepflows import Ok, StepCache
    from stepflows.caches.codec import current_codec
    from stepflows.caches.names import Name, backend_key
    from stepflows.definitions import create_workflow
    from stepflows.results import Stamp, stamped

    cache: Any = caches["django_redis"]
    steps = StepCache("django_redis", namespace="bench")
    steps.store("user:7", stamped(Ok(VALUE), Stamp("fetch", time.time())))
    cache.set("plain", VALUE, None)
    client, codec = cache.client.get_client(), current_codec()
    key = cache.make_key(backend_key(Name(steps.scope, "user:7")))
    flow = create_workflow("bench", cache=steps)
    step: list[Any] = []
    flow.run(lambda given, deps: step.append(given))
    return {
        "raw GET and decode": lambda: codec.decode(client.get(key), steps.scope, "user:7"),
        "stepflows, a step": lambda: step[0]("fetch", dict, key="user:7"),
        "StepCache.get": lambda: steps.get("user:7"),
        "django-redis get": lambda: cache.get("plain"),
        "cache.get_or_set": lambda: cache.get_or_set("plain", dict, None),
    }


def engine() -> Timed:
    from stepflows import Ok, create_workflow

    mapping = {"user:7": Ok(VALUE)}
    step: list[Any] = []
    create_workflow("bench", cache=mapping).run(lambda given, deps: step.append(given))
    return {
        "dict look-up": lambda: mapping.get("user:7"),
        "stepflows, a step": lambda: step[0]("fetch", dict, key="user:7"),
    }


def main() -> None:
    django.setup()
    from redis import Redis

    with tempfile.TemporaryDirectory() as folder:
        port = Redis.from_url(site.CACHE_URL).connection_pool.connection_kwargs["port"]
        with running_server(port, Path(folder)):
            show("A hit, small value, Valkey on loopback", fastest(hits()))
            show("A hit, small value, dict", fastest(engine()))


if __name__ == "__main__":
    main()
