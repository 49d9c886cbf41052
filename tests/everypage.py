"""Every page of ours in the admin, with as much on each as there can be."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from stepflows import Err, Ok, cachedsteps, dumps, workflow
from stepflows.admin import CachedStepAdmin
from stepflows.models import Run
from tests.entries import put, spoil
from tests.pages import CLEAR, LIST, page, step_page
from tests.runrows import a_run, a_step

Page = Callable[[], Any]

OUTCOMES = ("executed", "cached", "waited", "error", "replayed_error", "interrupted", "running")
#: No English word, so that those on a page are ours.
FLOW = "Lieferung"


def every_page(client: Client, alias: str, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> dict[str, Page]:
    """By name, how each is asked for, in this order. The cache of this alias was empty."""
    pages = _list_pages(client) | _step_pages(client, alias) | _clear_pages(client, monkeypatch) | _runs(client)
    return pages | _unavailable(client, settings)


def _list_pages(client: Client) -> dict[str, Page]:
    return {
        "list": lambda: client.get(page(LIST)),
        "list of a workflow": lambda: client.get(page(LIST), {"workflow": FLOW}),
        "search": lambda: client.get(page(LIST), {"q": "Kunde"}),
        "unlisted": lambda: client.get(page("cachedstep_change", "x"), follow=True),
    }


def _step_pages(client: Client, alias: str) -> dict[str, Page]:
    for number in range(101):
        put(alias, FLOW, f"Kunde:{number:03}", label="Teil")
    old: dict[str, Any] = {"ago": 9000, "label": "Teil"}
    steps = {
        "long": put(alias, FLOW, "Kunde:lang", Ok([{"Zeile": row} for row in range(60)]), version=2, ttl=90_000, **old),
        "huge": put(alias, FLOW, "Kunde:riesig", Ok("x" * 600_000), duration=4000, **old),
        "error": put(alias, FLOW, "Kunde:falsch", Err(_raised(), "x"), **old),
        "damaged": put(alias, FLOW, "Kunde:kaputt", **old),
        "nameless": put(alias, "", "Kunde:?", **old),
    }
    spoil(steps["damaged"])
    pages = {f"step {name}": _page(client, step_page("change", place)) for name, place in steps.items()}
    selected = {"action": "delete_selected", "_selected_action": [steps["long"].id, steps["error"].id]}
    return pages | {
        "delete": lambda: client.get(step_page("delete", steps["long"])),
        "history": lambda: client.get(step_page("history", steps["long"])),
        "delete selected": lambda: client.post(page(LIST), selected),
    }


def _clear_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> dict[str, Page]:
    monkeypatch.setattr(CachedStepAdmin, "clear_seconds", 0.0)
    monkeypatch.setattr(cachedsteps, "_REMOVED_AT_ONCE", 2)
    one, nothing = ({"scope": f"workflow:{FLOW}", "key_prefix": prefix} for prefix in ("Kunde:0", "zzz"))
    alias = {"cache": "locmem"}
    return {
        "clear": lambda: client.get(page(CLEAR)),
        "clear wrongly": lambda: client.get(page(CLEAR), {**alias, "scope": "?"}),
        "clear all": lambda: client.get(page(CLEAR), {**alias, "scope": "all"}),
        "clear some": lambda: client.get(page(CLEAR), alias | one),
        "clear nothing": lambda: client.get(page(CLEAR), alias | nothing),
        "clearing": lambda: client.post(page(CLEAR), alias | one),
        "cleared": lambda: client.post(page(CLEAR), alias | nothing, follow=True),
        "cleared before": lambda: client.post(page(CLEAR), {"clearing": "0"}, follow=True),
    }


def _runs(client: Client) -> dict[str, Page]:
    workflow(FLOW)(lambda step, deps: None)
    now = timezone.now()
    times = {"started_at": now - dt.timedelta(hours=3), "worker": "w1"}
    done = {**times, "finished_at": now - dt.timedelta(seconds=70), "executed": 3, "cached": 2}
    steps = [
        a_step(outcome, label=f"Teil {number}", key=f"Kunde:{number}", offset=float(number))
        for number, outcome in enumerate(OUTCOMES * 8)
    ]
    attempt = {"worker": "w0", "started_at": now.isoformat(), "ended_at": now.isoformat(), "reason": "failed"}
    history = [{**attempt, "reason": "not heard of for 25 s", "steps": []}, {**attempt, "steps": steps}]
    rows = {
        "queued": {"due_at": now},
        "running": {**times, "due_at": now, "steps": steps, "priority": 3, "queue": "q"},
        "succeeded": {**done, "steps": steps[:6], "outcome": dumps(Ok(7)), "history": history},
        "failed": {**done, "outcome": dumps(Err(_raised())), "failed_step": ["Teil 1", "Kunde:1", True]},
        "cancelled": {**done, "steps": [a_step(label="", key="Kunde:1", attempt=None)] * 1001},
    }
    runs = {state: a_run(FLOW, args=(1,), kwargs={"n": 2}, state=state, **more) for state, more in rows.items()}
    again = {"key": "Kunde:3"}
    return {f"run {state}": _page(client, page("run_change", run.pk)) for state, run in runs.items()} | {
        "runs": lambda: client.get(page("run_changelist")),
        "runs by date": lambda: client.get(page("run_changelist"), {"created_at__year": now.year}),
        "run's history": lambda: client.get(page("run_history", runs["failed"].pk)),
        "live": lambda: client.get(page("run_live", runs["running"].pk)),
        "again": lambda: client.get(page("run_again", runs["succeeded"].pk), again),
        "again, changed": lambda: client.post(page("run_again", runs["succeeded"].pk), again),
        "not again": lambda: client.get(page("run_again", runs["running"].pk), again, follow=True),
        "resume what runs": lambda: _act(client, "resume", runs),
        "cancel": lambda: _act(client, "cancel", {"running": runs["running"]}),
    }


def _unavailable(client: Client, settings: Settings) -> dict[str, Page]:
    """Caches that cannot be asked, one because nobody can say what it holds."""
    opaque = {"BACKEND": "tests.admin.opaque.OpaqueCache", "LOCATION": "opaque"}

    def listed_in(cache: str) -> Any:
        settings.CACHES = {**settings.CACHES, "opaque": opaque}
        settings.STEPFLOWS = {"CACHE": cache}
        return client.get(page(LIST))

    return {cache: partial(listed_in, cache) for cache in ("opaque", "nowhere")}


def _act(client: Client, name: str, runs: dict[str, Run]) -> Any:
    data = {"action": f"{name}_runs", "_selected_action": [str(runs["running"].pk)]}
    return client.post(page("run_changelist"), data, follow=True)


def _page(client: Client, url: str) -> Page:
    return partial(client.get, url)


def _raised() -> ValueError:
    try:
        raise ValueError("x" * 70)
    except ValueError as error:
        return error


@dataclass
class Read(HTMLParser):
    """A page's elements with their attributes, and what people see and hear of it."""

    html: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    HEARD = ("alt", "aria-label", "data-said", "placeholder", "title")

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append((tag, given))
        self.words += [given[name] or "" for name in self.HEARD if name in given]
        if tag == "input" and given.get("type") == "submit":
            self.words.append(given.get("value") or "")

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        """All of it, with single spaces."""
        return " ".join(" ".join(self.words).split())
