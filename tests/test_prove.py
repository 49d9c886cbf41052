"""``make prove`` in small, and that it notices what is lost."""

from __future__ import annotations

import argparse
import os

import pytest

from stepflows import StepCache
from tests.flows import notes
from tests.flows.kills import Note
from tests.kills.verdict import Figure
from tests.prove import fuzzing, interleaving, killing, program
from tests.prove.book import Book, Span
from tests.prove.deeds import Ledger
from tests.prove.fuzzing import Property, fuzzers
from tests.prove.interleaving import schedules
from tests.prove.lane import Lane
from tests.prove.outages import cache_outages
from tests.prove.queues import broker_outages
from tests.prove.report import details, lost, printed
from tests.prove.samples import Samples, asked_of
from tests.prove.soak import soak
from tests.prove.trial import Row, Terms

pytestmark = pytest.mark.once


@pytest.fixture
def terms(valkey, tmp_path):
    """Call it with seconds. Nobody has noted anything yet."""
    notes.forget()
    return lambda seconds: Terms(seconds, seed=4, folder=tmp_path)


def losses(rows):
    """What was lost, with its details."""
    return [row for row in rows if row.lost]


# The trials, each for some seconds. The kill test in small is in test_kills.py.


def test_outages_of_the_cache_lose_nothing(terms):
    """Two or three troubles, while threads and tasks ask for steps."""
    rows = list(cache_outages(terms(4)))
    assert losses(rows) == []
    assert rows


@pytest.mark.worker
@pytest.mark.django_db(transaction=True)
def test_outages_of_the_broker_lose_nothing(terms):
    """One trouble, while runs are sent."""
    *troubles, deeds = broker_outages(terms(0))
    assert losses([*troubles, deeds]) == []
    assert [row.tried for row in troubles] == ["1 times, 8 runs, 64 steps"]
    assert deeds.tried == "64 steps"


def test_interleavings_break_no_rule(terms):
    """Every order of the first case, and some of each cache."""
    rows = list(schedules(terms(1)))
    assert losses(rows) == []
    assert len(rows) == 1 + 5


def test_fuzzers_find_nothing(terms, monkeypatch):
    """Some examples of each property."""
    monkeypatch.setattr(fuzzing, "_BATCH", 25)
    rows = list(fuzzers(terms(0)))
    assert losses(rows) == []
    assert len(rows) == len(fuzzing.PROPERTIES)


@pytest.mark.worker
@pytest.mark.django_db(transaction=True)
def test_a_soak_of_seconds_loses_nothing(terms):
    """Processes and workers, one of which is killed; every result is compared, and nothing is left."""
    rows = {row.what: row for row in soak(terms(5))}
    assert losses(rows.values()) == []
    assert int(rows["steps done once"].tried.split()[0].replace(",", "")) > 0
    assert {"server, memory", "members, index", "runs, rows", "threads, files", "loop, threads", "worker, memory"} <= {
        *rows
    }


# They have teeth.


def test_a_cache_that_stores_nothing_is_noticed(terms, monkeypatch):
    """Its steps run again, though everybody was told that they were stored."""

    def kept(self, entries):
        self.release([entry.lease for entry in entries if entry.lease])
        return [entry.result for entry in entries]

    async def akept(self, entries):
        await self.arelease([entry.lease for entry in entries if entry.lease])
        return [entry.result for entry in entries]

    monkeypatch.setattr(StepCache, "store", kept)
    monkeypatch.setattr(StepCache, "astore", akept)

    found = losses(cache_outages(terms(0)))

    assert any("steps ran once more in the calm" in told for row in found for told in row.details)


def test_an_engine_that_breaks_a_rule_is_noticed(terms, monkeypatch):
    """Whatever an order shows is part of the row."""
    monkeypatch.setattr(interleaving, "CASES", [interleaving.Case(interleaving.some(2), broken, {})])
    monkeypatch.setattr(interleaving, "KINDS", {"values": (interleaving.some(2), broken)})

    found = losses(schedules(terms(0)))

    assert len(found) == 1 + 5
    assert all("schedule: " in row.details[0] for row in found)


def broken(world):
    world.require(all(caller.runs["k"] for caller in world.callers.values()), "All want to run it.")


def test_a_property_that_does_not_hold_is_noticed():
    """The row tells the example and the seed."""

    def small(number):
        assert number < 100

    row = fuzzing.tried(Property("small numbers", small, [fuzzing.st.integers(0, 1000)]), 5, seed=7)

    assert row.lost == 1
    assert "seed 7" in row.details[0]
    assert "100" in row.details[0]


def test_a_figure_of_the_kill_test_that_does_not_hold_is_a_loss():
    """The others are none."""
    assert killing.row_of(Figure("again", "1", "0", holds=False)).lost == 1
    assert killing.row_of(Figure("again", "0", "0")).lost == 0


def test_a_trial_that_breaks_off_is_a_loss(terms, monkeypatch):
    """The others go on, so it is a row like any."""
    monkeypatch.setattr(program, "emptied", lambda: None)

    def breaks(terms):
        yield Row("first", "once")
        raise ValueError("wrong")

    first, second = program.tried(breaks, terms(0))

    assert (first.lost, second.lost) == (0, 1)
    assert "ValueError: wrong" in second.details[0]


# What a caller's book says of what was executed.


