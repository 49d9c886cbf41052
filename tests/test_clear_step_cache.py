"""``manage.py clear_step_cache``."""

from __future__ import annotations

import builtins
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import CommandError, call_command
from pytest_django.fixtures import Settings

from stepflows import CacheUnavailable, Err, StepCache, workflow
from stepflows.management import progress
from stepflows.registry import registry
from tests.conftest import prepared
from tests.entries import keys, put, put_many, spoil

Asked = list[str]


@pytest.fixture(autouse=True)
def _no_workflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_workflows", {})


@pytest.fixture(params=["locmem", "django_redis"])
def alias(request: pytest.FixtureRequest, settings: Settings) -> str:
    """The only cache with steps: one in this process, one on a server."""
    settings.STEPFLOWS = {"CACHE": request.param}
    return prepared(request.param, request)


@pytest.fixture
def steps(alias: str) -> str:
    """Two workflows, one of them in two versions, an error, and something else in the same cache."""
    put_many(alias, "checkout", ["user:1", "order:1"])
    put(alias, "checkout", "user:2", Err(ValueError("no")))
    put(alias, "checkout", "user:1", version=2)
    put_many(alias, "signup", ["user:1", "mail:1"])
    caches[alias].set("user:1", "somebody's")
    return alias


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], Asked]:
    """Answer the command's question so, and keep what it asked; without an answer there is nobody."""

    def answering(answer: str | None) -> Asked:
        questions: Asked = []

        def ask(question: str) -> str:
            questions.append(question)
            if answer is None:
                raise EOFError
            return answer

        monkeypatch.setattr(builtins, "input", ask)
        return questions

    return answering


def _clear(*args: str, **options: Any) -> str:
    """What the command says; it may ask nothing."""
    options.setdefault("interactive", False)
    output = StringIO()
    call_command("clear_step_cache", *args, stdout=output, no_color=True, **options)
    return output.getvalue().strip()


def _left(alias: str) -> dict[str, list[str]]:
    left = {"checkout": keys(alias, "checkout"), "2": keys(alias, "checkout", 2), "signup": keys(alias, "signup")}
    return {name: found for name, found in left.items() if found}


ALL = {"checkout": ["order:1", "user:1", "user:2"], "2": ["user:1"], "signup": ["mail:1", "user:1"]}
OF_SIGNUP = {"signup": ["mail:1", "user:1"]}
#: What is given: how many are removed, how it is told, and what is left.
WIDE: dict[str, tuple[list[str], str, dict[str, list[str]]]] = {
    "workflow": (["--workflow", "checkout"], "4 cached steps (workflow “checkout”, cache", OF_SIGNUP),
    "all of a workflow": (["--workflow", "checkout", "--all"], "4 cached steps (workflow “checkout”, cache", OF_SIGNUP),
    "prefix": (
        ["--prefix", "user:"],
        "4 cached steps (all workflows, keys that begin with “user:”, cache",
        {"checkout": ["order:1"], "signup": ["mail:1"]},
    ),
    "prefix of a workflow": (
        ["--workflow", "signup", "--prefix", "user:"],
        "1 cached step (workflow “signup”, keys that begin with “user:”, cache",
        {**ALL, "signup": ["mail:1"]},
    ),
    "errors": (
        ["--errors"],
        "1 cached error (all workflows, cache",
        {**ALL, "checkout": ["order:1", "user:1"]},
    ),
    "errors of a workflow": (["--errors", "--workflow", "signup"], "0 cached errors (workflow “signup”, cache", ALL),
    "all": (["--all"], "6 cached steps (all workflows, cache", {}),
}


@pytest.mark.parametrize("name", WIDE)
def test_it_removes_what_is_said_and_nothing_else(name: str, steps: str):
    """And says how many there were."""
    args, told, left = WIDE[name]
    verb = "There is nothing to remove: " if told.startswith("0") else "Removed "
    assert _clear(*args) == f"{verb}{told} “{steps}”)."
    assert _left(steps) == left
    assert caches[steps].get("user:1") == "somebody's"


