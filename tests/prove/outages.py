"""Rounds of cache outages: callers at work, one trouble that strikes once or twice, and what came of it."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from django.conf import settings
from django.test import override_settings
from django_redis.pool import ConnectionFactory

from tests.outages.conftest import BACKENDS, cache_settings
from tests.outages.single import Single, running_single
from tests.prove.book import Book, Span
from tests.prove.callers import Callers
from tests.prove.trial import Row, Terms
from tests.prove.weather import Trouble, cache_troubles
from tests.proxies import Proxy, running_proxy

__all__ = ["cache_outages", "in_turn"]

#: Seconds that a client waits for an answer; callers, proxy and server share a machine that may be busy.
TIMEOUT: Final = 2.0


def cache_outages(terms: Terms) -> Iterator[Row]:
    """Every trouble in turn, in a random order, until the time is over; a line for each."""
    chance = terms.chance("cache outages")
    deadline = time.monotonic() + terms.seconds
    tallies: defaultdict[str, _Tally] = defaultdict(_Tally)
    with running_single(terms.folder / "weather") as single, running_proxy(single.port) as proxy:
        rounds = _Rounds(single, proxy, chance)
        with _aliases(proxy):
            for trouble in in_turn(cache_troubles(single, proxy), chance):
                rounds.play(trouble, tallies[trouble.name])
                if time.monotonic() > deadline:
                    break
    for name in sorted(tallies):
        yield tallies[name].row(name)


@dataclass
class _Tally:
    """What was seen of one trouble."""

    strikes: int = 0
    executed: int = 0
    compared: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, book: Book) -> None:
        self.executed += len(book.executions)
        self.compared += book.compared
        self.refused += book.refused
        self.wrong += [*book.wrong, *book.repeated()]

    def row(self, name: str) -> Row:
        tried = f"{self.strikes} times, {self.executed:,} steps run, {self.compared:,} results compared"
        note = f"{self.refused:,} runs were told that the cache is away"
        return Row(f"cache: {name}", tried, len(self.wrong), note, tuple(self.wrong))


class _Rounds:
    """One after the other, each with keys of its own."""

    def __init__(self, single: Single, proxy: Proxy, chance: random.Random) -> None:
        self._single, self._proxy, self._chance = single, proxy, chance
        self._number = 0

    def play(self, trouble: Trouble, tally: _Tally) -> None:
        self._number += 1
        name = f"round {self._number}"
        alias, runs_anyway = self._chance.choice([*BACKENDS]), self._chance.random() < 0.2
        book = Book(runs_anyway=runs_anyway)
        callers = Callers(alias, name, book, random.Random(self._chance.random()))
        try:
            with callers.at_work():
                for _ in range(self._chance.randint(1, 2)):
                    time.sleep(self._chance.uniform(0.1, 0.6))
                    self._suffer(trouble, book)
                    tally.strikes += 1
                time.sleep(self._chance.uniform(0.2, 0.6))
            _in_the_calm(callers, book)
        finally:
            self._mend()
        before = len(tally.wrong)
        tally.add(book)
        tally.wrong[before:] = [f"{name}, {alias}: {each}" for each in tally.wrong[before:]]

    def _suffer(self, trouble: Trouble, book: Book) -> None:
        span = Span(book.moment())
        book.troubles.append(span)
        if trouble.forgets:
            book.lapses.append(span)
        trouble.suffer(self._chance, self._mend)
        span.ended = book.moment()

    def _mend(self) -> None:
        self._single.mend()
        self._proxy.heal()


def _in_the_calm(callers: Callers, book: Book) -> None:
    """Everything is there again, or runs once more; then it is all there, and it is what is listed."""
    keys = callers.keys
    callers.ask_each(keys)
    executed = len(book.executions)
    callers.ask_each(keys)
    if len(book.executions) > executed:
        book.wrong.append(f"{len(book.executions) - executed} steps ran once more in the calm.")
    listed = sorted(callers.flow.cache.keys())
    if listed != keys:
        odd = sorted({*listed} ^ {*keys})
        book.wrong.append(f"Listed are {len(listed)} keys, and {len(keys)} are there: {odd[:5]} ....")


def in_turn(troubles: list[Trouble], chance: random.Random) -> Iterator[Trouble]:
    """Each of them once in a random order, then again in another."""
    while True:
        yield from chance.sample(troubles, len(troubles))


@contextmanager
def _aliases(proxy: Proxy) -> Iterator[None]:
    """Both ways to the server, through the proxy."""
    ways: dict[str, Any] = {kind: cache_settings(kind, proxy.url, TIMEOUT) for kind in BACKENDS}
    with override_settings(CACHES={**settings.CACHES, **ways}):
        yield
    # django-redis keeps one pool for each address for ever.
    if pool := ConnectionFactory._pools.pop(proxy.url, None):
        pool.disconnect()
