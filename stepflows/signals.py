"""The Django signal that carries every event of every workflow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.dispatch import Signal

from stepflows.engine.context import logger
from stepflows.engine.events import Event
from stepflows.engine.policy import is_interrupt

__all__ = ["asend", "send", "step_event"]

#: Sent with ``event=``, an :class:`stepflows.Event`. The sender is the class ``stepflows.Workflow``.
step_event = Signal()


def send(sender: type, event: Event) -> None:
    """Tell the receivers. One that raises is logged and changes nothing."""
    _report(step_event.send_robust(sender, event=event), event)


async def asend(sender: type, event: Event) -> None:
    """Tell the receivers from an event loop."""
    _report(await step_event.asend_robust(sender, event=event), event)


def _report(answers: Iterable[tuple[Any, Any]], event: Event) -> None:
    for receiver, answer in answers:
        if isinstance(answer, Exception):
            if is_interrupt(answer):
                raise answer
            logger.error("The receiver %r failed on %s", receiver, event.type, exc_info=answer)
