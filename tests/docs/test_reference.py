"""The reference, compared with the code: nothing is missing, nothing is made up."""

from __future__ import annotations

import asyncio
import inspect
import re
from argparse import ArgumentParser
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand

import stepflows.checks
import stepflows.errors
import stepflows.testing
from stepflows import Err, Event, Ok, Step, StepCache, conf, create_workflow, workflow
from stepflows.conf import Settings
from stepflows.dispatch import _OPTIONS as DISPATCH_OPTIONS
from stepflows.engine.events import EVENT_TYPES
from stepflows.models import CachedStep, Run
from stepflows.options import WorkflowOptions
from tests.docs.claims import runs
from tests.docs.console import manage
from tests.docs.documents import ROOT, page

REFERENCE = "docs/reference.md"
PAGE = page(REFERENCE)
METAS = (CachedStep._meta, Run._meta)
COMMANDS = sorted(
    file.stem for file in (ROOT / "stepflows/management/commands").glob("*.py") if file.stem != "__init__"
)


@pytest.fixture
def checkout(stage, settings):
    """The workflow of the examples, registered."""
    settings.STEPFLOWS = {"CACHE": "locmem"}

    @workflow("checkout")
    def checkout(step, deps, order_id):
        receipt = step("charge", lambda: "receipt", key=f"order:{order_id}:charge")
        step("mail", lambda: None, key=f"order:{order_id}:mail")
        return receipt

    stage.module("shop.workflows", checkout=checkout)
    return checkout


# What can be played.


@runs(REFERENCE, "Workflows", containing="create_workflow(")
def test_the_options_of_a_workflow_are_accepted(stage, blocks):
    """All of them at once."""
    stage.play(blocks, deps={})
    assert set(re.findall(r"^    (\w+)=", blocks[0].text, re.MULTILINE)) == set(WorkflowOptions.__annotations__)


@runs(REFERENCE, "Workflows", containing="prefetch=")
def test_keys_are_read_ahead(stage, blocks, checkout):
    """By their names, or by a prefix."""
    stage.play(blocks)
    assert len(checkout.cache) == 2


@runs(REFERENCE, "Steps")
def test_every_option_of_a_step_has_an_example_that_runs(stage, blocks):
    """And no option is left out."""
    names = stage.play(blocks)
    deps = SimpleNamespace(
        **dict.fromkeys(["fetch", "rate", "guess", "call", "post", "ups"], lambda: 1), price=lambda item: 10 * item
    )
    flow = create_workflow("checkout", deps, cache={})
    assert flow.run(names["body"]) == Ok([10, 20, 30])
    assert {"user:1", "quotes:1", "prices", "price:1"} <= set(flow.cache)

    async def aslow():
        return 5

    assert asyncio.run(create_workflow("checkout", {"aslow": aslow}, cache={}).arun(names["abody"])) == Ok(5)
    text = "".join(block.text for block in blocks)
    assert [option for option in _step_options() if f"{option}=" not in text] == []


@runs(REFERENCE, "Results", containing="match ")
def test_results_are_taken_apart(stage, blocks, checkout, capsys):
    """The value is printed; a stored failure tells where it was."""
    stage.play(blocks, checkout=checkout)
    assert capsys.readouterr().out == "receipt\n"
    checkout.cache.set("order:7:charge", Err("NO"))
    with pytest.raises(stepflows.StepFailed):
        stage.play(blocks, checkout=checkout)
    assert capsys.readouterr().out == "charge order:7:charge True\n"


@pytest.mark.parametrize("error", ["CARD_DECLINED", ConnectionError])
@runs(REFERENCE, "Results", containing="except StepFailed")
def test_a_body_catches_both_kinds_of_failure(stage, blocks, error):
    """What was returned, and what was raised."""

    def charge(order_id):
        if error is ConnectionError:
            raise ConnectionError
        return Err(error)

    body = stage.play(blocks)["body"]
    result = create_workflow("checkout", {"charge": charge}, cache={}).run(body, order_id=7)
    assert result == Ok("later" if error is ConnectionError else "declined: CARD_DECLINED")


@pytest.mark.django_db(transaction=True)
@runs(REFERENCE, "Runs")
def test_a_run_can_be_asked_and_told_what_the_page_says(stage, blocks, checkout, no_broker):
    """On a worker that is this process; the last of it sends the finished run once more."""
    no_broker.conf.task_always_eager = True
    run = stage.play(blocks, checkout=checkout)["run"]
    run.refresh_from_db()
    assert (run.state, len(run.history)) == ("succeeded", 1)
    assert [step["outcome"] for step in run.steps] == ["cached", "executed"]
    also = re.findall(r"`(\w+)`", PAGE.section("Runs").rpartition("Also: ")[2].partition(". The arguments")[0])
    assert [name for name in also if not hasattr(run, name)] == []


@runs(REFERENCE, "Caches")
def test_the_step_cache_does_what_it_says(stage, blocks):
    """Line by line."""
    names = stage.play(blocks)
    expected = {"steps.has": True, "steps.keys": ["user:1"], "len(steps)": 1, "steps.delete": True}
    names["steps"].set("user:1", Ok({"id": 1}))
    lines = blocks[0].text.splitlines()
    for start, value in expected.items():
        [line] = [line for line in lines if line.startswith(start)]
        assert eval(line, names) == value
    twins = re.findall(r"`(?:await steps\.)?(a\w+)[`(]", PAGE.section("Caches").rpartition("Each has")[2])
    assert len(twins) == 7
    assert all(inspect.iscoroutinefunction(getattr(StepCache, name)) for name in twins)


