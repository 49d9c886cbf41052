"""The thread that says of the runs of this process that they are alive, and hears whether they are still wanted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from django.db import connections

from stepflows.engine.context import logger

__all__ = ["heartbeat"]

#: Seconds between two rounds. A run that is done before the first one costs nothing.
_TICK: Final = 0.5


class Beating(Protocol):
    """Something that has to be said to be alive."""

    def beat(self) -> None:
        """Say so, if it is time."""


class _Heartbeat:
    """One thread for all runs of the process, while there are any. A forked child begins with none."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        # Entered as it is: a time limit that strikes in the Python of a condition would leave it locked for good.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._alive: set[Beating] = set()
        self._thread: threading.Thread | None = None

    @contextmanager
    def of(self, alive: Beating) -> Iterator[None]:
        """Its heart beats during this block."""
        try:
            self._begin_with(alive)
            yield
        finally:
            with self._lock:
                self._alive.discard(alive)

    def _begin_with(self, alive: Beating) -> None:
        with self._lock:
            self._alive.add(alive)
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name="stepflows-heartbeat", daemon=True)
                thread.start()
                self._thread = thread
            self._changed.notify()

    def _run(self) -> None:
        while True:
            if not self._alive:
                # Nobody needs this thread's connection while nothing runs.
                connections.close_all()
            with self._lock:
                self._changed.wait_for(lambda: self._alive)
            time.sleep(_TICK)
            with self._lock:
                alive = list(self._alive)
            for each in alive:
                try:
                    each.beat()
                except Exception:
                    # The hearts of others depend on this thread.
                    logger.exception("The heartbeat of %r failed", each)


heartbeat: Final = _Heartbeat()
os.register_at_fork(after_in_child=heartbeat.begin)
