"""A soak: mixed load for a long time, workers killed at random, and everything measured stays bounded."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import psutil  # type: ignore[import-untyped,unused-ignore]
from django.contrib.auth import get_user_model
from django.test import override_settings

from stepflows import StepCache
from stepflows.models import Run
from tests.flows.kills import noted, noticed, step_of
from tests.outages.single import Single, running_single
from tests.prove.crew import Crew, running_crew
from tests.prove.deeds import Ledger
from tests.prove.load import Came, Load
from tests.prove.remains import Stock, remains
from tests.prove.samples import Samples, asked_of
from tests.prove.threads import QUEUE
from tests.prove.trial import Row, Terms
from tests.prove.workflows import CACHE, NAMES

__all__ = ["soak"]

SETTINGS: Final = {"HEARTBEAT": 2.0, "LEASE": 15.0, "MAX_ATTEMPTS": 100, "CACHE": CACHE, "RUN_RETENTION": 30}
LANES: Final = {"threads": "tests.prove.threads.ThreadLane", "loop": "tests.prove.loops.LoopLane"}
#: Seconds that a whole lane may take to come to its end.
PATIENCE: Final = 300
#: Of so many strikes one is at the broker.
_FLUSHES: Final = 5


def soak(terms: Terms) -> Iterator[Row]:
    """Processes and workers at work for so long, then what they did, what is left, and what has grown."""
    with _running(terms) as scene, override_settings(STEPFLOWS=SETTINGS):
        scene.watch(time.monotonic() + terms.seconds)
        came = scene.end()
        yield from _accounts(came)
        ledger = Ledger.of(noted())
        yield _strikes(scene, ledger)
        yield Row("steps done once", f"{len(ledger.starts):,} steps", len(ledger.wrong), "", tuple(ledger.wrong))
        yield from remains()
        yield from scene.samples.rows()


@contextmanager
def _running(terms: Terms) -> Iterator[_Scene]:
    """Two workers, of which one is left in peace, and processes that keep them busy."""
    get_user_model().objects.create_superuser("prover")
    with ExitStack() as stack:
        broker = stack.enter_context(running_single(terms.folder / "broker"))
        environment = {
            "DJANGO_SETTINGS_MODULE": "tests.prove.settings",
            "CELERY_BROKER_URL": broker.url,
            "TEST_STEPFLOWS": json.dumps(SETTINGS),
        }
        crew = stack.enter_context(running_crew("soak", terms.folder, [QUEUE], environment, workers=2, processes=2))
        loads = []
        for name, kind in LANES.items():
            loads.append(Load(name, kind, terms.seed, min(30.0, terms.seconds), terms.folder, environment))
            stack.callback(loads[-1].kill)
        yield _Scene(terms, broker, crew, loads)


class _Scene:
    """All that runs, and what strikes it."""

    def __init__(self, terms: Terms, broker: Single, crew: Crew, loads: Sequence[Load]) -> None:
        self._chance: random.Random = terms.chance("strikes")
        self._pause = min(20.0, terms.seconds / 4)
        self._broker, self._crew, self._loads = broker, crew, loads
        self.kills = self.flushes = 0
        self.samples = Samples()
        self._measures = [Stock().measured, *(asked_of(load.name, [load.process.pid]) for load in loads)]
        #: The one that is never killed, and so measured.
        self._steady, worker = next(iter(crew.members.items()))
        children = [child.pid for child in psutil.Process(worker.process.pid).children()]
        self._measures.append(asked_of("worker", [worker.process.pid, *children]))

    @property
    def deserted(self) -> int:
        return self._crew.deserted

    def watch(self, until: float) -> None:
        """Measure once a second, and strike now and then."""
        strike_at = time.monotonic() + self._pause
        while time.monotonic() < until:
            time.sleep(min(1.0, max(0.0, until - time.monotonic())))
            for measured in self._measures:
                self.samples.add(measured())
            self._crew.tend()
            if time.monotonic() > strike_at and self._strike():
                strike_at = time.monotonic() + self._chance.uniform(0.5, 1) * self._pause

    def end(self) -> list[Came]:
        """Nothing strikes any more, and all come to their end."""
        for load in self._loads:
            assert load.process.stdin
            load.process.stdin.close()
            load.process.stdin = None
        return [load.end(PATIENCE) for load in self._loads]

    def _strike(self) -> bool:
        """Whether there was something to strike."""
        if self._chance.random() < 1 / _FLUSHES:
            self._broker.client.flushall()
            self.flushes += 1
            return True
        ready = [name for name in self._crew.ready() if name != self._steady]
        if ready:
            self._kill(self._chance.choice(ready))
        return bool(ready)

    def _kill(self, name: str) -> None:
        """Note which steps are stored before anybody else comes to them, so that they are done no more."""
        group = self._crew.kill(name)
        caches = [StepCache(CACHE, namespace=each) for each in NAMES]
        for run in Run.objects.filter(state=Run.State.RUNNING, worker__startswith=name):
            for cache in caches:
                for key in cache.keys(f"{run.kwargs['name']}:"):
                    noticed("cached", *step_of(key))
        noticed("killed", group=group)
        self.kills += 1
        self._crew.start_one()


def _accounts(came: Sequence[Came]) -> Iterator[Row]:
    done: Counter[str] = sum((each.done for each in came), Counter())
    wrong = [told for each in came for told in each.wrong]
    tried = ", ".join(f"{times:,} {what}" for what, times in done.most_common())
    compared = sum(each.compared for each in came)
    yield Row("mixed load: results as they have to be", f"{compared:,} compared", len(wrong), tried, tuple(wrong))
    unfinished = Run.objects.filter(state__in=(Run.State.QUEUED, Run.State.RUNNING))
    left = tuple(f"{run} is still {run.state}." for run in unfinished)
    sent = sum(done[what] for what in ("send", "asend", "cancel", "retry"))
    yield Row("runs on workers come to their end", f"{sent:,} runs", len(left), "", left)


def _strikes(scene: _Scene, ledger: Ledger) -> Row:
    tried = f"{scene.kills} kills, {scene.flushes} broker flushes"
    interrupted = sum(map(len, ledger.interrupted.values()))
    note = f"{interrupted} steps were interrupted and done again by others"
    told = (f"{scene.deserted} workers ended by themselves.",) if scene.deserted else ()
    return Row("workers killed meanwhile", tried, scene.deserted, note, told)