def test_a_stored_result_that_is_executed_again_is_wrong():
    """Unless the cache has lost it meanwhile."""
    book = Book()
    first = book.begin("k", book.moment())
    book.compare("k", ["k", first.serial], stored=True)
    lapse = Span(book.moment())
    lapse.ended = book.moment()
    book.begin("k", book.moment())

    assert [*book.repeated()] == ["k was executed again although its result was stored."]
    book.lapses.append(lapse)
    assert [*book.repeated()] == []


def test_two_executions_at_a_time_are_wrong():
    """Unless the cache was in trouble."""
    book = Book()
    asked = book.moment(), book.moment()
    for each in asked:
        book.begin("k", each)

    assert [*book.repeated()] == ["k was executed twice although the cache was well."]
    book.troubles.append(Span(asked[1]))
    assert [*book.repeated()] == []


def test_a_result_of_another_key_is_wrong():
    """And so is one that nobody has made."""
    book = Book()
    book.begin("k", book.moment())
    book.compare("k", ["k", 0], stored=True)
    assert book.wrong == []
    book.compare("l", ["k", 0], stored=True)
    book.compare("k", ["k", 1], stored=True)
    book.compare("k", None, stored=True)
    assert len(book.wrong) == 3


def test_a_refusal_of_a_cache_that_is_well_is_wrong():
    """In trouble it is right."""
    book = Book()
    since = book.moment()
    book.refuse("a run", since)
    assert len(book.wrong) == 1
    book.troubles.append(Span(since))
    book.refuse("a run", since)
    assert len(book.wrong) == 1


# The ledger of the soak.


def ledger(*kinds):
    return Ledger.of(Note(number, kind, "order", 0, 1) for number, kind in enumerate(kinds))


def test_a_deed_that_is_done_again_is_wrong():
    """After its result was stored, or while somebody else is at it."""
    assert ledger("start", "passed").wrong == []
    assert ledger("start", "passed", "start").wrong == ["order 0 was done again although its result was stored."]
    assert ledger("start", "start").wrong == ["order 0 was done twice at a time."]


@pytest.mark.parametrize("kinds", [("start", "passed", "void", "start"), ("start", "dropped", "start")])
def test_a_deed_that_is_void_or_was_dropped_may_be_done_again(kinds):
    """Its result was removed, or there never was one."""
    assert ledger(*kinds, "passed").wrong == []


def test_a_lane_tells_what_is_not_as_expected():
    """What it was doing, what came, and what should have."""
    lane = Lane("lane", "1", 1)
    lane.expect("run", 1, 1)
    lane.expect("run", 1, 2)
    assert (lane.compared, lane.wrong) == (2, ["lane, run: 1, and not 2."])


# What is bounded.


def grown(name, values):
    samples = Samples()
    for value in values:
        samples.add([(name, value)])
    return [row.lost for row in samples.rows()]


def test_growth_is_noticed():
    """One file descriptor in ten samples, 50 kB of memory in each; not what comes and goes, nor the beginning."""
    assert grown("loop, files", [20 + number / 10 for number in range(200)]) == [1]
    assert grown("loop, memory", [80 + number / 20 for number in range(600)]) == [1]
    assert grown("runs, rows", range(300)) == [1]
    assert grown("loop, files", [20 + number % 5 for number in range(200)]) == [0]
    assert grown("loop, memory", [min(number, 50) for number in range(400)]) == [0]


def test_too_few_samples_are_not_judged():
    """A warm-up is no leak."""
    assert grown("loop, files", range(60)) == [0]


def test_a_process_is_measured_while_it_lives():
    """A descriptor more is counted."""
    measured = asked_of("self", [os.getpid()])
    before = dict(measured())
    with open(os.devnull, "rb"):  # noqa: PTH123 - any file
        assert dict(measured())["self, files"] == before["self, files"] + 1
    assert before["self, memory"] > 1


# The program.


def test_the_time_of_each_trial():
    """As usual, by its share of all, or by name."""
    usual = {name: minutes for name, (_, minutes) in program.TRIALS.items()}
    assert program.planned([], None) == usual
    assert sum(program.planned([], 6).values()) == pytest.approx(6)
    assert program.planned(["soak=10", "kills"], None) == {"soak": 10, "kills": usual["kills"]}
    assert program.planned(["soak=10", "kills"], 3) == {"soak": 10, "kills": 3}


@pytest.mark.parametrize("text", ["rain", "soak=long"])
def test_what_is_no_trial_is_refused(text):
    """With what would be one."""
    with pytest.raises(argparse.ArgumentTypeError, match=r"trials?|number"):
        program._trial(text)


def test_the_plan_of_the_kill_test_follows_from_its_time(tmp_path):
    """All of it in its usual time, less in less."""
    plan = killing.planned(Terms(60 * program.TRIALS["kills"][1], 1, tmp_path))
    assert (plan.runs, plan.kills, plan.flushes) == (200, 50, 2)
    plan = killing.planned(Terms(48, 1, tmp_path))
    assert (plan.runs, plan.kills, plan.flushes) == (20, 5, 1)


def test_the_table_tells_what_was_lost():
    """And some details of it, but not of what was not."""
    rows = {"soak": [Row("fine", "9 times"), Row("steps", "3 times", 2, "seen", tuple("abcdefg"))]}
    assert lost(rows) == 2
    assert [*details(rows)] == ["\nsoak, steps:", *"abcde", "... and 2 more"]
    assert [*printed(rows, "title").columns[3].cells] == ["[green]0[/]", "[red]2[/]"]
