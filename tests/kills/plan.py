"""What is to be done: how many runs, and what strikes them when. All of it follows from the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple
from uuid import UUID

from tests.flows.kills import STEPS

__all__ = ["Order", "Plan", "Strike"]


class Order(NamedTuple):
    """A run to be asked for."""

    run: UUID
    #: Seconds that each of its steps takes.
    pauses: list[float]


class Strike(NamedTuple):
    """Something that happens to the workers or to their broker."""

    #: When so many steps were started in all: however fast the machine is, the strikes are spread over the work.
    after: int
    #: Seconds after that.
    pause: float
    #: Which of the living workers, from 0 to 1; None empties the broker.
    victim: float | None


@dataclass(frozen=True)
class Plan:
    """Runs of eight steps, workers to be killed, and a broker to be emptied."""

    runs: int
    kills: int
    flushes: int
    seed: int
    workers: int = 2
    #: Processes of each worker.
    concurrency: int = 2
    #: Messages that a worker takes beforehand for each of its processes; Celery's own choice.
    prefetch: int = 4
    #: Messages that wait at the broker. More are sent only when fewer wait, as if there were always enough workers:
    #: what is measured is the time until a run is found, not how long the queue is.
    backlog: int = 4
    #: The shortest and the longest step, in seconds.
    span: tuple[float, float] = (0.05, 0.4)

    @property
    def steps(self) -> int:
        return self.runs * STEPS

    def orders(self) -> Iterator[Order]:
        chance = random.Random(f"orders {self.seed}")
        for _ in range(self.runs):
            yield Order(
                UUID(int=chance.getrandbits(128), version=4), [chance.uniform(*self.span) for _ in range(STEPS)]
            )

    def strikes(self) -> list[Strike]:
        chance = random.Random(f"strikes {self.seed}")
        kills = [
            Strike(at, chance.uniform(0, self.span[1]), chance.random()) for at in self._spread(chance, self.kills)
        ]
        flushes = [Strike(at, 0.0, None) for at in self._spread(chance, self.flushes)]
        return sorted(kills + flushes, key=attrgetter("after"))

    def _spread(self, chance: random.Random, times: int) -> list[int]:
        """One at random in each part of the work."""
        return [int(self.steps * (number + chance.random()) / (times + 1)) for number in range(times)]
