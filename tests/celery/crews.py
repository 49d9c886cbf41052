"""Workers that are started and stopped together, because each takes its time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import current_app

from stepflows.models import Run
from tests.outages.single import await_until
from tests.workers import Worker

__all__ = ["PATIENCE", "heart", "revoke", "running"]

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


def revoke(run: Run) -> None:
    """End the Celery task that performs the run, once there is one.

    Over a connection of its own: one of Celery's pool goes on waiting for answers afterwards, and a process that is
    forked later waits for them too, for ever.
    """
    with current_app.connection_for_write() as connection:
        control = current_app.control.inspect(connection=connection)

        def tasks() -> list[str]:
            active = (control.active() or {}).values()
            return [task["id"] for each in active for task in each if str(run.pk) in str(task["args"])]

        current_app.control.revoke(await_until(tasks, PATIENCE)[0], terminate=True, connection=connection)
