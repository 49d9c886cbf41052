"""The bodies of registered workflows, as they are written."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from django.core.checks import CheckMessage

from stepflows.checks.calls import step_calls
from stepflows.checks.deferral import check_deferral
from stepflows.checks.keys import check_keys
from stepflows.checks.loops import check_loops
from stepflows.checks.sharing import check_sharing
from stepflows.checks.sources import FUNCTIONS, Node, Source, forget, parameters
from stepflows.engine.context import logger
from stepflows.registry import registry

__all__ = ["check_body", "check_workflows"]


def check_workflows(**_: Any) -> list[CheckMessage]:
    """The steps of every workflow whose source can be had."""
    try:
        return [message for workflow in registry.all() for message in _check(workflow)]
    finally:
        forget()


def _check(workflow: Any) -> list[CheckMessage]:
    try:
        source = _source(workflow)
        return [] if source is None else list(check_body(workflow.name, source))
    except Exception:
        # A body may be written in ways that nobody has thought of, and a check is no reason not to start.
        logger.debug("The source of workflow %r could not be checked", workflow.name, exc_info=True)
        return []


def _source(workflow: Any) -> Source | None:
    """The source of the body, with what its second parameter is given."""
    source = Source.of(workflow.body)
    if source is None:
        return None
    names = [each.arg for each in parameters(source.node)]
    given = vars(workflow)["_deps"]
    if type(given) is dict:
        given = SimpleNamespace(**{name: each for name, each in given.items() if isinstance(name, str)})
    return source.knowing(dict.fromkeys(names[1:2], given))


def check_body(name: str, source: Source) -> Iterator[CheckMessage]:
    """What is to be said of a body, whose first parameter is the step."""
    step = next((each.arg for each in parameters(source.node)), None)
    if step is None or source.bound[step] != len(list(_takers(source.node, step))):
        # The name stands for something else as well.
        return
    calls = list(step_calls(source.node, step))
    for call in calls:
        where = f"Workflow {name!r} ({source.place(call.node)})"
        for check in (check_keys, check_deferral, check_loops):
            yield from check(where, source, call)
    yield from check_sharing(f"Workflow {name!r}", source, calls)


def _takers(body: Node, step: str) -> Iterator[Node]:
    """The body, and the functions in it that have a parameter of that name."""
    for node in ast.walk(body):
        if isinstance(node, FUNCTIONS) and step in {each.arg for each in parameters(node)}:
            yield node
