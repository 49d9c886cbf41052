"""The workers that are killed, and those that take their place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from django.conf import settings

from tests.flows.kills import QUEUE
from tests.kills.plan import Plan
from tests.workers import Worker

__all__ = ["Fleet", "Member", "running_fleet"]


class Member(NamedTuple):
    #: As it begins in the rows of its runs.
    name: str
    worker: Worker

    @property
    def group(self) -> int:
        """The process group of all its processes."""
        return self.worker.process.pid


class Fleet:
    """Always as many workers as planned, with the settings that are in force in this process."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan, self._folder = plan, folder
        self._born = 0
        self.members: list[Member] = []

    def start_one(self) -> None:
        self._born += 1
        name = f"{QUEUE}-{self._born}@"
        worker = Worker(
            self._folder,
            QUEUE,
            processes=self._plan.concurrency,
            environment={"TEST_STEPFLOWS": json.dumps(settings.STEPFLOWS)},
            options=[f"--hostname={name}%h", f"--prefetch-multiplier={self._plan.prefetch}"],
        )
        self.members.append(Member(name, worker))

    def ready(self) -> list[Member]:
        return [member for member in self.members if member.worker.is_ready]

    def kill(self, member: Member) -> None:
        self.members.remove(member)
        member.worker.kill()


@contextmanager
def running_fleet(plan: Plan, folder: Path) -> Iterator[Fleet]:
    """They are ready, and stopped at the end."""
    fleet = Fleet(plan, folder)
    try:
        for _ in range(plan.workers):
            fleet.start_one()
        for member in fleet.members:
            member.worker.await_ready()
        yield fleet
    finally:
        for member in fleet.members:
            member.worker.process.terminate()
        for member in fleet.members:
            member.worker.stop()