@runs(REFERENCE, "Settings")
def test_the_settings_are_all_there_with_their_defaults(stage, blocks, settings):
    """A copy of the block changes nothing."""
    settings.STEPFLOWS = stage.play(blocks)["STEPFLOWS"]
    assert conf.settings() == Settings()
    assert set(settings.STEPFLOWS) == {field.name for field in fields(Settings)}


@runs(REFERENCE, "Commands")
def test_the_commands_run_as_they_are_typed(stage, blocks, checkout):
    """One after the other, after a run."""
    checkout.run(order_id=7)
    printed = [printed for block in blocks for _, printed in manage(block)]
    assert [len(text.splitlines()) for text in printed[:1]] == [3]
    assert printed[1].startswith("Removed 1 cached step")
    assert printed[2].startswith("Would remove 1 cached step")
    assert printed[3].startswith("There is nothing to remove")
    assert printed[4].strip() == '{"found": 1, "removed": 1, "missing": []}'
    assert printed[5].startswith("0 cached steps")


# What can be counted.


def _step_options() -> list[str]:
    """Those that every call takes, and those of ``step.map``."""
    [given] = get_args(get_type_hints(Step.__call__)["options"])
    own = [name for name, each in inspect.signature(Step.map).parameters.items() if each.kind is each.KEYWORD_ONLY]
    return [*own, *given.__annotations__]


def test_every_option_is_described():
    """Of workflows, of steps, and of sending a run."""
    tables = PAGE.section("Workflows").partition("| call |")
    assert re.findall(r"^\| `(\w+)` \|", tables[0], re.MULTILINE) == list(WorkflowOptions.__annotations__)
    [row] = [row for row in PAGE.section("Workflows").splitlines() if row.startswith("| `flow.apply_async(")]
    assert set(re.findall(r"`(\w+)`", row.split("|")[2])) == set(DISPATCH_OPTIONS)
    options = re.findall(r"^\| `(\w+)` \|", PAGE.section("Steps"), re.MULTILINE)
    assert sorted(options) == sorted(_step_options())


def test_every_event_is_described():
    """Types and fields."""
    assert sorted(PAGE.listed("Events")) == sorted([*EVENT_TYPES, *(field.name for field in fields(Event))])


def test_every_error_is_described():
    """And what else each is."""
    classes = {name: getattr(stepflows, name) for name in stepflows.errors.__all__ if name[0].isupper()}
    assert set(PAGE.listed("Errors")) == set(classes) - {"StepflowsError"}
    for row in PAGE.section("Errors").splitlines():
        if found := re.match(r"\| `(\w+)` \|.*also a `(\w+)`", row):
            assert found[2] in [base.__name__ for base in classes[found[1]].__mro__]


def test_every_public_name_is_described():
    """In the list of them, or among the errors."""
    named = {*PAGE.listed("Public names"), *PAGE.listed("Errors")}
    assert named == set(stepflows.__all__)


def test_every_helper_for_tests_is_described():
    """All of ``stepflows.testing``, with the arguments that it takes."""
    cells = PAGE.listed("Testing")
    assert {re.match(r"\w+", cell)[0] for cell in cells} == set(stepflows.testing.__all__)
    [call] = [cell for cell in cells if cell.startswith("assert_steps")]
    given = re.findall(r"\w+", call)[1:]
    assert given == list(inspect.signature(stepflows.testing.assert_steps).parameters)


def _flags(command: BaseCommand) -> set[str]:
    """Those that are not of every command."""
    parser = ArgumentParser(add_help=False)
    command.add_arguments(parser)
    return {flag for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_a_command_is_described(name):
    """In the table below its name."""
    text = re.search(rf"^`{name}[ `].*?(?=^`\w+[ `]|\Z)", PAGE.section("Commands"), re.DOTALL | re.MULTILINE)
    assert text, f"{name} is not described"
    rows = re.findall(r"^\| (`--[^|]+) \|", text[0], re.MULTILINE)
    described = {flag for row in rows for flag in re.findall(r"--[\w-]+", row)}
    assert described == _flags(load_command_class("stepflows", name))


def test_every_check_is_described():
    """Those that ``--deploy`` alone makes have a star."""
    source = Path(stepflows.checks.__file__)
    texts = [file.read_text() for file in source.parent.glob("*.py")]
    used = {found for text in texts for found in re.findall(r'id="stepflows\.(\w+)"', text)}
    rows = dict(re.findall(r"^\| `(\w+)`( \*)? \|", PAGE.section("Checks"), re.MULTILINE))
    assert set(rows) == used
    deployed = set(re.findall(r"``stepflows\.(\w+)`` \*", source.read_text()))
    assert {name for name, star in rows.items() if star} == deployed


def test_every_permission_is_described():
    """Of both models."""
    names = [
        *(f"{action}_{meta.model_name}" for meta in METAS for action in meta.default_permissions),
        *(name for meta in METAS for name, _ in meta.permissions),
    ]
    assert sorted(re.findall(r"^\| `(\w+)` \|", PAGE.section("Permissions"), re.MULTILINE)) == sorted(names)
