"""Listing, counting and clearing one workflow's keys beside as many keys of others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from django.core.cache import caches

from tests.benchmarks.pings import pinged
from tests.benchmarks.server import Server
from tests.benchmarks.steps import ALIAS, FLOW, step_cache, write
from tests.benchmarks.stopwatch import fastest, once, repeated
from tests.benchmarks.table import Row, Table

__all__ = ["tables"]

PAGE: Final = 100
#: Digits of the numbers in keys.
WIDTH: Final = 7
#: Of another client's PING meanwhile.
MOST: Final = "PING, 99 %, ms"
LONGEST: Final = "PING, longest, ms"
#: django-redis recommends a high one for deleting; its default of 10 takes a round trip for ten keys.
ITERSIZE: Final = 100_000
SCANNED: Final = 1000

# Faster than asking for each from here.
_FILL: Final = "for i = ARGV[1], ARGV[2] do redis.call('SET', string.format(ARGV[3], i), ARGV[4]) end"


def tables(server: Server, keys: int) -> Iterator[Table]:
    server.flush()
    write(f"order:{number:0{WIDTH}d}" for number in range(keys))
    _fill_others(server, keys)
    title = f"{keys:,} keys of one workflow beside {keys:,} of others"
    yield Table(f"Lists among {title}", [*_ours(server, keys), *_theirs(server)])
    yield Table(f"Clearing among {title}", list(_cleared(server, keys)))


def _fill_others(server: Server, keys: int) -> None:
    """Pages of some other application."""
    pattern = caches[ALIAS].make_key(f"page:%0{WIDTH}d")
    for start in range(0, keys, 10_000):
        server.client.eval(_FILL, 0, start, min(start + 10_000, keys) - 1, pattern, "x" * 100)


def _ours(server: Server, keys: int) -> Iterator[Row]:
    steps = step_cache()
    backend, scope = steps.backend, steps.scope
    page = {"ms": 2, "round trips": 2}
    calls: list[tuple[str, Callable[[], object], dict[str, float]]] = [
        ("stepflows, first page of 100, sorted", lambda: backend.names(scope, limit=PAGE), page),
        ("stepflows, page in the middle", lambda: backend.names(scope, start=keys // 2, limit=PAGE), page),
        ("stepflows, 100 keys of a prefix", lambda: backend.names(scope, "order:00012", limit=PAGE), page),
        ("stepflows, count", lambda: len(steps), {"round trips": 1}),
    ]
    seconds = fastest({name: repeated(call) for name, call, _ in calls}, times=20, rounds=3)
    for name, call, goals in calls:
        yield Row(name, {"ms": seconds[name] * 1000, "round trips": server.asked(call).round_trips}, goals)


def _theirs(server: Server) -> Iterator[Row]:
    cache: Any = caches[ALIAS]
    ours = f"stepflows:{FLOW}:"
    calls: dict[str, Callable[[], object]] = {
        "iter_keys, some 100, unsorted": lambda: list(islice(cache.iter_keys(f"{ours}*", itersize=SCANNED), PAGE)),
        "iter_keys, 100 keys of a prefix": lambda: list(cache.iter_keys(f"{ours}order:00012*", itersize=SCANNED)),
        "iter_keys, count": lambda: sum(1 for _ in cache.iter_keys(f"{ours}*", itersize=SCANNED)),
    }
    for name, call in calls.items():
        taken: list[float] = []
        asked = server.asked(lambda call=call, taken=taken: taken.append(once(call)))
        yield Row(name, {"ms": taken[0] * 1000, "round trips": asked.round_trips})


def _cleared(server: Server, keys: int) -> Iterator[Row]:
    cache: Any = caches[ALIAS]
    # About a tenth of theirs, by the zeros in front.
    pattern = f"page:{'0' * (WIDTH - len(str(keys // 10 - 1)))}*"
    yield _clearing("nobody else asks anything", server, lambda: time.sleep(3))
    yield _clearing("django-redis delete_pattern", server, lambda: cache.delete_pattern(pattern, itersize=ITERSIZE))
    yield _clearing("stepflows clear", server, step_cache().clear, {LONGEST: 10})


def _clearing(name: str, server: Server, call: Callable[[], int | None], goals: dict[str, float] | None = None) -> Row:
    taken: list[float] = []
    removed: list[int | None] = []
    pings = pinged(server.url, lambda: taken.append(once(lambda: removed.append(call()))))
    values = {"keys": removed[0], "s": taken[0], MOST: pings.most * 1000, LONGEST: pings.longest * 1000}
    return Row(name, values, goals or {})
