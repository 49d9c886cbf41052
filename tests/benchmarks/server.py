"""The benchmark's own Valkey: pinned beside its client, and asked what it was asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from redis import Redis

from tests.servers import counted_commands

__all__ = ["Asked", "Server"]


class Asked(NamedTuple):
    """What one call asked the server."""

    #: Of the events in which the server read and those in which it wrote the fewer, because a long request is read in
    #: pieces and a long reply is written in pieces. Never too few; a long pipeline counts more than once.
    round_trips: int
    #: Every command, those inside scripts too.
    commands: str


@dataclass(frozen=True)
class Server:
    """Where it is, and a client that is nobody else's."""

    url: str
    client: Redis

    def flush(self) -> None:
        # Not in the background, where it would disturb what comes next.
        self.client.execute_command("FLUSHALL", "SYNC")

    def asked(self, call: Callable[[], object]) -> Asked:
        """What the call asks, of everybody."""
        with counted_commands(self.client) as commands:
            reads, writes = self._events()
            call()
            reads_after, writes_after = self._events()
        # One of each was the first question itself.
        trips = min(reads_after - reads, writes_after - writes) - 1
        return Asked(trips, ", ".join(f"{name} {calls}" for name, calls in sorted(commands.items())))

    def _events(self) -> tuple[int, int]:
        stats = self.client.info("stats")
        return stats["total_reads_processed"], stats["total_writes_processed"]

    @contextmanager
    def pinned(self) -> Iterator[str]:
        """This process and the server on one core, where the system can do that; says what came of it."""
        if not hasattr(os, "sched_setaffinity"):
            yield "not pinned to a core, which this system cannot"
            return
        pid = int(self.client.info("server")["process_id"])
        before = {0: os.sched_getaffinity(0), pid: os.sched_getaffinity(pid)}
        core = max(before[0])
        try:
            for process in before:
                os.sched_setaffinity(process, {core})
            yield f"client and server pinned to core {core}"
        finally:
            for process, cores in before.items():
                os.sched_setaffinity(process, cores)
