"""What trials are told, and what they report."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from redis import Redis

from stepflows.models import Run
from tests import settings as site
from tests.flows import notes

__all__ = ["Row", "Terms", "Trial", "emptied"]


class Row(NamedTuple):
    """One line of the table."""

    what: str
    #: How often, in words.
    tried: str
    #: How many things were lost, done again, wrong or out of bounds.
    lost: int = 0
    note: str = ""
    #: What to look at when something was lost, a line each.
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Terms:
    """For how long a trial is to try, by which chance, and where its files go."""

    seconds: float
    seed: int
    folder: Path

    def chance(self, purpose: str) -> random.Random:
        """The same for the same seed, and another for each purpose."""
        return random.Random(f"{purpose} {self.seed}")


Trial = Callable[[Terms], Iterator[Row]]


def emptied() -> None:
    """No run, no note, no message and no cached step is left of what was before."""
    Run.objects.all().delete()
    notes.forget()
    for url in (site.CACHE_URL, site.BROKER_URL):
        with Redis.from_url(url) as client:
            client.flushdb()
