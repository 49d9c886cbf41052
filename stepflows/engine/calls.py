"""Calling the functions of steps: what comes of it, and what they can ask about themselves."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from asgiref.sync import iscoroutinefunction

from stepflows.engine.cache import Lease
from stepflows.engine.operations import Outcome, Raised, Returned, StepInfo
from stepflows.errors import InvalidUse

__all__ = ["attempt", "current_step", "holding", "is_async", "running_step"]

_current: ContextVar[StepInfo | None] = ContextVar("stepflows_current_step", default=None)
_holding: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("stepflows_leases", default=())


def current_step() -> StepInfo:
    """The step whose function is running: label, key, attempt, and an ``idempotency_key`` for payment APIs.

    Raises :exc:`~stepflows.errors.InvalidUse` outside a step's function.
    """
    info = _current.get()
    if info is None:
        raise InvalidUse("current_step() is called outside a step's function. Call it inside the function that runs.")
    return info


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine; an object with an ``async def __call__`` does so too."""
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def attempt(function: Callable[[], Any]) -> Outcome:
    """Call it. Exceptions are answers: a StopIteration would not survive a generator, nor a thread's future."""
    try:
        return Returned(function())
    except BaseException as error:
        return Raised(error)


def holding() -> tuple[tuple[str, str], ...]:
    """Token and key of each lease under which this code runs, that of the outermost step first."""
    return _holding.get()


class running_step:  # noqa: N801 - used as a function; one made by contextmanager() takes thrice as long
    """What is called in here is this step's function, or no step's."""

    __slots__ = ("_current", "_holding", "_info", "_lease")

    def __init__(self, info: StepInfo | None, lease: Lease | None = None) -> None:
        self._info = info
        self._lease = lease

    def __enter__(self) -> None:
        lease = self._lease
        self._current = _current.set(self._info)
        self._holding = _holding.set((*_holding.get(), (lease.token, lease.key))) if lease else None

    def __exit__(self, *_: object) -> None:
        if self._holding:
            _holding.reset(self._holding)
        _current.reset(self._current)
