"""One body, played in both voices.

A test writes a body once, as a generator that yields each step. In a sync workflow ``step(...)`` has its value at once
and it is sent back as it is; in an async one what is yielded is awaited first. Where a step raises, it raises at the
``yield`` in both.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import wraps
from typing import Any

from asgiref.sync import async_to_sync

from stepflows import Result
from stepflows.definitions import Workflow

Body = Callable[..., Generator[Any, Any, Any]]


def sync_body(body: Body) -> Callable[..., Any]:
    """The generator as an ordinary sync body."""

    @wraps(body)
    def play(step: Any, deps: Any, *args: Any, **kwargs: Any) -> Any:
        steps = body(step, deps, *args, **kwargs)
        try:
            value = next(steps)
            while True:
                value = steps.send(value)
        except StopIteration as stop:
            return stop.value

    return play


def async_body(body: Body) -> Callable[..., Any]:
    """The generator as an async body."""

    @wraps(body)
    async def play(step: Any, deps: Any, *args: Any, **kwargs: Any) -> Any:
        steps = body(step, deps, *args, **kwargs)
        try:
            awaitable = next(steps)
            while True:
                try:
                    value = await awaitable
                except BaseException as error:
                    awaitable = steps.throw(error)
                else:
                    awaitable = steps.send(value)
        except StopIteration as stop:
            return stop.value

    return play


class Sync:
    """Plays bodies with ``run``."""

    is_async = False

    def run(self, workflow: Workflow, body: Body, *args: Any, **kwargs: Any) -> Result[Any]:
        return workflow.run(sync_body(body), *args, **kwargs)


class Async:
    """Plays bodies with ``arun``; what needs a thread gets the calling one, as under Django's test client."""

    is_async = True

    def run(self, workflow: Workflow, body: Body, *args: Any, **kwargs: Any) -> Result[Any]:
        return async_to_sync(workflow.arun)(async_body(body), *args, **kwargs)


Voice = Sync | Async
