"""The Celery tasks. A project's own app finds them with ``autodiscover_tasks()``: ``stepflows`` is an installed app."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from celery import Task, shared_task
from celery.signals import worker_ready, worker_shutting_down

from stepflows.engine.context import logger
from stepflows.messages import TASK
from stepflows.recovery import Watch
from stepflows.recovery import resume_runs as look
from stepflows.runs import perform

__all__ = ["resume_runs", "run"]


@shared_task(name=TASK, bind=True, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def run(self: Task[Any, Any], run_id: str) -> None:
    """Perform a run. Its row keeps what comes of it, so no result backend is needed."""
    try:
        pk = UUID(run_id)
    except (AttributeError, TypeError, ValueError):
        # Whoever can reach the broker can send anything.
        logger.error("A message asks for the run %.100r, which is the id of none; it has nothing to do", run_id)
        return
    perform(pk, worker=self.request.hostname or "")


@shared_task(name="stepflows.resume_runs", ignore_result=True)
def resume_runs() -> None:
    """Look for lost runs, as every worker does by itself; for those who would rather have beat say when."""
    look()


_watch: Final = Watch()
worker_ready.connect(_watch.start, weak=False)
worker_shutting_down.connect(_watch.stop, weak=False)
