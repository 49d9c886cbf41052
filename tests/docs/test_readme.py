"""What the README shows, as it stands."""

from __future__ import annotations

import re
import subprocess
import tomllib
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import RequestFactory

from stepflows import Err, Ok, create_workflow
from stepflows.checks import check_caches
from stepflows.models import Run
from stepflows.testing import runs_in_place
from tests.calls import Calls
from tests.docs.claims import runs
from tests.docs.console import manage
from tests.docs.documents import ROOT, page
from tests.docs.walk import typed

README = "README.md"
WORKFLOW = [
    block
    for block in page(README).blocks()
    if "A workflow, called from a view" in block.headings and block.file == "shop/workflows.py"
]


class Bank:
    """Declines order 8, and is away for order 9 at first."""

    def __init__(self) -> None:
        self.away = True

    def __call__(self, order_id: int) -> Any:
        if order_id == 9 and self.away:
            self.away = False
            raise ConnectionError
        return Err("CARD_DECLINED") if order_id == 8 else "receipt"


@pytest.fixture
def charge(stage, settings):
    """The bank of the shop, which counts; its workflow is registered once the example has run."""
    settings.STEPFLOWS = {"CACHE": "locmem"}
    charge = Calls(Bank())
    stage.module("shop.payments", charge=lambda order_id, idempotency_key: charge(order_id))
    stage.module("shop.receipts", send=lambda order_id, receipt: None)
    return charge


@runs(README, "A dozen lines")
def test_the_first_example_prints_what_it_says(stage, blocks, capsys):
    """The dozen lines, as they stand."""
    stage.play(blocks)
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["Ok(value='receipt for order 7')"] * 2 + ["['order:7:charge', 'user:7']"]


@runs(README, "Try it")
def test_make_has_these_targets(blocks):
    """What they do, others test."""
    [block] = blocks
    block.ran = True
    typed_ones = [command.partition("#")[0].split() for command, _ in typed(block)]
    told_of = re.findall(r"`(make) (\w+)`", page(README).prose)
    for make, target in [*typed_ones, *told_of]:
        done = subprocess.run([make, "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@runs(README, "Installing", language="console")
def test_it_is_installed_by_its_name(blocks):
    """The name of the distribution."""
    [block] = blocks
    block.ran = True
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [command for command, _ in typed(block)] == [f"pip install {project['name']}"]


@runs(README, "Installing", language="python")
def test_nothing_is_said_of_the_settings(stage, blocks, settings):
    """They are right as they stand."""
    names = stage.play(blocks)
    assert names["INSTALLED_APPS"] == ["stepflows"]
    settings.CACHES = names["CACHES"]
    assert check_caches() == []


@runs(README, "A workflow, called from a view", containing="shop/")
def test_the_view_answers(stage, blocks, charge):
    """The same order twice is charged once, a declined card is asked for once, and after an outage it goes on."""
    pay = stage.play(blocks)["pay"]
    post = RequestFactory().post("/")
    assert [pay(post, order_id=7).content for _ in range(2)] == [b'{"receipt": "receipt"}'] * 2
    assert charge.count == 1
    assert [pay(post, order_id=8).status_code for _ in range(2)] == [402, 402]
    assert charge.count == 2
    assert [pay(post, order_id=9).status_code for _ in range(2)] == [503, 200]
    assert pay(RequestFactory().get("/"), order_id=7).status_code == 405


@runs(README, "A workflow, called from a view", containing="step.map")
def test_the_report_is_made_of_the_items(stage, blocks):
    """One entry for each, and one for all."""
    deps = SimpleNamespace(total=str.upper, render=",".join)
    flow = create_workflow("report", deps, cache={})
    assert flow.run(stage.play(blocks)["report"], ["north", "south"]) == Ok("NORTH,SOUTH")
    assert set(flow.cache) == {"total:north", "total:south", "report:north,south"}


@pytest.mark.django_db(transaction=True)
@runs(README, "On Celery workers")
def test_a_run_is_sent_and_waited_for(stage, blocks, charge, no_broker):
    """To a worker that is this process; the bank declines the second order."""
    no_broker.conf.task_always_eager = True
    stage.play(WORKFLOW)
    assert stage.play(blocks)["run"].result == Ok("receipt")
    assert set(Run.objects.values_list("state", "queue")) == {("succeeded", ""), ("failed", "slow")}


@pytest.mark.django_db
@runs(README, "On the command line")
def test_the_commands_do_what_they_say(stage, blocks, charge):
    """One after the other."""
    stage.play(WORKFLOW)
    with runs_in_place() as queued:
        here, there, listed, cleared, errors = [printed for block in blocks for _, printed in manage(block)]
    assert here.splitlines()[-1] == "Ok: 'receipt'"
    assert there.strip() == str(queued[0].pk)
    assert len(listed.splitlines()) == 3
    assert cleared.startswith("Removed 1 cached step")
    assert errors.startswith("There is nothing to remove")
    assert charge.count == 2
