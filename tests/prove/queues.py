"""Rounds of broker outages: runs are sent all the time, the broker suffers, and every run is done, once."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from celery import Celery, current_app
from django.test import override_settings

from stepflows.models import Run
from tests.flows.kills import QUEUE, STEPS, eight, noted
from tests.kills.findings import Findings
from tests.outages.single import Single, running_single
from tests.prove.crew import Crew, running_crew
from tests.prove.outages import in_turn
from tests.prove.trial import Row, Terms
from tests.prove.weather import Trouble, queue_troubles

__all__ = ["broker_outages"]

SETTINGS: Final = {"HEARTBEAT": 1.0, "LEASE": 10.0, "MAX_ATTEMPTS": 50, "CACHE": "django_redis"}
#: Seconds until a run has to be done, whatever its broker went through.
PATIENCE: Final = 120
#: Runs of one round, and the longest of their steps in seconds.
RUNS: Final = 8
LONGEST: Final = 0.05


@dataclass
class _Tally:
    """What was seen of one trouble."""

    strikes: int = 0
    runs: int = 0
    #: The longest time from a strike until all runs of its round were done, in seconds.
    longest: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def row(self, name: str) -> Row:
        tried = f"{self.strikes} times, {self.runs:,} runs, {self.runs * STEPS:,} steps"
        return Row(name, tried, len(self.wrong), f"all done after {self.longest:.0f} s at most", tuple(self.wrong))


def broker_outages(terms: Terms) -> Iterator[Row]:
    """Every trouble in turn, in a random order, until the time is over; a line for each."""
    chance = terms.chance("broker outages")
    deadline = time.monotonic() + terms.seconds
    tallies: defaultdict[str, _Tally] = defaultdict(_Tally)
    with _workers(terms) as (broker, crew):
        rounds = _Rounds(broker, crew, chance)
        for trouble in in_turn(queue_troubles(broker), chance):
            rounds.play(trouble, tallies[trouble.name])
            if time.monotonic() > deadline:
                break
    for name in sorted(tallies):
        yield tallies[name].row(name)
    yield _deeds(sum(tally.runs for tally in tallies.values()), crew.deserted)


@contextmanager
def _workers(terms: Terms) -> Iterator[tuple[Single, Crew]]:
    """A broker of this trial's own, which this process's Celery app and the workers share."""
    before = current_app._get_current_object()
    with running_single(terms.folder / "broker") as broker, override_settings(STEPFLOWS=SETTINGS):
        environment = {"CELERY_BROKER_URL": broker.url, "TEST_STEPFLOWS": json.dumps(SETTINGS)}
        app = Celery("prove", broker=broker.url, set_as_current=False)
        app.set_current()
        try:
            with running_crew("queues", terms.folder, [QUEUE], environment, workers=1, processes=2) as crew:
                yield broker, crew
        finally:
            before.set_current()
            app.close()


class _Rounds:
    """One after the other, each with runs of its own."""

    def __init__(self, broker: Single, crew: Crew, chance: random.Random) -> None:
        self._broker, self._crew, self._chance = broker, crew, chance

    def play(self, trouble: Trouble, tally: _Tally) -> None:
        runs = [self._sent() for _ in range(RUNS // 2)]
        started = time.monotonic()
        trouble.strike()
        try:
            # The trouble lasts while some are sent; how long that takes depends on it.
            runs += [self._sent() for _ in range(self._chance.randint(0, 2))]
            time.sleep(self._chance.uniform(0, trouble.lasts))
        finally:
            self._broker.mend()
        runs += [self._sent() for _ in range(RUNS - len(runs))]
        tally.wrong += [told for run in runs if (told := self._missed(run))]
        tally.strikes += 1
        tally.runs += len(runs)
        tally.longest = max(tally.longest, time.monotonic() - started)

    def _sent(self) -> Run:
        run = UUID(int=self._chance.getrandbits(128), version=4)
        pauses = [self._chance.uniform(0, LONGEST) for _ in range(STEPS)]
        return eight.apply_async(kwargs={"run": str(run), "pauses": pauses}, run_id=run, queue=QUEUE)

    def _missed(self, run: Run) -> str:
        """What is wrong with it, if anything."""
        deadline = time.monotonic() + PATIENCE
        while not run.finished:
            if time.monotonic() > deadline:
                return f"{run} is still {run.state}."
            self._crew.tend()
            time.sleep(0.05)
            run.refresh_from_db()
        return "" if run.result.ok and run.result.unwrap() == [*range(STEPS)] else f"{run} ended with {run.result}."


def _deeds(runs: int, deserted: int) -> Row:
    findings = Findings.of(noted())
    wrong = [f"{note.run} {note.place} started again." for note in (*findings.again, *findings.together)]
    interrupted = sum(map(len, findings.interrupted.values()))
    if findings.starts.total() != runs * STEPS + interrupted:
        wrong.append(
            f"{findings.starts.total()} executions of {runs * STEPS} steps, {interrupted} of them interrupted."
        )
    note = f"{deserted} workers ended with their broker, and were replaced" if deserted else ""
    return Row("  steps of these runs, executed once each", f"{runs * STEPS:,} steps", len(wrong), note, tuple(wrong))
