"""Workflows that wait where a test wants them to, or end as badly as it says. They note each step that runs."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepflows import Err, workflow
from tests import settings as site
from tests.flows.notes import note, notes

CACHE = "django_redis"
#: Seconds after which a gate that nobody opens is an error, so that no worker is stuck for good.
_PATIENCE = 100


def _gate(name: str) -> Path:
    return site.FOLDER / f"{name}.gate"


def open_gate(name: str) -> None:
    """Let the runs of that name through, now and later."""
    _gate(name).touch()


def is_open(name: str) -> bool:
    return _gate(name).exists()


def noted(name: str) -> list[str]:
    """What the runs of that name have done."""
    return [line.split()[0] for line in notes() if line.endswith(f" {name}")]


def _naps(name: str) -> Iterator[float]:
    """Pauses until the gate is open."""
    note(f"gate {name}")
    deadline = time.monotonic() + _PATIENCE
    while not is_open(name):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Nobody opens the gate {name!r}.")
        yield 0.02


def _pass(name: str) -> None:
    for nap in _naps(name):
        time.sleep(nap)


async def _apass(name: str) -> None:
    for nap in _naps(name):
        await asyncio.sleep(nap)


@workflow("flows.gated", cache=CACHE)
def gated(step: Any, deps: Any, name: str) -> str:
    """Waits in its second step until the gate is open."""
    step("before", lambda: note(f"before {name}"), key=f"{name}:before")
    step("gate", lambda: _pass(name), key=f"{name}:gate")
    after: str = step("after", lambda: note(f"after {name}"), key=f"{name}:after")
    return after


@workflow("flows.gated_async", cache=CACHE)
async def gated_async(step: Any, deps: Any, name: str) -> str:
    """The same on an event loop."""
    await step("before", lambda: note(f"before {name}"), key=f"{name}:before")
    await step("gate", lambda: _apass(name), key=f"{name}:gate")
    after: str = await step("after", lambda: note(f"after {name}"), key=f"{name}:after")
    return after


@workflow("flows.ticking", cache=CACHE)
def ticking(step: Any, deps: Any, name: str) -> None:
    """After the gate it takes a step every twentieth of a second, for longer than any test lasts."""
    step("gate", lambda: _pass(name), key=f"{name}:gate")
    for tick in range(20 * _PATIENCE):
        step("tick", lambda: time.sleep(0.05), key=f"{name}:{tick}")


@workflow("flows.ticking_async", cache=CACHE)
async def ticking_async(step: Any, deps: Any, name: str) -> None:
    """The same on an event loop."""
    await step("gate", lambda: _apass(name), key=f"{name}:gate")
    for tick in range(20 * _PATIENCE):
        await step("tick", lambda: asyncio.sleep(0.05), key=f"{name}:{tick}")


@workflow("flows.slow", cache=CACHE)
def slow(step: Any, deps: Any, name: str, times: int) -> str:
    """Its second step takes longer than any time limit that often, then no time at all."""
    step("before", lambda: note(f"before {name}"), key=f"{name}:before")

    def charge() -> str:
        note(f"slow {name}")
        if noted(name).count("slow") <= times:
            time.sleep(_PATIENCE)
        return note(f"done {name}")

    charged: str = step("slow", charge, key=f"{name}:slow")
    return charged


@workflow("flows.slow_async", cache=CACHE)
async def slow_async(step: Any, deps: Any, name: str, times: int) -> str:
    """The same on an event loop."""
    await step("before", lambda: note(f"before {name}"), key=f"{name}:before")

    async def charge() -> str:
        note(f"slow {name}")
        if noted(name).count("slow") <= times:
            await asyncio.sleep(_PATIENCE)
        return note(f"done {name}")

    charged: str = await step("slow", charge, key=f"{name}:slow")
    return charged


@workflow("flows.deaf", cache=CACHE, lease=1)
def deaf(step: Any, deps: Any, name: str) -> str:
    """The first time, its second step takes longer than any time limit and hears no signal, as a library in C may."""
    step("before", lambda: note(f"before {name}"), key=f"{name}:before")

    def charge() -> str:
        note(f"deaf {name}")
        if noted(name).count("deaf") == 1:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
            time.sleep(_PATIENCE)
        return note(f"done {name}")

    charged: str = step("charge", charge, key=f"{name}:charge")
    return charged


@workflow("flows.poison", cache=CACHE)
def poison(step: Any, deps: Any, name: str) -> None:
    """Kills its process, as running out of memory does."""
    step("before", lambda: note(f"before {name}"), key=f"{name}:before")

    def die() -> None:
        note(f"poison {name}")
        os.kill(os.getpid(), signal.SIGKILL)

    step("poison", die, key=f"{name}:poison")


@workflow("flows.unlucky", cache=CACHE)
def unlucky(step: Any, deps: Any, name: str) -> str:
    """Its second step fails until the gate is open."""
    step("before", lambda: note(f"before {name}"), key=f"{name}:before")

    def charge() -> Any:
        note(f"charge {name}")
        return "paid" if is_open(name) else Err("DECLINED")

    paid: str = step("charge", charge, key=f"{name}:charge")
    step("after", lambda: note(f"after {name}"), key=f"{name}:after")
    return paid


@workflow("flows.long", cache=CACHE)
def long(step: Any, deps: Any, name: str, items: int) -> Any:
    """Has many steps, and fails after them until the gate is open."""
    done = [step("load", lambda item=item: item, key=f"{name}:{item}") for item in range(items)]
    return len(done) if is_open(name) else Err("CLOSED")
