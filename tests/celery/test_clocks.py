"""Workers whose clocks disagree, on one database."""

import pytest
from django.db.models.functions import Now

from stepflows.models import Run
from stepflows.tasks import resume_runs
from tests.celery.crews import PATIENCE, heart, running
from tests.flows.gated import gated, noted, open_gate
from tests.flows.workflows import order
from tests.outages.single import await_until
from tests.workers import Worker

pytestmark = [pytest.mark.worker, pytest.mark.django_db(transaction=True)]


def worker(folder, queue, shift):
    """One whose clock is that many seconds ahead."""
    return Worker(folder, queue, processes=2, environment=heart(3) | {"TEST_CLOCK_SHIFT": str(shift)})


def test_workers_with_different_clocks_leave_each_other_their_runs(folder, name):
    """Five minutes before and after the right time, they do not take for lost what the others are at."""
    clocks = {"ahead": 300, "behind": -300}
    with running(*(worker(folder, f"{name}-{clock}", shift) for clock, shift in clocks.items())):
        runs = {clock: gated.apply_async((f"{name}-{clock}",), queue=f"{name}-{clock}") for clock in clocks}
        await_until(lambda: all("gate" in noted(f"{name}-{clock}") for clock in clocks), PATIENCE)
        started = {clock: Run.objects.get(pk=run.pk).started_at for clock, run in runs.items()}
        assert (started["ahead"] - started["behind"]).total_seconds() > 500

        promised = Run.objects.latest("due_at").due_at
        await_until(lambda: Run.objects.annotate(now=Now()).filter(now__gt=promised).exists(), PATIENCE)
        for clock in clocks:
            # It has one process left for both, and takes them in turn.
            resume_runs.apply_async(queue=f"{name}-{clock}")
            assert order.apply_async((7,), queue=f"{name}-{clock}").wait(PATIENCE).ok

        for clock in clocks:
            open_gate(f"{name}-{clock}")
        assert {run.wait(PATIENCE).ok for run in runs.values()} == {True}
        assert {run.attempts for run in runs.values()} == {1}
        assert [noted(f"{name}-{clock}") for clock in clocks] == [["before", "gate", "after"]] * 2
