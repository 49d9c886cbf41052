"""Workers that are killed while they run: ``python -m tests.kills`` in small, and how it reads what it finds."""

import pytest

from tests.flows.kills import Note
from tests.kills.experiment import perform
from tests.kills.findings import Findings
from tests.kills.plan import Plan
from tests.kills.verdict import figures

A, B = 11, 12
#: Seconds. A step whose process is killed is free again after its lease; a slow machine has to renew it in that time.
HEARTBEAT, LEASE = 0.5, 5
#: Seconds; what matters is that all are found, how soon is another matter on a busy machine.
PATIENCE = 60


@pytest.mark.worker
@pytest.mark.django_db(transaction=True)
def test_runs_survive_workers_that_are_killed_and_a_broker_that_is_emptied(valkey, settings, tmp_path):
    """All succeed, no finished step is executed again, and a kill interrupts no more steps than it has processes."""
    plan = Plan(runs=12, kills=4, flushes=1, seed=4, span=(0.02, 0.2))
    settings.STEPFLOWS = {"HEARTBEAT": HEARTBEAT, "LEASE": LEASE, "MAX_ATTEMPTS": 20, "CACHE": "django_redis"}

    findings = Findings.of(perform(plan, tmp_path, PATIENCE))

    assert [figure for figure in figures(plan, findings, within=PATIENCE) if not figure.holds] == []


def notes(*lines: tuple[float, str, int, int]) -> list[Note]:
    return [Note(moment, kind, "run", place, group) for moment, kind, place, group in lines]


def test_a_step_that_was_stored_and_starts_again_is_found():
    """Whether it is known from the body or from the cache."""
    passed = Findings.of(notes((1, "start", 0, A), (2, "end", 0, A), (3, "passed", 0, A), (4, "start", 0, B)))
    cached = Findings.of(notes((1, "start", 0, A), (2, "cached", 0, 0), (3, "killed", -1, A), (4, "start", 0, B)))

    assert [note.time for note in passed.again] == [4]
    assert [note.time for note in cached.again] == [4]
    assert cached.interrupted == {A: set()}


def test_a_step_that_was_not_stored_at_the_kill_is_interrupted():
    """It may start again, even if its function had come to its end."""
    findings = Findings.of(notes((1, "start", 0, A), (2, "end", 0, A), (3, "killed", -1, A), (4, "start", 0, B)))

    assert findings.interrupted == {A: {("run", 0)}}
    assert (findings.again, findings.together, findings.unstored) == ([], [], 1)


def test_a_step_that_two_living_processes_are_at_is_found():
    """Nobody was killed, and it starts a second time."""
    findings = Findings.of(notes((1, "start", 0, A), (2, "start", 0, B)))

    assert [note.time for note in findings.together] == [2]


def test_an_orphan_waits_until_its_next_step():
    """Executed or from the cache; a message that is lost meanwhile is told."""
    findings = Findings.of(notes((1, "orphan", -1, 0), (4, "lost", -1, 0), (6, "begun", -1, B), (7, "passed", 0, B)))

    (waiting,) = findings.waitings
    assert (waiting.kind, waiting.seconds, waiting.seconds_since_last) == ("orphan", 6, 3)
