"""Runs are asked for, workers perform them and are killed, until all is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from redis import Redis

from stepflows import StepCache
from stepflows.models import Run
from tests import settings as site
from tests.flows import notes
from tests.flows.kills import QUEUE, WORKFLOW, Note, eight, noted, noticed, step_of
from tests.kills.fleet import Fleet, Member, running_fleet
from tests.kills.plan import Plan, Strike

__all__ = ["perform"]

#: Seconds between two looks at what has happened.
TICK = 0.05


def perform(plan: Plan, folder: Path, patience: float) -> list[Note]:
    """What was noted, in order. Raises :exc:`TimeoutError` when nothing happens for that many seconds."""
    notes.forget()
    with Redis.from_url(site.BROKER_URL) as broker, running_fleet(plan, folder) as fleet:
        _Experiment(plan, broker, fleet, patience).perform()
    return list(noted())


class _Experiment:
    def __init__(self, plan: Plan, broker: Redis, fleet: Fleet, patience: float) -> None:
        self._plan, self._broker, self._fleet, self._patience = plan, broker, fleet, patience
        self._orders = list(plan.orders())
        self._cache = StepCache("django_redis", namespace=WORKFLOW)
        #: The keys of which it is noted that they were there.
        self._cached: set[str] = set()

    def perform(self) -> None:
        for strike in self._plan.strikes():
            self._await(partial(_has_started, strike.after))
            time.sleep(strike.pause)
            self._strike(strike)
        self._await(self._is_done)

    def _await(self, reached: Callable[[], object]) -> None:
        length, deadline = 0, time.monotonic() + self._patience
        while not reached():
            self._send()
            time.sleep(TICK)
            if len(notes.notes()) > length:
                length, deadline = len(notes.notes()), time.monotonic() + self._patience
            if time.monotonic() > deadline:
                unfinished = [f"{run}: {run.state}, sent {run.sent} times, due {run.due_at}" for run in _unfinished()]
                raise TimeoutError("\n".join([f"Nothing has happened for {self._patience:g} s.", *unfinished]))

    def _send(self) -> None:
        """Ask for more runs, as long as few messages wait."""
        while self._orders and self._broker.llen(QUEUE) < self._plan.backlog:
            order = self._orders.pop(0)
            arguments = {"run": str(order.run), "pauses": order.pauses}
            eight.apply_async(kwargs=arguments, run_id=order.run, queue=QUEUE)

    def _is_done(self) -> bool:
        return not self._orders and not _unfinished()

    def _strike(self, strike: Strike) -> None:
        if strike.victim is None:
            self._flush()
            return
        self._await(self._fleet.ready)
        ready = self._fleet.ready()
        self._kill(ready[int(strike.victim * len(ready))])

    def _kill(self, member: Member) -> None:
        """Note what it leaves behind after its end, and before anybody new comes to it."""
        self._fleet.kill(member)
        for key in sorted({*self._cache.keys()} - self._cached):
            self._cached.add(key)
            noticed("cached", *step_of(key))
        for run in Run.objects.filter(state=Run.State.RUNNING, worker__startswith=member.name):
            noticed("orphan", str(run.pk))
        for lost in sorted(_queued() & _held(member.group)):
            noticed("lost", lost)
        noticed("killed", group=member.group)
        self._fleet.start_one()

    def _flush(self) -> None:
        self._broker.flushdb()
        for lost in sorted(_queued().difference(*(_held(member.group) for member in self._fleet.members))):
            noticed("lost", lost)
        noticed("flushed")


def _has_started(steps: int) -> bool:
    return sum(note.kind == "start" for note in noted()) >= steps


def _unfinished() -> list[Run]:
    return list(Run.objects.filter(state__in=(Run.State.QUEUED, Run.State.RUNNING)))


def _queued() -> set[str]:
    return {str(run) for run in Run.objects.filter(state=Run.State.QUEUED).values_list("pk", flat=True)}


def _held(group: int) -> set[str]:
    """Those whose message a worker has, and has not begun with."""
    held = set()
    for note in noted():
        if note.group == group and note.kind == "received":
            held.add(note.run)
        elif note.group == group and note.kind == "begun":
            held.discard(note.run)
    return held
