"""The messages that bring runs to workers: an id each, because the row is the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final, TypeAlias

from celery import current_app
from kombu.exceptions import OperationalError
from kombu.pools import producers

from stepflows.engine.context import logger
from stepflows.engine.policy import is_interrupt

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

    A broker that cannot be reached is logged and keeps the caller for a few seconds at most. A time limit that strikes
    meanwhile goes on.
    """
    if _withheld:
        return False
    try:
        with _producer() as producer:
            current_app.tasks[TASK].apply_async(
                (str(run_id),), producer=producer, retry=True, retry_policy=_IMPATIENT, **options
            )
    except Exception as error:
        if is_interrupt(error):
            raise
        where = f"Run {run_id} of workflow {workflow!r} stays queued"
        # Where the broker is away, that it is says all; what else there may be has a place in the code.
        logger.error("%s: %s A worker sends it later.", where, _cause(error), exc_info=not _is_away(error))
        return False
    return True


def _cause(error: Exception) -> str:
    """Why a message could not be sent, and what to do about it."""
    app = current_app
    # Celery makes up an app of this name where the project has not made one.
    if app.main == "default" and not app.conf.broker_url:
        return (
            "this process has no Celery app to send it with. Make one as Celery's guide for Django says, and import it "
            "in the __init__.py of the project: from .celery import app as celery_app."
        )
    reason = f"{type(error).__name__}: {error}".rstrip(".: ")
    if not _is_away(error):
        return f"Celery app {app.main!r} could not send it. {reason}."
    return f"Celery app {app.main!r} could not reach its broker at {app.connection_for_write().as_uri()}. {reason}."


def _is_away(error: Exception) -> bool:
    return isinstance(error, OperationalError | OSError)


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


def _producer() -> Any:
    """To be used in a ``with`` statement. Eager tasks have none: there may be one in another, deeper than the pool."""
    if current_app.conf.task_always_eager:
        return nullcontext()
    return producers[_connection()].acquire(block=True, timeout=_PATIENCE)


def _connection() -> Any:
    """Where the app publishes, by a connection that waits for a moment only. What the project has set stays."""
    connection = current_app.connection_for_write(connect_timeout=_PATIENCE)
    names = _TIMEOUTS.get(connection.transport.driver_type, ())
    connection.transport_options = dict.fromkeys(names, _PATIENCE) | (connection.transport_options or {})
    return connection
