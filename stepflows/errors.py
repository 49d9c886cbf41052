"""Every error that stepflows itself raises or returns.

::

    StepflowsError
    ├── InvalidUse (TypeError)             the API was called wrongly; always raised
    │   └── InvalidOption (ValueError)     an option of the right type with an impossible value
    ├── InvalidStepKey (ValueError)        a key or label that cannot be used; always raised
    ├── StepKeyConflict                    one key under two labels in one run; always raised
    ├── StepFailed                         a step returned Err(error); raised inside the body
    ├── NotCacheable                       a value that a cache cannot give back as it was
    ├── CacheUnavailable                   the cache could not be reached
    ├── StepDeadlock                       a step is waited for that may be waiting for this transaction
    ├── CannotList                         this cache cannot say which keys it holds
    ├── DamagedEntry (ValueError)          bytes that are not an entry; counts as missing
    ├── CachedStepError                    stands for a stored exception whose class is not loaded here
    ├── ClassNotLoaded                     a stored value is of a class that is not loaded, or has changed, here
    ├── RunLost                            a run was given up, because its worker was lost each time
    ├── UnknownWorkflow (LookupError)      no workflow of that name is registered
    └── DuplicateWorkflow                  two workflows with a body under one name

    StepNotDeferred (UserWarning)          a step was given a value where a function belongs
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepflows.results import FailedStep

__all__ = [
    "CacheUnavailable",
    "CachedStepError",
    "CannotList",
    "ClassNotLoaded",
    "DamagedEntry",
    "DuplicateWorkflow",
    "InvalidOption",
    "InvalidStepKey",
    "InvalidUse",
    "NotCacheable",
    "RunLost",
    "StepDeadlock",
    "StepFailed",
    "StepKeyConflict",
    "StepNotDeferred",
    "StepflowsError",
    "UnknownWorkflow",
    "hint",
]


def hint(name: object, known: Iterable[str]) -> str:
    """The sentence for a name that is not known: what was meant, or what there is."""
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known are: {', '.join(names) or 'none'}."


class StepflowsError(Exception):
    """Base of all errors of stepflows."""


class InvalidUse(StepflowsError, TypeError):
    """The API was called in a way that can never work; a programming error, raised and never cached."""


class InvalidOption(InvalidUse, ValueError):
    """An option has the right type and an impossible value, such as a negative ``ttl``."""


class InvalidStepKey(StepflowsError, ValueError):
    """A key or a label that cannot be used."""


class StepKeyConflict(StepflowsError):
    """Two different labels were given to one key in one run."""


class StepFailed(StepflowsError):
    """A step returned ``Err(error)``. Raised in the body, which may catch it."""

    def __init__(self, error: Any, cause: Any = None, step: FailedStep | None = None) -> None:
        super().__init__(error, cause, step)
        self.error = error
        self.cause = cause
        self.step = step

    def __str__(self) -> str:
        where = f"step {self.step.label!r}" if self.step else "the workflow"
        if self.step and self.step.key is not None:
            where += f" (key {self.step.key!r})"
        return f"{where} failed with {self.error!r}"


class NotCacheable(StepflowsError):
    """A value cannot be kept so that it comes back as it was; nothing was stored.

    ``path`` is the place inside the value, such as ``["rows"][3].owner``, ``reason`` what is there and
    ``remedy`` what to return instead.
    """

    def __init__(self, reason: str, path: str = "", remedy: str = "", where: str = "") -> None:
        super().__init__(reason, path, remedy, where)
        self.reason = reason
        self.path = path
        self.remedy = remedy
        self.where = where

    def __str__(self) -> str:
        place = f" at value{self.path}" if self.path else ""
        subject = f"{self.where} returned a value that cannot be cached" if self.where else "The value cannot be cached"
        return f"{subject}: {self.reason}{place}." + (f" {self.remedy}" if self.remedy else "")

    def of(self, where: str) -> NotCacheable:
        """The same, naming the step."""
        return type(self)(self.reason, self.path, self.remedy, where)


class CacheUnavailable(StepflowsError):
    """The cache could not be reached or refused; its own exception is the ``__cause__``."""


class StepDeadlock(StepflowsError):
    """A step was waited for during an open transaction that keeps results of other steps from being stored.

    Whoever runs it may be waiting for those, so the wait ends after the length of a lease. When the transaction has
    rolled back, the run may be tried again. Never stored.
    """


class CannotList(StepflowsError):
    """This cache cannot say which keys it holds. Deleting by key works all the same."""


class DamagedEntry(StepflowsError, ValueError):
    """The bytes are no entry of this version of stepflows: damaged, foreign, forged or of a later format."""


class CachedStepError(StepflowsError):
    """Stands for a stored exception whose class is not loaded in this process (nothing is ever imported for it)."""

    def __init__(self, name: str, message: str = "") -> None:
        super().__init__(name, message)
        self.name = name
        self.message = message

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" if self.message else self.name


class ClassNotLoaded(StepflowsError):
    """A stored value is intact, but of a class that is not loaded here or has changed since.

    The step counts as done and is not run again: running it twice could charge twice. Import the class where the
    workflow is defined, or clear the key, or raise the workflow's ``version``.
    """

    def __init__(self, name: str, reason: str = "") -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"The stored value holds a {self.name}, which cannot be rebuilt here: {self.reason}. Import it where the "
            "workflow is defined, or clear the key, or raise the workflow's version."
        )


class RunLost(StepflowsError):
    """A run was given up after ``MAX_ATTEMPTS``, because its process or its task ended each time."""


class UnknownWorkflow(StepflowsError, LookupError):
    """No workflow of that name is registered."""


class DuplicateWorkflow(StepflowsError):
    """Two workflows with a body have one name."""


class StepNotDeferred(UserWarning):
    """A step was given a value that is already computed, so there was nothing left to cache."""
