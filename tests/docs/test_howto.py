"""The how-to guides, each played as it stands."""

from __future__ import annotations

import asyncio
import unittest
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from stepflows import Err, Ok, StepFailed, create_workflow, workflow
from stepflows.checks import check_caches, check_settings
from stepflows.models import Run
from stepflows.signals import step_event
from stepflows.testing import CacheConformance, runs_in_place
from tests.calls import Calls
from tests.docs.claims import runs
from tests.docs.console import manage
from tests.docs.documents import page

HOWTO = "docs/howto.md"


@pytest.fixture(autouse=True)
def _cache(settings):
    settings.STEPFLOWS = {"CACHE": "locmem"}


class Bank:
    """A payment service that knows tokens: it answers what it is told to, and notes what it is asked."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.tokens: list[str] = []

    def __call__(self, url: str, *, json: Any, headers: Any, timeout: float) -> httpx.Response:
        self.tokens.append(headers["Idempotency-Key"])
        status = self.answers.pop(0)
        if isinstance(status, Exception):
            raise status
        return httpx.Response(status, json={"id": "ch_1"}, request=httpx.Request("POST", url))


@runs(HOWTO, "Charge a card once")
def test_a_payment_is_tried_again_with_the_same_token(stage, blocks, monkeypatch):
    """An outage is not stored, a declined card is, and so is a charge."""
    bank = Bank()
    monkeypatch.setattr(httpx, "post", bank)
    payment = stage.play(blocks)["payment"].using(cache={})

    bank.answers = [httpx.ConnectError("down"), 500]
    assert isinstance(payment.run(7, 100).error, httpx.HTTPStatusError)
    bank.answers = [200]
    assert [payment.run(7, 100) for _ in range(2)] == [Ok("ch_1")] * 2
    assert len(bank.tokens) == 3
    assert len(set(bank.tokens)) == 1

    payment.cache.clear()
    bank.answers = [402]
    assert [payment.run(7, 100) for _ in range(2)] == [Err("CARD_DECLINED")] * 2
    assert len(set(bank.tokens)) == 1


@runs(HOWTO, "Cache calls of an API or a language model")
def test_only_new_chapters_are_sent(stage, blocks):
    """Each prompt once, whatever else is asked for beside it."""
    asked = []

    async def complete(model, prompt):
        asked.append(prompt)
        return prompt.upper()

    stage.module("texts.models", complete=complete)
    names = stage.play(blocks)
    summary = names["summary"].using(cache={})
    asyncio.run(summary.arun("small", ["one"]))
    assert asyncio.run(summary.arun(model="small", chapters=["one", "two"])) == Ok(["SUMMARISE: ONE", "SUMMARISE: TWO"])
    assert asked == ["Summarise: one", "Summarise: two"]
    assert names["prompt_key"]("small", "Summarise: one") in summary.cache


@pytest.mark.django_db
@runs(HOWTO, "Import every night, and resume")
def test_an_import_goes_on_where_it_broke_off(stage, blocks):
    """Two starts on one day are one run; what was fetched is not fetched again."""
    fetched, saved = [], Calls(len)

    def fetch(isbn):
        fetched.append(isbn)
        if isbn == "3" and fetched.count("3") <= 3:
            raise ConnectionError("the supplier is away")
        return {"isbn": isbn}

    stage.module("catalogue.supplier", list_changed=lambda day: ["1", "2", "3"], fetch=fetch)
    stage.module("catalogue.books", save_all=saved)
    *code, console = blocks
    names = stage.play(code)
    with runs_in_place() as queued:
        names["start_nightly_import"]()
        names["start_nightly_import"]()
    assert [type(run.result.error) for run in queued] == [ConnectionError]
    assert Run.objects.get().result.step.label == "fetch"
    assert saved.count == 0
    with runs_in_place():
        assert queued[0].retry()
    assert Run.objects.get().result == Ok(3)
    assert sorted(fetched) == ["1", "2", "3", "3", "3", "3"]

    [(_, printed)] = manage(console)
    assert printed.endswith("Ok: 3\n")


@pytest.fixture
def checkout(stage):
    """The workflow of the section on testing, which counts its charges."""
    charge = Calls("receipt")

    @workflow("checkout", deps={"payments": charge, "mail": lambda *_: None})
    def checkout(step, deps, order_id):
        receipt = step("charge", lambda: deps.payments(order_id), key=f"order:{order_id}:charge")
        step("mail", lambda: deps.mail(order_id, receipt), key=f"order:{order_id}:mail")
        return receipt

    stage.module("shop.workflows", checkout=checkout)
    return charge


@runs(HOWTO, "Test your workflows", containing="def test_a_declined_card")
def test_a_workflow_is_tested_with_fakes(stage, blocks, checkout):
    """The first example."""
    stage.play(blocks)["test_a_declined_card"]()
    assert checkout.count == 0


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["test_on_a_worker", "test_after_a_crash"])
@runs(HOWTO, "Test your workflows", containing="class CheckoutTests")
def test_the_test_case_passes(stage, blocks, checkout, name):
    """The second one; each of its tests charges once."""
    case = stage.play(blocks)["CheckoutTests"](name)
    result = unittest.TestResult()
    case.run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])
    assert checkout.count == 1


@runs(HOWTO, "Test your workflows", containing="# settings.py")
def test_the_cache_of_tests_is_in_memory(stage, blocks):
    """Because this is a test."""
    assert stage.play(blocks)["CACHES"]["default"]["BACKEND"].endswith("LocMemCache")


@runs(HOWTO, "Watch what happens")
def test_misses_are_counted(stage, blocks):
    """The first run misses, the second does not."""
    names = stage.play(blocks)
    flow = create_workflow("shop", cache={})
    for _ in range(2):
        flow.run(lambda step, deps: step("load", lambda: 1, key="user:1"))
    assert step_event.disconnect(names["count"])
    assert names["misses"] == {("shop", "load"): 1}


@runs(HOWTO, "Keep steps in a cache of your own")
def test_the_cache_of_ones_own_works_in_workflows(stage, blocks, valkey):
    """In sync bodies and async ones, one run after another."""
    flow = create_workflow("shop", cache=stage.play(blocks)["RedisMap"](valkey.url))
    work = Calls(Err("NO"))

    async def body(step, deps):
        return await step("a", work, key="user:1")

    for _ in range(2):
        assert flow.run(lambda step, deps: step("a", work, key="user:1")) == Err("NO")
        assert asyncio.run(flow.arun(body)) == Err("NO")
    assert work.count == 1
    assert valkey.client.keys() == [b"user:1"]


class TestRedisMap(CacheConformance):
    """The cache of one's own passes the suite that it is told to pass, on one loop after another."""

    @pytest.fixture(autouse=True)
    def _server(self, valkey):
        self.valkey = valkey

    def make_cache(self) -> Any:
        self.valkey.flush()
        [block] = [block for block in page(HOWTO).blocks() if "class RedisMap" in block.text]
        return block.run({})["RedisMap"](self.valkey.url)