@pytest.mark.parametrize("name", WIDE)
def test_a_dry_run_says_how_many_it_would_remove(name: str, steps: str, asked: Callable[..., Asked]):
    """Without asking, and without removing."""
    args, told, _ = WIDE[name]
    questions = asked("yes")
    verb = "There is nothing to remove: " if told.startswith("0") else "Would remove "
    assert _clear(*args, "--dry-run", interactive=True) == f"{verb}{told} “{steps}”)."
    assert (_left(steps), questions) == (ALL, [])


@pytest.mark.parametrize("name", [name for name in WIDE if not WIDE[name][1].startswith("0")])
def test_it_asks_before_a_wide_clear(name: str, steps: str, asked: Callable[..., Asked]):
    """Saying how much it is and what that means; only "yes" goes on."""
    args, told, left = WIDE[name]
    for answer in ("no", "", "y"):
        questions = asked(answer)
        with pytest.raises(CommandError, match="Cancelled; nothing was removed"):
            _clear(*args, interactive=True)
        assert f"This removes {told} “{steps}”). They run again" in questions[0]
        assert _left(steps) == ALL
    asked("Yes ")
    _clear(*args, interactive=True)
    assert _left(steps) == left


def test_where_nobody_can_be_asked_nothing_is_removed(steps: str, asked: Callable[..., Asked]):
    """A cron job needs --noinput, and is told so."""
    asked(None)
    with pytest.raises(CommandError, match="Give --noinput"):
        _clear("--all", interactive=True)
    assert _left(steps) == ALL


def test_nothing_to_remove_is_no_reason_to_ask(alias: str, asked: Callable[..., Asked]):
    """Nor an error."""
    questions = asked("yes")
    assert "There is nothing to remove: 0 cached steps" in _clear("--all", interactive=True)
    assert questions == []


# --- keys


def test_a_key_of_a_workflow_is_removed_in_all_its_versions(steps: str, asked: Callable[..., Asked]):
    """After asking, as it is more than one."""
    questions = asked("yes")
    told = _clear("user:1", "--workflow", "checkout", interactive=True)
    assert len(questions) == 1
    assert told == (
        f"Removed 2 cached steps (workflow “checkout”, cache “{steps}”, key “user:1”; "
        f"workflow “checkout”, cache “{steps}”, version “2”, key “user:1”)."
    )
    assert _left(steps) == {"checkout": ["order:1", "user:2"], **OF_SIGNUP}


def test_a_key_that_one_workflow_has_is_removed_without_asking(steps: str, asked: Callable[..., Asked]):
    """It was named, after all."""
    questions = asked("no")
    assert _clear("mail:1", interactive=True) == (
        f"Removed 1 cached step (workflow “signup”, cache “{steps}”, key “mail:1”)."
    )
    assert questions == []
    assert _left(steps) == {**ALL, "signup": ["user:1"]}


def test_a_key_that_several_workflows_have_is_asked_about(steps: str, asked: Callable[..., Asked]):
    """Keys are scoped by workflow, so it may not be what was meant."""
    questions = asked("no")
    with pytest.raises(CommandError, match="Cancelled"):
        _clear("user:1", interactive=True)
    assert "This removes 3 cached steps" in questions[0]
    assert "workflow “signup”" in questions[0]
    asked("yes")
    _clear("user:1", interactive=True)
    assert _left(steps) == {"checkout": ["order:1", "user:2"], "signup": ["mail:1"]}


def test_several_keys_are_removed_at_once(steps: str, asked: Callable[..., Asked]):
    """What is not there is said, and is no error."""
    questions = asked("no")
    told = _clear("order:1", "nobody", "mail:1", "order:1", interactive=True)
    assert questions == []
    assert f"No cached step has the key “nobody” (all workflows, cache “{steps}”)." in told
    assert "Removed 2 cached steps" in told
    assert "There is nothing to remove: 0 cached steps" in _clear("nobody")


