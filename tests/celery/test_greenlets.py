"""What ends a task under the gevent pool: it is revoked, or takes too long. The run goes on all the same."""

import pytest

from stepflows import Ok
from tests.celery.crews import PATIENCE, heart, revoke, running
from tests.flows.gated import gated, noted, open_gate
from tests.outages.single import await_until
from tests.workers import Worker

pytestmark = [pytest.mark.worker, pytest.mark.django_db(transaction=True)]

#: A lease that is not released outlives every test.
ENVIRONMENT = heart(1, LEASE=300)


@pytest.fixture(scope="module", autouse=True)
def workers(_valkey_server, django_db_setup, _folder):
    """One that gives a task its time, and one that gives it two seconds."""
    options = {"patient": [], "hasty": ["--time-limit=2"]}
    with running(*(worker(_folder, name, options[name]) for name in options)):
        yield


def worker(folder, name, options):
    options = [f"--hostname={name}@%h", *options]
    return Worker(folder, name, pool="gevent", environment=ENVIRONMENT, options=options)


def test_a_revoked_greenlet_does_not_end_its_run(name):
    """The step that it was at is not stored as a failure, its lease is given back, and the run is queued again."""
    run = gated.apply_async((name,), queue="patient")
    await_until(lambda: "gate" in noted(name), PATIENCE)

    revoke(run)
    await_until(lambda: noted(name).count("gate") == 2, PATIENCE)
    open_gate(name)

    assert run.wait(PATIENCE) == Ok(f"after {name}")
    assert "GreenletExit" in run.history[0]["reason"]
    assert noted(name) == ["before", "gate", "gate", "after"]


def test_a_time_limit_does_not_end_a_run_of_greenlets(name):
    """It strikes the greenlet and says nothing about the step."""
    run = gated.apply_async((name,), queue="hasty")

    await_until(lambda: noted(name).count("gate") == 2, PATIENCE)
    open_gate(name)

    assert run.wait(PATIENCE) == Ok(f"after {name}")
    assert "Timeout" in run.history[0]["reason"]
    assert noted(name)[:3] == ["before", "gate", "gate"]
