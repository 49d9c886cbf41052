"""What the server and the database hold: while the soak runs, and at its end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final

from django.core.cache import caches
from django.utils import timezone
from redis import Redis

from stepflows.cachedsteps import Selection
from stepflows.caches.names import PREFIX, reserved_key
from stepflows.models import Run
from stepflows.recovery import resume_runs
from tests import settings as site
from tests.prove.trial import Row

__all__ = ["Stock", "remains"]

ALIASES: Final = ("redis", "django_redis")
#: Seconds until the index has to know that something expired.
PATIENCE: Final = 10


class Stock:
    """What is counted and weighed while there is load."""

    def __init__(self) -> None:
        self._client = Redis.from_url(site.CACHE_URL)

    def measured(self) -> Iterable[tuple[str, float]]:
        yield "server, memory", self._client.info("memory")["used_memory"] / 1e6
        yield "server, entries", self._client.dbsize()
        yield "members, index", sum(_members(self._client, purpose) for purpose in ("index", "expiry"))
        yield "runs, rows", Run.objects.count()


def remains() -> Iterator[Row]:
    """At the end every order was removed, so nothing is there for ever, and the index knows what is there."""
    with Redis.from_url(site.CACHE_URL) as client:
        places = [place for place in client.scan_iter(f"*{PREFIX}*", 1000) if _reserved() not in place]
        lasting = [f"{place.decode()} is still there." for place in places if client.ttl(place) == -1]
        yield Row("entries left for ever", f"{len(places):,} entries at the end", len(lasting), "", tuple(lasting))
        leases = list(client.scan_iter(f"*{reserved_key('lease')}*", 1000))
        endless = [f"{place.decode()} does not end." for place in leases if client.ttl(place) == -1]
        yield Row("leases left for ever", f"{len(leases):,} leases at the end", len(endless), "", tuple(endless))
        listed, there = _agreed(client)
        yield Row("the index and what is there", f"{listed:,} listed", abs(listed - there), f"{there:,} are there")
    yield _old_rows()


def _agreed(client: Redis) -> tuple[int, int]:
    """How many members the indexes have and how many entries there are; what has just expired is not yet known."""
    deadline = time.monotonic() + PATIENCE
    while True:
        for alias in ALIASES:
            # Whoever lists removes what has expired.
            Selection((alias,)).listing(0, 1)
        # Each index has a member of its own that stands for no entry.
        listed = _members(client, "index") - sum(client.exists(_place(alias, "index")) for alias in ALIASES)
        there = sum(_reserved() not in place for place in client.scan_iter(f"*{PREFIX}*", 1000))
        if listed == there or time.monotonic() > deadline:
            return listed, there
        time.sleep(0.2)


def _members(client: Redis, purpose: str) -> int:
    return sum(client.zcard(_place(alias, purpose)) for alias in ALIASES)


def _place(alias: str, purpose: str) -> str:
    return caches[alias].make_key(reserved_key(purpose))


def _reserved() -> bytes:
    """With this begins what is no entry."""
    return reserved_key("").encode()


def _old_rows() -> Row:
    """Whoever looks last removes what is over its time."""
    rows = Run.objects.count()
    retention = timedelta(seconds=30)
    removed = resume_runs().removed
    old = Run.objects.filter(finished_at__lt=timezone.now() - retention - timedelta(seconds=1)).count()
    return Row("rows of runs over their time", f"{rows:,} rows at the end", old, f"the last look removed {removed:,}")
