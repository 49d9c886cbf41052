"""Runs under each of Celery's pools. All pools work at the same time, because what the tests wait for takes a while."""

import pytest
from django.db.models.functions import Now

from stepflows import InvalidUse, Ok
from stepflows.models import Run
from stepflows.recovery import resume_runs
from tests.celery.crews import PATIENCE, heart, running
from tests.flows.gated import gated, gated_async, noted, open_gate
from tests.outages.single import await_until
from tests.workers import Worker

pytestmark = [pytest.mark.worker, pytest.mark.django_db(transaction=True)]

POOLS = ["prefork", "threads", "solo", "gevent"]


@pytest.fixture(scope="module")
def workers(_valkey_server, django_db_setup, _folder):
    """One of each pool, with a queue of that name, in no hurry to call a run lost."""
    with running(*(Worker(_folder, pool, pool=pool, environment=heart(3)) for pool in POOLS)):
        yield


def victims(folder, name):
    """One of each pool, with a queue of its own in this test. Their leases do not outlive them for long."""
    return [Worker(folder, f"{name}-{pool}", pool=pool, environment=heart(1, LEASE=2)) for pool in POOLS]


def each(value):
    return dict.fromkeys(POOLS, value)


def sent(name, queue="{}"):
    """A run for each pool, named after it."""
    return {pool: gated.apply_async((f"{name}-{pool}",), queue=queue.format(pool)) for pool in POOLS}


def are_at_the_gate(name):
    return all("gate" in noted(f"{name}-{pool}") for pool in POOLS)


@pytest.mark.parametrize(
    ("workflow", "pools"), [(gated, POOLS), (gated_async, ["prefork", "threads", "solo"])], ids=["sync", "async"]
)
def test_every_pool_performs_runs(workers, name, workflow, pools):
    """A run is executed under each of them; an event loop has no place among greenlets, which share one thread."""
    for pool in pools:
        open_gate(f"{name}-{pool}")

    runs = [workflow.apply_async((f"{name}-{pool}",), queue=pool) for pool in pools]

    assert [run.wait(PATIENCE) for run in runs] == [Ok(f"after {name}-{pool}") for pool in pools]
    assert [noted(f"{name}-{pool}") for pool in pools] == [["before", "gate", "after"]] * len(pools)


def test_an_async_body_is_refused_among_greenlets(workers, name):
    """The run says why, and what to do; the worker goes on with others."""
    open_gate(name)

    result = gated_async.apply_async((name,), queue="gevent").wait(PATIENCE)

    assert isinstance(result.error, InvalidUse)
    assert "cannot run on a worker with the gevent pool" in str(result.error)
    assert gated.apply_async((name,), queue="gevent").wait(PATIENCE).ok


def test_a_long_step_keeps_its_run_under_every_pool(workers, name):
    """The heart beats while a step runs, so nobody takes the run for lost."""
    runs = sent(name)
    await_until(lambda: are_at_the_gate(name), PATIENCE)
    promised = Run.objects.latest("due_at").due_at

    await_until(lambda: Run.objects.annotate(now=Now()).filter(now__gt=promised).exists(), PATIENCE)
    assert resume_runs().resumed == 0

    for pool in POOLS:
        open_gate(f"{name}-{pool}")
    assert {pool: run.wait(PATIENCE).ok for pool, run in runs.items()} == each(True)
    assert {pool: run.attempts for pool, run in runs.items()} == each(1)


def test_a_killed_worker_loses_nothing_under_every_pool(folder, name):
    """A worker that is started after the kill finishes the run, and does not repeat what was done."""
    killed = victims(folder, name)
    with running(*killed):
        runs = sent(name, f"{name}-{{}}")
        await_until(lambda: are_at_the_gate(name), PATIENCE)
        for worker in killed:
            worker.kill()

    for pool in POOLS:
        open_gate(f"{name}-{pool}")
    with running(*victims(folder, name)):
        assert {pool: run.wait(PATIENCE).ok for pool, run in runs.items()} == each(True)
    assert {pool: noted(f"{name}-{pool}") for pool in POOLS} == each(["before", "gate", "gate", "after"])
