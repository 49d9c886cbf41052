"""The bodies of workflows: what can be one, and calling it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from stepflows.engine.loops import discard
from stepflows.engine.steps import AsyncStep, Step
from stepflows.errors import InvalidUse

__all__ = ["Body", "check_body", "not_taken"]

#: How Python says that a step was called with other arguments than it takes.
_OF_A_STEP: Final = re.compile(r"(Async)?Step\.\w+\(\) ")


def check_body(name: str, body: Any) -> None:
    if not callable(body):
        raise InvalidUse(f"Workflow {name!r}: the body is {body!r}; it must be a function, def body(step, deps, ...).")
    if "prefetch" in _parameters(body):
        raise InvalidUse(
            f"Workflow {name!r}: the body has a parameter prefetch, which is an argument of run() itself. Rename it."
        )
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise InvalidUse(
            f"Workflow {name!r}: the body is a generator, so nothing in it would run. Take the yield away."
        )


class Body:
    """One that is about to be called for a workflow of this name, with these dependencies and arguments."""

    __slots__ = ("_args", "_deps", "_function", "_kwargs", "_name")

    def __init__(
        self, name: str, function: Callable[..., Any], deps: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self._name = name
        self._function = function
        self._deps = deps
        self._args = args
        self._kwargs = kwargs

    def call(self, step: Step) -> Any:
        """Call it in this thread. Raises :exc:`~stepflows.errors.InvalidUse` when it does not take the arguments."""
        try:
            value = self._function(step, self._deps, *self._args, **self._kwargs)
        except TypeError as error:
            self._refuse(error)
            raise
        return self._not_awaitable(value, "Write it as async def and use arun.")

    async def acall(self, step: AsyncStep) -> Any:
        """Like :meth:`call`, for an async one."""
        try:
            value = await self._function(step, self._deps, *self._args, **self._kwargs)
        except TypeError as error:
            self._refuse(error)
            raise
        return self._not_awaitable(value, "Steps of an async body have to be awaited: await step(...).")

    def _refuse(self, error: TypeError) -> None:
        """Raises :exc:`~stepflows.errors.InvalidUse` where the body, or a step in it, cannot be called so."""
        if _of_the_call(error):
            raise not_taken(self._name, error) from error
        if _OF_A_STEP.match(str(error)):
            raise InvalidUse(
                f"Workflow {self._name!r}: {error}. A step takes a label and a function by position and all else by "
                "name: step('charge', function, key='order:7:charge')."
            ) from error

    def _not_awaitable(self, value: Any, remedy: str) -> Any:
        if not inspect.isawaitable(value):
            return value
        discard(value)
        raise InvalidUse(f"Workflow {self._name!r}: the body returned an awaitable. {remedy}")


def not_taken(name: str, error: TypeError) -> InvalidUse:
    """What to raise when the body of this workflow cannot be called so."""
    return InvalidUse(f"Workflow {name!r}: the body does not take these arguments: {error}.")


def _parameters(body: Callable[..., Any]) -> Collection[str]:
    try:
        return inspect.signature(body).parameters
    except (TypeError, ValueError):
        # Some objects have no signature to look at.
        return ()


def _of_the_call(error: TypeError) -> bool:
    """Whether the call itself failed, for its arguments, and not something inside what was called."""
    return error.__traceback__ is not None and error.__traceback__.tb_next is None
