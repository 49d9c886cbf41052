"""The options of workflows and steps: how long, which errors, how often."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Final, TypeAlias

from tenacity import RetryCallState, wait_exponential, wait_random
from tenacity.wait import wait_base

from stepflows.errors import (
    CacheUnavailable,
    InvalidOption,
    InvalidStepKey,
    InvalidUse,
    NotCacheable,
    StepDeadlock,
    StepKeyConflict,
)
from stepflows.results import Err

__all__ = [
    "UNSET",
    "CacheErrors",
    "Policy",
    "Retry",
    "Ttl",
    "Unset",
    "add_interrupts",
    "error_classes",
    "flag",
    "is_failure",
    "is_interrupt",
    "lease_seconds",
    "retrying",
    "seconds",
]


class Unset(Enum):
    """Not given, where ``None`` has a meaning of its own."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
Ttl: TypeAlias = float | timedelta | None
CacheErrors: TypeAlias = bool | type[BaseException] | tuple[type[BaseException], ...]

#: Not failures of a step: these leave a run as themselves and are never stored.
_CONTROL = (
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
    asyncio.CancelledError,
    InvalidUse,
    InvalidStepKey,
    StepKeyConflict,
)

#: Failures of the moment: they say nothing about the step, so they are never stored.
_PASSING = (CacheUnavailable, NotCacheable, StepDeadlock)

#: What ends whatever is running from outside, such as a worker's time limit. Never stored either.
_interrupts: tuple[type[BaseException], ...] = ()


def add_interrupts(*classes: type[BaseException]) -> None:
    """Add exception classes that are never stored, and never swallowed."""
    global _interrupts  # noqa: PLW0603 - one list per process, extended at import time
    _interrupts = tuple(dict.fromkeys((*_interrupts, *classes)))


def is_failure(error: BaseException) -> bool:
    """Whether an exception is a failure, and not a cancellation, an exit or a wrong use of the API."""
    return not _is_any(error, _CONTROL)


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception struck from outside, whatever was running."""
    return _is_any(error, _interrupts)


@dataclass(frozen=True, slots=True)
class Retry:
    """Try a failing step again.

    ``attempts`` counts the first one. ``wait`` is the number of seconds between two attempts, or one of tenacity's
    wait strategies (by default exponential from 0.1 s to 10 s, with jitter). ``on`` narrows what is tried again:
    exception classes (:exc:`~stepflows.errors.StepFailed` stands for a returned ``Err``), or a function that is given
    the error (an exception, or the ``error`` of an ``Err``) and answers.
    """

    attempts: int = 3
    wait: float | timedelta | wait_base = wait_exponential(multiplier=0.1, max=10) + wait_random(0, 0.1)
    on: type[BaseException] | Sequence[type[BaseException]] | Callable[[Any], bool] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise InvalidUse(f"Retry: attempts must be a whole number, not {self.attempts!r}.")
        if self.attempts < 1:
            raise InvalidOption(f"Retry: attempts is {self.attempts}; the first one counts, so it must be 1 or more.")
        if not callable(self.wait):
            seconds(self.wait, "Retry", "wait")
        if isinstance(self.on, list):
            object.__setattr__(self, "on", tuple(self.on))
        classes = self.on if isinstance(self.on, tuple) else ()
        if not (self.on is None or callable(self.on) or (classes and all(isinstance(each, type) for each in classes))):
            raise InvalidUse(f"Retry: on is {self.on!r}; give exception classes or a function of the error.")

    def wants(self, failure: Err, attempt: int) -> bool:
        """Whether to try again after this failure of this attempt (counting from 1)."""
        if attempt >= self.attempts or _passing(failure.error):
            return False
        if self.on is None:
            return True
        if callable(self.on) and not isinstance(self.on, type):
            return bool(self.on(failure.error))
        return isinstance(failure.as_exception(), self.on if isinstance(self.on, type) else tuple(self.on))

    def pause(self, attempt: int) -> float:
        """Seconds to wait after this attempt (counting from 1)."""
        if not callable(self.wait):
            return seconds(self.wait, "Retry", "wait") or 0.0
        state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
        state.attempt_number = attempt
        return float(self.wait(state))


def retrying(value: Any, where: str) -> Retry | None:
    """A ``retry=`` option as a :class:`Retry`: ``None``, a number of attempts, or a ``Retry``."""
    if value is None or isinstance(value, Retry):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Retry(attempts=value)
    raise InvalidUse(f"{where}: retry is {value!r}; give a number of attempts or a Retry.")


def seconds(value: Any, where: str, option: str = "ttl") -> float | None:
    """A span of time in seconds; ``None`` stays ``None``.

    Raises :exc:`~stepflows.errors.InvalidUse` for what is no span of time and
    :exc:`~stepflows.errors.InvalidOption` for a negative or infinite one.
    """
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidUse(f"{where}: {option} is {value!r}; give seconds, a timedelta, or None.")
    if not 0 <= value < math.inf:
        raise InvalidOption(f"{where}: {option} is {value!r}; it must be finite and not negative.")
    return float(value)


def lease_seconds(value: Any, where: str) -> float:
    """A ``lease=`` option, checked."""
    span = seconds(value, where, "lease")
    if not span:
        raise InvalidOption(f"{where}: lease is {value!r}; give more than 0 seconds. To drop it: single_flight=False.")
    return span


def flag(value: Any, where: str, option: str) -> bool:
    """An option that is on or off."""
    if isinstance(value, bool):
        return value
    raise InvalidUse(f"{where}: {option} is {value!r}; give True or False.")


def error_classes(value: Any, where: str) -> bool | tuple[type[BaseException], ...]:
    """A ``cache_errors=`` option, checked."""
    if isinstance(value, bool):
        return value
    classes = (value,) if isinstance(value, type) else value
    if isinstance(classes, tuple | list) and all(isinstance(c, type) and issubclass(c, BaseException) for c in classes):
        return tuple(classes)
    raise InvalidUse(f"{where}: cache_errors is {value!r}; give True, False or exception classes.")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a run does where a step does not say otherwise."""

    ttl: float | None = None
    cache_errors: bool | tuple[type[BaseException], ...] = True
    retry: Retry | None = None
    #: ``"fail"``, or ``"run"`` to run steps uncached while the cache cannot be reached.
    on_cache_down: str = "fail"
    #: Seconds that the right to run a step lasts when its holder does not renew it.
    lease: float = 30.0
    single_flight: bool = True

    def keeps(self, failure: Err) -> bool:
        """Whether this failure is to be stored."""
        if _passing(failure.error):
            return False
        if isinstance(self.cache_errors, bool):
            return self.cache_errors
        return isinstance(failure.as_exception(), self.cache_errors)


def _passing(error: Any) -> bool:
    return _is_any(error, (*_PASSING, *_interrupts))


def _is_any(error: Any, classes: tuple[type[BaseException], ...]) -> bool:
    """Whether it is one of these, or a group that has one in it."""
    if isinstance(error, BaseExceptionGroup):
        # An instance may have another thing of that name.
        return bool(classes) and BaseExceptionGroup.subgroup(error, classes) is not None
    return isinstance(error, classes)