def test_many_keys_are_not_all_listed(alias: str):
    """The line stays a line."""
    names = [f"user:{number}" for number in range(6)]
    put_many(alias, "checkout", names)
    assert _clear(*names) == f"Removed 6 cached steps (all workflows, cache “{alias}”)."


def test_keys_can_be_removed_only_if_they_are_errors(steps: str):
    """Others stay."""
    assert "Removed 1 cached error" in _clear("user:2", "order:1", "--errors")
    assert _left(steps)["checkout"] == ["order:1", "user:1"]


@pytest.mark.parametrize("key", ["*", "[a]", "a\\b", "ключ", "鍵" * 200, "a%2Ab", "'", "a@1"])
def test_odd_keys_mean_themselves(key: str, alias: str):
    """No pattern, and nothing that a shell could not give."""
    put(alias, "checkout", key)
    put(alias, "checkout", "other")
    assert "Removed 1 cached step" in _clear(key)
    assert keys(alias, "checkout") == ["other"]


def test_a_damaged_entry_is_removed_by_its_key(alias: str):
    """It is no error and no success."""
    place = put(alias, "checkout", "user:1")
    spoil(place, b"rubbish")
    assert "There is nothing to remove" in _clear("user:1", "--workflow", "checkout", "--errors")
    assert "Removed 1 cached step" in _clear("user:1", "--workflow", "checkout")


# --- which caches


def test_without_an_alias_all_that_workflows_use_are_cleared(alias: str):
    """And with one, that one."""
    other = "file" if alias == "locmem" else "locmem"
    caches[other].clear()
    workflow("elsewhere", cache=other)(lambda step, deps: None)
    for cache in (alias, other):
        put_many(cache, "checkout", ["a", "b"])
    assert "2 cached steps" in _clear("--all", "--cache", other, "--dry-run")
    assert f"4 cached steps (all workflows, cache “{alias}”, cache “{other}”)" in _clear("--all", "--dry-run")
    _clear("a", "--cache", alias)
    assert (keys(alias, "checkout"), keys(other, "checkout")) == (["b"], ["a", "b"])
    _clear("b")
    assert (keys(alias, "checkout"), keys(other, "checkout")) == ([], ["a"])
    _clear("--workflow", "checkout")
    assert keys(other, "checkout") == []


def test_an_alias_that_no_workflow_uses_can_be_named(steps: str, settings: Settings):
    """Workflows without a body may use any."""
    settings.STEPFLOWS = {"CACHE": "file"}
    caches["file"].clear()
    assert "0 cached steps" in _clear("--all")
    assert "Removed 6 cached steps" in _clear("--all", "--cache", steps)


def test_an_unknown_alias_is_an_error(alias: str):
    """Naming those there are."""
    with pytest.raises(CommandError, match="There is no cache alias 'nowhere'"):
        _clear("--all", "--cache", "nowhere")


def test_a_cache_that_is_down_is_an_error(settings: Settings):
    """In plain words."""
    settings.CACHES = {
        **settings.CACHES,
        "down": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"},
    }
    for args in (["--all"], ["user:1"], ["--workflow", "checkout"], ["--errors"]):
        with pytest.raises(CommandError, match="cache alias 'down' failed to"):
            _clear(*args, "--cache", "down")


