"""What the README says, typed as it stands."""

from __future__ import annotations

import asyncio
import re
import unittest
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stepflows import Err, Ok, Retry, StepCache, conf, create_workflow, workflow
from stepflows.conf import Settings
from stepflows.engine.requests import StepOptions
from stepflows.options import WorkflowOptions
from stepflows.registry import registry
from stepflows.testing import CacheConformance
from tests.calls import Calls

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block(containing: str) -> str:
    """The one block of Python that has this in it."""
    (found,) = [text for text in BLOCKS if containing in text]
    return found


def run_block(containing: str, **given: Any) -> dict[str, Any]:
    names = {"Ok": Ok, "Err": Err, "Retry": Retry, "timedelta": timedelta, "create_workflow": create_workflow, **given}
    exec(compile(block(containing), "README.md", "exec"), names)
    return names


def test_every_block_is_python():
    """Snippets with a top-level await included."""
    for text in BLOCKS:
        compile(text, "README.md", "exec", flags=0x2000)  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def test_the_first_example_runs_and_prints_what_it_says(capsys):
    """The dozen lines, as they stand."""
    run_block('deps = {\n    "fetch_user"')
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["Ok(value='receipt for order 7')"] * 2 + ["['order:7:charge', 'user:7']"]


@pytest.mark.parametrize("error", ["CARD_DECLINED", ConnectionError])
def test_a_body_catches_both_kinds_of_failure(error):
    """The example under Results."""

    def charge(order_id):
        if error is ConnectionError:
            raise ConnectionError
        return Err(error)

    names = run_block("except StepFailed as failed")
    result = create_workflow("checkout", {"charge": charge}, cache={}).run(names["body"], order_id=7)
    assert result == Ok("later" if error is ConnectionError else "declined: CARD_DECLINED")


def test_every_option_of_a_step_has_an_example_that_runs():
    """And no option is left out."""
    names = run_block("quotes:1")
    deps = SimpleNamespace(
        **dict.fromkeys(["fetch", "rate", "guess", "call", "post", "ups"], lambda: 1), price=lambda item: 10 * item
    )
    flow = create_workflow("checkout", deps, cache={})
    assert flow.run(names["body"]) == Ok([10, 20, 30])
    assert {"user:1", "quotes:1", "prices", "price:1"} <= set(flow.cache)

    async def aslow():
        return 5

    names = run_block("timeout=5")
    assert asyncio.run(create_workflow("checkout", {"aslow": aslow}, cache={}).arun(names["abody"])) == Ok(5)
    for option in [*StepOptions.__annotations__, *WorkflowOptions.__annotations__]:
        assert f"{option}=" in README


def test_the_options_of_a_workflow_are_accepted():
    """All of them at once."""
    run_block("on_cache_down=", deps={})


def test_the_step_cache_does_what_it_says():
    """Line by line."""
    names = run_block('namespace="checkout"')
    assert isinstance(names["steps"], StepCache)
    lines = block('namespace="checkout"').splitlines()
    expected = {"steps.has": True, "steps.keys": ["user:1"], "len(steps)": 1, "steps.delete": True}
    names["steps"].set("user:1", Ok({"id": 1}))
    for line in lines:
        for start, value in expected.items():
            if line.startswith(start):
                assert eval(line, names) == value


def test_the_settings_are_all_there_with_their_defaults(settings):
    """A copy of the block changes nothing."""
    names = run_block('"MAX_VALUE_BYTES"')
    settings.STEPFLOWS = names["STEPFLOWS"]
    assert conf.settings() == Settings()
    assert set(names["STEPFLOWS"]) == set(Settings.__dataclass_fields__)


class TestRedisMap(CacheConformance):
    """The cache of one's own passes the suite that it is told to pass, on one loop after another."""

    @pytest.fixture(autouse=True)
    def _server(self, valkey):
        self.valkey = valkey

    def make_cache(self) -> Any:
        self.valkey.flush()
        return run_block("class RedisMap")["RedisMap"](self.valkey.url)


def test_the_cache_of_ones_own_works_in_workflows(valkey):
    """In sync bodies and async ones, one run after another."""
    flow = create_workflow("shop", cache=run_block("class RedisMap")["RedisMap"](valkey.url))
    work = Calls(Err("NO"))

    async def body(step, deps):
        return await step("a", work, key="user:1")

    for _ in range(2):
        assert flow.run(lambda step, deps: step("a", work, key="user:1")) == Err("NO")
        assert asyncio.run(flow.arun(body)) == Err("NO")
    assert work.count == 1
    assert valkey.client.keys() == [b"user:1"]


@pytest.fixture
def checkout():
    """The workflow of the section on testing, which counts its charges."""
    charge = Calls("receipt")

    @workflow("checkout", deps={"payments": charge, "mail": lambda *_: None}, cache="locmem")
    def checkout(step, deps, order_id):
        receipt = step("charge", lambda: deps.payments(order_id), key=f"order:{order_id}:charge")
        step("mail", lambda: deps.mail(order_id, receipt), key=f"order:{order_id}:mail")
        return receipt

    yield checkout, charge
    registry.remove("checkout")


def test_a_workflow_is_tested_with_fakes(checkout):
    """The first example under Testing."""
    flow, charge = checkout
    run_block("def test_a_declined_card", checkout=flow)["test_a_declined_card"]()
    assert charge.count == 0


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["test_on_a_worker", "test_after_a_crash"])
def test_the_test_case_of_the_readme_passes(checkout, name):
    """The second one; each of its tests charges once."""
    flow, charge = checkout
    case = run_block("class CheckoutTests", checkout=flow)["CheckoutTests"](name)
    result = unittest.TestResult()
    case.run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])
    assert charge.count == 1
