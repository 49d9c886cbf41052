"""Workers that are watched, killed and replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.flows.kills import noticed
from tests.workers import Worker

__all__ = ["Crew", "running_crew"]


class Crew:
    """Always as many workers, alike but for their names; whoever ends by itself is replaced."""

    def __init__(
        self, name: str, folder: Path, queues: Sequence[str], environment: Mapping[str, str], processes: int
    ) -> None:
        self._name, self._folder, self._queues = name, folder, queues
        self._environment, self._processes = environment, processes
        self._born = 0
        #: How many have ended although nobody had killed them.
        self.deserted = 0
        self.members: dict[str, Worker] = {}

    def start_one(self) -> None:
        self._born += 1
        name = f"{self._name}-{self._born}@"
        options = [f"--hostname={name}%h", "--without-gossip"]
        self.members[name] = Worker(
            self._folder, *self._queues, processes=self._processes, environment=self._environment, options=options
        )

    def tend(self) -> None:
        """Replace those that have ended, and note it."""
        for name in [name for name, worker in self.members.items() if worker.process.poll() is not None]:
            self.deserted += 1
            noticed("killed", group=self.kill(name))
            self.start_one()

    def ready(self) -> list[str]:
        return [name for name, worker in self.members.items() if worker.process.poll() is None and worker.is_ready]

    def kill(self, name: str) -> int:
        """End all its processes where they are, and say which process group they were."""
        worker = self.members.pop(name)
        worker.kill()
        return worker.process.pid


@contextmanager
def running_crew(
    name: str, folder: Path, queues: Sequence[str], environment: Mapping[str, str], *, workers: int, processes: int
) -> Iterator[Crew]:
    """They are ready, and gone at the end with all their processes."""
    crew = Crew(name, folder, queues, environment, processes)
    try:
        for _ in range(workers):
            crew.start_one()
        for worker in crew.members.values():
            worker.await_ready()
        yield crew
    finally:
        for worker in crew.members.values():
            worker.process.terminate()
        for worker in crew.members.values():
            worker.stop()
