"""What becomes of listeners that fail."""

from __future__ import annotations

from stepflows.engine.context import logger
from stepflows.engine.events import Event, Listener
from stepflows.engine.policy import is_interrupt

__all__ = ["report"]


def report(listener: Listener, event: Event, error: Exception) -> None:
    """Log it: a run does not suffer from whoever listens. A worker's time limit that strikes there goes on."""
    if is_interrupt(error):
        raise error
    logger.error("The listener %r failed on %s", listener, event.type, exc_info=error)
