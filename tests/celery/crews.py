"""Workers that are started and stopped together, because each takes its time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.workers import Worker

__all__ = ["PATIENCE", "heart", "running"]

#: Seconds until a test gives up on a run.
PATIENCE = 60


def heart(beat: float, **settings: Any) -> dict[str, str]:
    """The environment of a worker with that heartbeat, in seconds, and other settings of its own."""
    return {"TEST_STEPFLOWS": json.dumps({"HEARTBEAT": beat, **settings})}


@contextmanager
def running(*workers: Worker) -> Iterator[None]:
    """They are ready, and stopped at the end if they still run."""
    try:
        for worker in workers:
            worker.await_ready()
        yield
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.stop()
