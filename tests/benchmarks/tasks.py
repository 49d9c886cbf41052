"""What a worker of the benchmark runs beside ``stepflows.run``: tasks as one would write them without it."""

from __future__ import annotations

from typing import Final

from celery import shared_task
from django.utils import timezone

from stepflows import workflow
from stepflows.engine.steps import Step
from stepflows.models import Run
from tests.benchmarks.steps import ALIAS

__all__ = ["KEY", "RUN", "one_row", "one_step", "return_one"]

RUN: Final = "bench.run"
KEY: Final = "user:7"


@workflow(RUN, cache=ALIAS)
def one_step(step: Step, deps: object) -> object:
    return step("fetch", dict, key=KEY)


@shared_task(name="bench.one_row", acks_late=True, ignore_result=True)
def one_row(number: int) -> None:
    """Insert one row and update it, with what is in the row of a run before and after it."""
    row = Run.objects.create(workflow=RUN, arguments=b"x" * 40)
    now = timezone.now()
    step = {"label": "fetch", "key": KEY, "outcome": "cached", "offset": 0.001, "duration": 0.0, "attempt": 1}
    Run.objects.filter(pk=row.pk).update(
        state=Run.State.SUCCEEDED,
        epoch=2,
        attempts=1,
        worker="celery@host",
        started_at=now,
        finished_at=now,
        outcome=b"x" * 80,
        steps=[step],
        cached=1,
    )


@shared_task(name="bench.return_one", ignore_result=True)
def return_one(number: int) -> int:
    return 1
