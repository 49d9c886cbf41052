"""A run on a database that goes away and comes back."""

import os
import subprocess
import sys
import time

import psycopg
import pytest

from stepflows import Ok, loads
from tests.celery.crews import PATIENCE, heart, running
from tests.flows.gated import gated, noted, open_gate
from tests.outages.single import await_until
from tests.postgres import running_postgres
from tests.workers import ROOT, Worker

pytestmark = pytest.mark.worker

#: Seconds; four times as long as it takes to be thought lost.
AWAY = 10


@pytest.fixture(scope="module")
def database():
    """A server of this file's own, with the tables of the site."""
    with running_postgres() as server:
        manage(server, "migrate", "--verbosity=0")
        yield server


def manage(server, *arguments):
    environment = {**os.environ, "TEST_DATABASE": server.url}
    command = [sys.executable, "-m", "django", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def row(server, run_id):
    with psycopg.connect(server.url) as connection:
        return connection.execute("SELECT state, outcome FROM stepflows_run WHERE id = %s", [run_id]).fetchone()


def is_finished(server, run_id):
    return row(server, run_id)[0] not in ("queued", "running")


def test_a_database_that_is_away_for_ten_seconds_loses_nothing(database, folder, name):
    """The steps go on without it, the result is written when it is back, and no step runs twice."""
    with running(Worker(folder, environment=heart(1.5) | {"TEST_DATABASE": database.url})):
        run_id = manage(database, "run_workflow", gated.name, "--arg", f'name="{name}"', "--async")
        await_until(lambda: "gate" in noted(name), PATIENCE)

        database.stop()
        time.sleep(AWAY / 2)
        open_gate(name)
        await_until(lambda: "after" in noted(name), PATIENCE)
        time.sleep(AWAY / 2)
        database.start()

        await_until(lambda: is_finished(database, run_id), PATIENCE)
    state, outcome = row(database, run_id)
    assert (state, loads(outcome)) == ("succeeded", Ok(f"after {name}"))
    assert noted(name) == ["before", "gate", "after"]
