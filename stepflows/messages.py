"""The messages that bring runs to workers: an id each, because the row is the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from celery import current_app
from kombu.pools import producers

from stepflows.engine.context import logger

__all__ = ["TASK", "intend", "publish", "withheld"]

#: Takes note of a run.
Withheld: TypeAlias = Callable[[Any], None]

#: The name of the Celery task.
TASK: Final = "stepflows.run"

#: Seconds that a broker has for each answer. Whoever asked for the run is waiting, and the row does not need it.
_PATIENCE: Final = 2.0
# One more try, at once: a connection of the pool may have gone stale. Celery's own patience is for a broker that comes
# back while the caller waits; here the row waits instead.
_IMPATIENT: Final = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
#: What the transports call the time that they wait for an answer. By themselves they wait for ever.
_TIMEOUTS: Final = {
    "redis": ("socket_timeout", "socket_connect_timeout"),
    "amqp": ("read_timeout", "write_timeout"),
}

#: Those of the blocks in which nothing is sent, the innermost last.
_withheld: list[Withheld] = []


def publish(run_id: Any, workflow: str, **options: Any) -> bool:
    """Send the id of a run with Celery's ``queue``, ``priority``, ``eta`` or ``countdown``; whether it was sent.

    A broker that cannot be reached is logged and keeps the caller for a few seconds at most.
    """
    if _withheld:
        return False
    try:
        with producers[_connection()].acquire(block=True, timeout=_PATIENCE) as producer:
            current_app.tasks[TASK].apply_async(
                (str(run_id),), producer=producer, retry=True, retry_policy=_IMPATIENT, **options
            )
    except Exception:
        logger.exception(
            "Run %s of workflow %r stays queued: Celery app %r could not send it. Is its broker up, and is the app "
            "imported in this process? A worker sends it later.",
            run_id,
            workflow,
            current_app.main,
        )
        return False
    return True


def intend(run: Any) -> None:
    """Tell that this run is to be sent, now or when a transaction commits."""
    if _withheld:
        _withheld[-1](run)


@contextmanager
def withheld(note: Withheld) -> Iterator[None]:
    """Send nothing in this block, and have the runs noted that would be; for tests that have no broker."""
    _withheld.append(note)
    try:
        yield
    finally:
        _withheld.remove(note)


def _connection() -> Any:
    """Where the app publishes, by a connection that waits for a moment only. What the project has set stays."""
    connection = current_app.connection_for_write(connect_timeout=_PATIENCE)
    names = _TIMEOUTS.get(connection.transport.driver_type, ())
    connection.transport_options = dict.fromkeys(names, _PATIENCE) | (connection.transport_options or {})
    return connection
