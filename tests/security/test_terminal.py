"""Nothing that comes from a cache or an error orders a terminal about, or makes up lines in a log."""

from __future__ import annotations

import json
import logging
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from stepflows import Err, InvalidStepKey, create_workflow, workflow
from stepflows.caches.codec import Codec
from stepflows.engine.cache import Damaged
from stepflows.registry import registry
from tests.entries import put
from tests.security.forging import entry, exception, ext, failure, packed, plant

#: Clears the screen, goes back over the line, begins a new one, writes from right to left.
ORDERS = "\x1b[2J\r\n\x9b31m\u202e\u2028\x07\ud800fake"


@pytest.fixture(autouse=True)
def _locmem(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.STEPFLOWS = {"CACHE": "locmem"}
    monkeypatch.setattr(registry, "_workflows", {})


def printed(name: str, *arguments: str) -> str:
    """What a command prints, or with what it ends."""
    output = StringIO()
    try:
        call_command(name, *arguments, stdout=output, stderr=output, no_color=True)
    except CommandError as error:
        output.write(str(error))
    return output.getvalue()


def is_harmless(text: str) -> bool:
    return all(sign.isprintable() or sign in "\n\t" for sign in text)


NAN = float("nan")


@pytest.mark.parametrize(
    "stamp",
    [
        (ORDERS, 0.0, 0.0, ORDERS, None),
        ("x", NAN, NAN, "", NAN),
        ("x", 1e300, 1e300, "", 1e300),
        ("x", -1e18, 0, "", -1e18),
    ],
    ids=["orders", "no numbers", "too late", "too early"],
)
def test_a_listing_is_a_line_for_each_step(stamp: Any):
    """A label, a key, a name or a time of somebody's is shown, not obeyed."""
    plant("locmem", entry(packed(1), stamp=stamp))
    put("locmem", ORDERS, f"key{ORDERS}", version=None)
    text = printed("list_step_cache")
    assert is_harmless(text)
    assert len(text.splitlines()) == 3 - (stamp[4] == -1e18)
    told = [json.loads(line) for line in printed("list_step_cache", "--json").splitlines() if line.startswith("{")]
    assert len(told) == 2 - (stamp[4] == -1e18)


@pytest.mark.parametrize(
    "arguments",
    [["--all", "--dry-run"], ["user:1", "--dry-run"], ["--workflow", "chekout", "--dry-run"], ["--all", "--noinput"]],
)
def test_a_clear_tells_what_it_clears_on_a_line(arguments: list[str]):
    """The names of workflows and keys that somebody has put into the cache are shown, not obeyed."""
    put("locmem", ORDERS, "user:1")
    put("locmem", f"{ORDERS}2", "user:1", version=None)
    text = printed("clear_step_cache", *arguments)
    assert is_harmless(text)
    assert len(text.splitlines()) == 1


ERRORS: list[Any] = [ORDERS, exception("builtins:ValueError", ORDERS), exception(ORDERS, message=ORDERS)]


@pytest.mark.parametrize("error", ERRORS, ids=["text", "exception", "stand-in"])
def test_a_run_shows_what_errors_say(error: Any):
    """The message of an error, forged or from some service, is shown, not obeyed."""
    plant("locmem", failure(error))
    workflow("checkout", cache="locmem")(lambda step, deps: step("load", lambda: 1, key="user:1"))
    text = printed("run_workflow", "checkout")
    assert "fake" in text
    assert is_harmless(text)
    assert text.splitlines()[0].startswith("load (user:1): failed earlier, from the cache: ")


class Shown:
    def __repr__(self) -> str:
        return ORDERS


def test_a_run_shows_results_as_text():
    """Nor is the repr() of a result obeyed."""
    workflow("checkout")(lambda step, deps: Shown())
    assert is_harmless(printed("run_workflow", "checkout"))


@pytest.mark.parametrize("text", [ORDERS, "a\nb", "a\x1b", "a\x7f", "a\x9b", "a\ud800"])
def test_no_key_or_label_has_a_control_character(text: str):
    """So what a project makes its keys of, such as a customer's name, cannot make up a line of a log either."""
    for label, key in (("load", text), (text, "user:1")):
        flow = create_workflow("checkout", {}, cache="locmem")
        with pytest.raises(InvalidStepKey) as raised:
            flow.run(lambda step, deps, label=label, key=key: step(label, lambda: 1, key=key))  # type: ignore[misc]
        assert str(raised.value).isprintable()


def test_the_log_has_a_line_for_each_message(caplog: pytest.LogCaptureFixture):
    """Whatever a damaged, moved or relabelled entry holds, the log tells of it on one line."""
    caplog.set_level(logging.DEBUG, "stepflows")
    flow = create_workflow("checkout", {}, cache="locmem")
    hostile = [
        entry(packed(1), stamp=(ORDERS, 0.0, 0.0, "", None)),
        entry(packed(1), place=(ORDERS, ORDERS)),
        *(entry(packed(ext(code, ORDERS, ORDERS, ORDERS))) for code in range(17)),
        *(entry(packed(ext(code, *[ext(4, ORDERS)] * 3))) for code in range(17)),
    ]
    for data in hostile:
        plant("locmem", data)
        flow.run(lambda step, deps: step("load", lambda: 1, key="user:1"))
    messages = [record.getMessage() for record in caplog.records if record.exc_info is None]
    assert len(messages) > 20
    assert [message for message in messages if not message.isprintable()] == []


def test_why_an_entry_is_damaged_is_one_line():
    """The reason goes into logs, events and pages."""
    for code in range(20):
        for part in (ORDERS, ORDERS.encode("utf-8", "surrogatepass"), [ORDERS], {ORDERS: 1}, None, 2**63, 1.5):
            for parts in ([part], [part, part], [part] * 9):
                found = Codec().decode(entry(packed(ext(code, *parts))), "checkout", "user:1")
                assert not isinstance(found, Damaged) or found.reason.isprintable()
                assert not isinstance(found, Err) or isinstance(found.error, BaseException)