@runs(HOWTO, "Move from `cache.get_or_set`")
def test_the_rate_is_fetched_once_before_and_after(stage, blocks):
    """By either function."""
    for block in blocks:
        fetch = Calls("1.08")
        rate = stage.play([block], fetch_rate=fetch)["rate"]
        assert [rate("EUR") for _ in range(2)] == ["1.08"] * 2
        assert fetch.count == 1


@runs(HOWTO, "Move from dogpile.cache")
def test_users_are_loaded_together(stage, blocks):
    """In the order asked; those that are there are not fetched."""
    fetch = Calls(lambda user_id: {"id": user_id})
    names = stage.play(blocks, fetch_user=fetch)
    names["flow"].run(names["load_users"], [2]).unwrap()
    assert names["flow"].run(names["load_users"], [1, 2, 3]).unwrap() == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert fetch.count == 3


@runs(HOWTO, "Move from DBOS")
def test_an_order_is_fulfilled(stage, blocks):
    """By two steps."""
    stage.module("shop.bank", charge=lambda order_id: "charged")
    stage.module("shop.warehouse", reserve=lambda order_id: None)
    flow = stage.play(blocks)["fulfil"].using(cache={})
    assert flow.run(7) == Ok("charged")
    assert set(flow.cache) == {"order:7:reserve", "order:7:charge"}


@runs(HOWTO, "Move from Prefect")
def test_a_report_is_made(stage, blocks):
    """Of its totals."""
    names = stage.play(blocks, total_of=len, render=sum)
    assert names["report"].run(["north", "east"]) == Ok(9)


@pytest.mark.django_db
@runs(HOWTO, "Deploy")
def test_the_settings_pass_the_checks_that_the_page_tells_of(stage, blocks, settings, monkeypatch, valkey):
    """On a server as it is after a fresh start."""
    for name in ("CACHE_URL", "STEPS_URL", "BROKER_URL"):
        monkeypatch.setenv(name, valkey.url)
    given, console = blocks
    names = stage.play([given])
    settings.CACHES, settings.STEPFLOWS = names["CACHES"], names["STEPFLOWS"]
    assert check_settings() == check_caches() == []
    assert names["CELERY_BROKER_TRANSPORT_OPTIONS"]["visibility_timeout"] > names["CELERY_TASK_TIME_LIMIT"]
    assert len(list(manage(console))) == 2


@runs(HOWTO, "Upgrade")
def test_another_version_has_steps_of_its_own(stage, blocks):
    """Those of the one before are out of sight."""
    prices = stage.play(blocks)["prices"].using(cache="locmem", deps=SimpleNamespace(price=lambda isbn: 12))
    prices.using(version=1, deps={"price": lambda isbn: 10}).run("1")
    assert prices.run("1") == Ok(12)


def test_what_the_pages_say_of_classes_holds():
    """``StepFailed`` stands for what was returned as ``Err``."""
    flow = create_workflow("shop", cache={}, cache_errors=StepFailed)
    flow.run(lambda step, deps: step("a", lambda: Err("NO"), key="returned"))
    flow.run(lambda step, deps: step("a", lambda: 1 / 0, key="raised"))
    assert set(flow.cache) == {"returned"}
