"""``manage.py list_step_cache``."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django_redis import get_redis_connection
from pytest_django.fixtures import Settings

from stepflows import CacheUnavailable, Err
from stepflows.cachedsteps import Place
from stepflows.caches import backend_for
from stepflows.caches.names import Name, reserved_key, scope_of
from stepflows.registry import registry
from tests.conftest import prepared
from tests.entries import keys, put, put_many, spoil


@pytest.fixture(autouse=True)
def _no_workflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_workflows", {})


@pytest.fixture(params=["locmem", "django_redis"])
def steps(request: pytest.FixtureRequest, settings: Settings) -> str:
    """Two workflows, one of them in two versions, and an error."""
    alias = prepared(request.param, request)
    settings.STEPFLOWS = {"CACHE": alias}
    put_many(alias, "checkout", ["user:1", "order:1"])
    put(alias, "checkout", "user:2", Err(ValueError("no")))
    put(alias, "checkout", "user:1", version=2)
    put_many(alias, "signup", ["mail:1"])
    return alias


@pytest.fixture
def lost(request: pytest.FixtureRequest, settings: Settings) -> str:
    """Some steps, whose index is gone."""
    alias = prepared("django_redis", request)
    settings.STEPFLOWS = {"CACHE": alias}
    put_many(alias, "checkout", ["user:1", "k" * 200])
    get_redis_connection(alias).delete(caches[alias].make_key(reserved_key("index")))
    return alias


def listed(**options: Any) -> tuple[list[list[str]], str]:
    """The lines' columns, and what is said beside them."""
    output, beside = StringIO(), StringIO()
    call_command("list_step_cache", stdout=output, stderr=beside, no_color=True, **options)
    return [line.split("\t") for line in output.getvalue().splitlines()], beside.getvalue()


def test_a_line_for_each_step(steps: str):
    """Workflow and version, key, label, outcome and time, sorted by workflow and key."""
    lines, beside = listed()
    assert [line[:2] for line in lines] == [
        ["checkout", "order:1"],
        ["checkout", "user:1"],
        ["checkout", "user:2"],
        ["checkout@2", "user:1"],
        ["signup", "mail:1"],
    ]
    assert [line[3] for line in lines] == ["ok", "ok", "error", "ok", "ok"]
    assert all(line[4][:2] == "20" for line in lines)
    assert "5 cached steps" in beside


def test_only_a_workflow_or_a_prefix(steps: str):
    """As with clear_step_cache, so that one may look before one clears."""
    assert [line[1] for line in listed(workflow="checkout", prefix="user:")[0]] == ["user:1", "user:2", "user:1"]
    assert listed(workflow="none")[0] == []


def test_a_long_list_is_cut_and_says_so(steps: str):
    """100 lines unless told otherwise."""
    lines, beside = listed(limit=2)
    assert len(lines) == 2
    assert "--limit 0 shows all 5" in beside
    assert len(listed(limit=0)[0]) == 5
    with pytest.raises(CommandError, match="negative"):
        listed(limit=-1)


def test_a_damaged_entry_is_listed_as_such(steps: str):
    """The index knows its name, and nobody can tell more."""
    if steps == "django_redis":
        spoil(Place(steps, Name(scope_of("signup"), "mail:1")), b"odd")
        assert listed(workflow="signup")[0] == [["signup", "mail:1", "", "damaged", ""]]


def test_scripts_are_told_in_json(steps: str):
    """A line for each step, with everything that the list knows."""
    output = StringIO()
    call_command("list_step_cache", json=True, prefix="user:", stdout=output, stderr=StringIO())
    told = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [(each["workflow"], each["version"], each["key"], each["ok"]) for each in told] == [
        ("checkout", None, "user:1", True),
        ("checkout", None, "user:2", False),
        ("checkout", "2", "user:1", True),
    ]
    assert {each["cache"] for each in told} == {steps}
    assert all(each["size"] > 0 and each["stored"][:2] == "20" and each["expires"] is None for each in told)
    assert set(told[0]) == {
        *["cache", "workflow", "version", "key", "label", "ok", "size", "duration", "run", "stored", "expires"]
    }


def test_a_damaged_entry_is_told_in_json(steps: str):
    """By its name, and that it is damaged."""
    if steps == "django_redis":
        spoil(Place(steps, Name(scope_of("signup"), "mail:1")), b"odd")
        output = StringIO()
        call_command("list_step_cache", json=True, workflow="signup", stdout=output, stderr=StringIO())
        told = json.loads(output.getvalue())
        assert (told["key"], told["damaged"]) == ("mail:1", True)


def test_a_cache_that_is_away_is_a_plain_error(settings: Settings):
    """No traceback."""
    settings.CACHES = {
        "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"},
    }
    with pytest.raises(CommandError, match="failed to") as caught:
        listed()
    assert isinstance(caught.value.__cause__, CacheUnavailable)


def test_a_lost_index_is_told_of_and_rebuilt_when_asked(lost: str):
    """What an eviction took is found again by looking through everything."""
    lines, beside = listed()
    assert lines == []
    assert "--rebuild" in beside
    lines, beside = listed(rebuild=True)
    assert sorted(line[1] for line in lines) == ["k" * 200, "user:1"]
    assert "holds 2 cached steps" in beside
    assert "lost" not in listed()[1]
    assert backend_for(lost).is_complete()


def test_clear_rebuilds_a_lost_index_and_says_so(lost: str):
    """Else it would leave behind what is not listed."""
    output = StringIO()
    call_command("clear_step_cache", all=True, interactive=False, stdout=output, no_color=True)
    assert "index of the cache “django_redis” was lost" in output.getvalue()
    assert "Removed 2 cached steps" in output.getvalue()
    assert keys(lost, "checkout") == []
    assert get_redis_connection(lost).keys("*checkout*") == []
