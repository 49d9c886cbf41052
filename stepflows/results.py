"""What a step or a workflow comes to: :class:`Ok` or :class:`Err`.

The pair is the ``Result`` of Rust and of the TypeScript workflow libraries, as two frozen dataclasses that work
in ``match``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, NoReturn, TypeAlias, TypeVar

from stepflows.errors import StepFailed

__all__ = ["Err", "FailedStep", "Ok", "Result", "Stamp"]

T = TypeVar("T")
D = TypeVar("D")


class Stamp(NamedTuple):
    """What a cache keeps beside a result; set on every result that goes into a cache or comes out of one."""

    label: str = ""
    #: Seconds since the epoch.
    stored_at: float = 0.0
    #: Seconds that the step took.
    duration: float = 0.0
    #: The run that executed the step.
    run_id: str = ""
    #: Seconds since the epoch; ``None`` is for ever.
    expires_at: float | None = None

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class FailedStep(NamedTuple):
    """Which step failed, and whether the failure was replayed from the cache."""

    label: str
    key: str | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Ok(Generic[T]):
    """Success, with its value."""

    value: T
    stamp: Stamp | None = field(default=None, compare=False, repr=False, kw_only=True)

    @property
    def ok(self) -> bool:
        return True

    def unwrap(self) -> T:
        """Return the value."""
        return self.value

    def unwrap_or(self, default: D) -> T | D:
        """Return the value."""
        return self.value


@dataclass(frozen=True, slots=True)
class Err:
    """Failure, with the error: an exception that was raised, or whatever a step returned as ``Err(error)``.

    ``cause`` is what was given beside the error, or the exception's own ``__cause__``. ``step`` says where it
    failed; it takes no part in comparisons.
    """

    error: Any
    cause: Any = None
    step: FailedStep | None = field(default=None, compare=False)
    stamp: Stamp | None = field(default=None, compare=False, repr=False, kw_only=True)

    @property
    def ok(self) -> bool:
        return False

    def unwrap(self) -> NoReturn:
        """Raise the error: an exception as itself, anything else as :exc:`StepFailed`."""
        raise self.as_exception()

    def unwrap_or(self, default: D) -> D:
        """Return the default."""
        return default

    def as_exception(self) -> BaseException:
        """The error as something that can be raised."""
        if isinstance(self.error, BaseException):
            return self.error
        return StepFailed(self.error, self.cause, self.step)


Result: TypeAlias = Ok[T] | Err

_set_value = Ok.__dict__["value"].__set__
_set_stamp = Ok.__dict__["stamp"].__set__


def restored(value: T, stamp: Stamp) -> Ok[T]:
    """The same as ``Ok(value, stamp=stamp)``, in a third of the time; every hit makes one."""
    result: Ok[T] = object.__new__(Ok)
    _set_value(result, value)
    _set_stamp(result, stamp)
    return result


def stamped(result: Result[T], stamp: Stamp) -> Result[T]:
    """The same result with this stamp. Where a step failed is of one run, so it is not kept."""
    if isinstance(result, Ok):
        return Ok(result.value, stamp=stamp)
    return replace(result, step=None, stamp=stamp)