def test_a_cache_that_fails_half_way_says_what_was_removed(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    """So that one knows what runs again."""
    settings.STEPFLOWS = {"CACHE": "locmem"}
    put_many("locmem", "checkout", [f"user:{number:04}" for number in range(1001)])
    backend = type(StepCache("locmem").backend)
    remove = backend.remove

    def fail_at_last(self: Any, names: Any) -> int:
        if len(names) == 1:
            raise CacheUnavailable("Gone away.")
        return remove(self, names)

    monkeypatch.setattr(backend, "remove", fail_at_last)
    with pytest.raises(CommandError, match=r"Gone away\. Removed before that: 1,000 cached steps"):
        _clear("--all")


@pytest.fixture
def opaque(settings: Settings) -> str:
    """A cache that cannot say what it holds."""
    settings.CACHES = {
        **settings.CACHES,
        "opaque": {"BACKEND": "tests.admin.opaque.OpaqueCache", "LOCATION": "opaque"},
    }
    settings.STEPFLOWS = {"CACHE": "opaque"}
    caches["opaque"].clear()
    return "opaque"


def test_a_cache_that_cannot_list_says_so_for_wide_clears(opaque: str):
    """Also where others could."""
    workflow("checkout")(lambda step, deps: None)
    for args in (["--all"], ["--workflow", "checkout"], ["--prefix", "user:"], ["--errors"]):
        with pytest.raises(CommandError, match="cannot say which keys it holds"):
            _clear(*args)


def test_in_a_cache_that_cannot_list_keys_are_removed_by_name(opaque: str):
    """Of a workflow that is named, or of those that are registered."""
    put_many(opaque, "checkout", ["a", "b"])
    put(opaque, "signup", "a")
    assert "There is nothing to remove" in _clear("a")
    assert "Removed 1 cached step" in _clear("a", "--workflow", "checkout")
    workflow("signup")(lambda step, deps: None)
    assert "Removed 1 cached step" in _clear("a")
    assert "Removed 1 cached step" in _clear("b", "--workflow", "checkout")


# --- wrong use


@pytest.mark.parametrize("args", [[], ["--cache", "locmem"], ["--dry-run"]])
def test_nothing_said_is_an_error(args: list[str]):
    """Everything has to be asked for by name."""
    with pytest.raises(CommandError, match="Say what to clear"):
        _clear(*args)


@pytest.mark.parametrize("args", [["--prefix", ""], ["--workflow", "checkout", "--prefix", "", "--noinput"]])
def test_an_empty_prefix_is_an_error(args: list[str]):
    """An empty variable of a shell script must not clear everything."""
    with pytest.raises(CommandError, match="prefix is empty"):
        _clear(*args)


@pytest.mark.parametrize("key", ["", "a\nb", "x" * 201])
def test_a_key_that_cannot_be_is_an_error(key: str):
    """And not a key that was not found."""
    with pytest.raises(CommandError, match="clear_step_cache: the key"):
        _clear(key)


@pytest.mark.parametrize("args", [["user:1", "--all"], ["user:1", "--prefix", "user:"]])
def test_keys_and_more_than_keys_are_an_error(args: list[str]):
    """It would be a guess which of them was meant."""
    with pytest.raises(CommandError, match="not both"):
        _clear(*args)


def test_an_unknown_workflow_is_an_error_naming_close_ones(steps: str):
    """Neither registered nor with entries: a typing mistake."""
    workflow("checking")(lambda step, deps: None)
    with pytest.raises(CommandError, match=r"No workflow 'chekout' .* Did you mean 'checkout'"):
        _clear("--workflow", "chekout")
    with pytest.raises(CommandError, match=r"Known are: checking, checkout, signup\."):
        _clear("user:1", "--workflow", "xyz")


def test_where_no_workflow_is_known_none_is_suggested(alias: str):
    """An empty cache."""
    with pytest.raises(CommandError, match=r"Known are: none\."):
        _clear("--workflow", "checkout")


def test_a_registered_workflow_without_steps_is_no_error(alias: str):
    """There is just nothing to remove."""
    workflow("checkout")(lambda step, deps: None)
    assert "There is nothing to remove: 0 cached steps (workflow “checkout”" in _clear("--workflow", "checkout")


def test_a_workflow_that_shares_a_namespace_points_to_it(alias: str):
    """Removing what others share has to be meant."""
    workflow("checkout", cache=StepCache(alias, namespace="shared"))(lambda step, deps: None)
    put(alias, "shared", "user:1")
    with pytest.raises(CommandError, match="give --workflow 'shared'"):
        _clear("--workflow", "checkout")
    assert "Removed 1 cached step" in _clear("--workflow", "shared")


def test_a_workflow_with_a_map_of_its_own_is_not_found_in_djangos_caches(alias: str):
    """The command says where its steps are."""
    workflow("checkout", cache={})(lambda step, deps: None)
    with pytest.raises(CommandError, match="keeps its steps in a dict, not in"):
        _clear("--workflow", "checkout")


# --- what one sees


def test_a_long_clear_tells_how_far_it_is(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    """A line every few seconds."""
    settings.STEPFLOWS = {"CACHE": "locmem"}
    monkeypatch.setattr(progress, "_PAUSE", 0)
    put_many("locmem", "checkout", [f"user:{number:04}" for number in range(1001)])
    lines = _clear("--all").splitlines()
    assert lines[3:5] == ["Removed 1,000 of 1,001 ...", "Removed 1,001 of 1,001 ..."]
    assert lines[5].startswith("Removed 1,001 cached steps")


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_a_bar(steps: str, monkeypatch: pytest.MonkeyPatch):
    """It is gone when all is done. Without rich, which comes with an extra, there are lines."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(progress, "_PAUSE", 0)
    terminal = _Terminal()
    call_command("clear_step_cache", workflow="checkout", interactive=False, stdout=terminal, no_color=True)
    assert "Removing" in terminal.getvalue()
    assert "━" in terminal.getvalue()
    assert re.search(r"Removed \d+ cached steps", terminal.getvalue())

    monkeypatch.setattr(progress, "Console", None)
    terminal = _Terminal()
    call_command("clear_step_cache", all=True, interactive=False, stdout=terminal, no_color=True)
    assert "━" not in terminal.getvalue()
    assert "Removed 2 of 2 ..." in terminal.getvalue()


def _told(*args: str) -> Any:
    output = StringIO()
    call_command("clear_step_cache", *args, "--json", stdout=output)
    return json.loads(output.getvalue())


def test_scripts_are_told_in_json(steps: str):
    """One object: what was found, what was removed, and which keys were not there."""
    assert _told("mail:1", "nobody", "--workflow", "signup", "--dry-run") == {
        "found": 1,
        "removed": 0,
        "missing": ["nobody"],
    }
    assert _told("--workflow", "checkout", "--dry-run") == {"found": 4, "removed": 0, "missing": []}
    assert _told("--workflow", "checkout", "--noinput") == {"found": 4, "removed": 4, "missing": []}


def test_in_json_nobody_can_be_asked(steps: str):
    """So somebody has to have said that it may be done."""
    before = _left(steps)
    with pytest.raises(CommandError, match="Give --noinput"):
        _told("--all")
    assert _left(steps) == before


def test_it_can_be_silent(steps: str):
    """As every command of Django's."""
    assert _clear("--all", verbosity=0) == ""
    assert _left(steps) == {}


def _run(*args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    command = [sys.executable, "-m", "django", "clear_step_cache", *args]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False
    )


def test_another_process_clears_with_the_right_exit_codes(valkey: Any):
    """0 when done, 1 with one plain line when not."""
    put_many("django_redis", "checkout", ["a", "b"])
    wrong = _run("--workflow", "chekout", "--cache", "django_redis")
    assert (wrong.returncode, "Did you mean 'checkout'?" in wrong.stderr) == (1, True)
    assert "Traceback" not in wrong.stderr
    unasked = _run("--workflow", "checkout", "--cache", "django_redis")
    assert (unasked.returncode, "Give --noinput" in unasked.stderr) == (1, True)
    done = _run("--workflow", "checkout", "--cache", "django_redis", "--noinput")
    assert (done.returncode, "Removed 2 cached steps" in done.stdout) == (0, True)
    assert keys("django_redis", "checkout") == []
