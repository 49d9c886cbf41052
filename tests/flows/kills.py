"""A workflow for workers that are killed, and the notes of what became of it, which no kill can undo."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from celery.signals import task_received

from stepflows import workflow
from stepflows.messages import TASK
from tests.flows import notes

__all__ = ["QUEUE", "STEPS", "WORKFLOW", "Note", "eight", "key_of", "noted", "noticed", "step_of"]

WORKFLOW = "flows.eight"
STEPS = 8
#: Where their messages wait, and nobody else's.
QUEUE = "kills"


class Note(NamedTuple):
    """A line of the file, whose order is the order of what happened: each is appended in one piece."""

    time: float
    #: Of a worker: received (a message), begun (the body), start and end (a function), passed (a step has returned to
    #: the body, so its result is stored). Of who kills: cached (a step, seen in the cache), orphan, lost, killed.
    kind: str
    run: str = "-"
    place: int = -1
    group: int = 0
    pid: int = 0

    @property
    def step(self) -> tuple[str, int]:
        return self.run, self.place

    @classmethod
    def read(cls, line: str) -> Note:
        moment, kind, run, place, group, pid = line.split()
        return cls(float(moment), kind, run, int(place), int(group), int(pid))


def noticed(kind: str, run: str = "-", place: int = -1, group: int | None = None) -> None:
    """Append a note. The clock is the system's own and is nobody's to set."""
    note = Note(time.monotonic(), kind, run, place, os.getpgrp() if group is None else group, os.getpid())
    notes.note(" ".join(map(str, note)))


def noted() -> Iterator[Note]:
    """All notes so far."""
    return map(Note.read, notes.notes())


def key_of(run: str, place: int) -> str:
    return f"{run}:{place}"


def step_of(key: str) -> tuple[str, int]:
    run, _, place = key.partition(":")
    return run, int(place)


@workflow(WORKFLOW, cache="django_redis")
def eight(step: Any, deps: Any, run: str, pauses: list[float]) -> list[int]:
    """As many steps as there are pauses, each of which takes that long."""

    def work(place: int) -> int:
        noticed("start", run, place)
        time.sleep(pauses[place])
        noticed("end", run, place)
        return place

    noticed("begun", run)
    places = []
    for place in range(len(pauses)):
        places.append(step(f"work {place}", partial(work, place), key=key_of(run, place)))
        noticed("passed", run, place)
    return places


@task_received.connect
def _note_message(request: Any, **_: Any) -> None:
    """From here on a message is gone with the worker, until it is sent again."""
    if request.name == TASK and request.delivery_info["routing_key"] == QUEUE:
        noticed("received", str(request.args[0]))
