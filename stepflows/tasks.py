"""The Celery task. A project's own app finds it with ``autodiscover_tasks()``, as ``stepflows`` is an installed app."""

from __future__ import annotations

from typing import Any

from celery import Task, shared_task

from stepflows.dispatch import TASK
from stepflows.runs import perform

__all__ = ["run"]


@shared_task(name=TASK, bind=True, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
def run(self: Task[Any, Any], run_id: str) -> None:
    """Perform a run. Its row keeps what comes of it, so no result backend is needed."""
    perform(run_id, worker=self.request.hostname or "")
