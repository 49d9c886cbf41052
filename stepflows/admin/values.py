"""Values, results and errors as text that a person reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pprint import pformat
from typing import Any, Final

from django.utils.translation import gettext as _

from stepflows.cachedsteps import printable
from stepflows.engine.cache import Damaged, Missing
from stepflows.errors import CachedStepError, ClassNotLoaded
from stepflows.results import Err, Ok

__all__ = ["Shown", "shown_outcome", "shown_value"]

#: Characters. Laying out more than this takes seconds.
_LAID_OUT: Final = 100_000
#: Characters. More than this makes a browser slow.
_CUT: Final = 500_000
_FOLDED_LINES: Final = 40
_FOLDED_CHARACTERS: Final = 4_000
#: What is shown of a folded one.
_FIRST_LINES: Final = 8
_FIRST_CHARACTERS: Final = 800


@dataclass(frozen=True)
class Shown:
    """One thing on a page: what it is, its type, and its text."""

    title: str
    type: str
    text: str
    #: Whether the text is about the value, because the value cannot be had.
    is_note: bool = False
    #: Characters that were left out at the end.
    cut: int = 0
    #: Where an exception was raised, innermost last.
    origin: Sequence[str] = ()

    @property
    def lines(self) -> int:
        return self.text.count("\n") + 1

    @property
    def is_folded(self) -> bool:
        """Whether it is too long to be shown unasked."""
        return self.lines > _FOLDED_LINES or len(self.text) > _FOLDED_CHARACTERS

    @property
    def beginning(self) -> str:
        """As much of it as is shown unasked."""
        return "\n".join(self.text[:_FIRST_CHARACTERS].split("\n")[:_FIRST_LINES])


def shown_outcome(found: Ok[Any] | Err | Damaged | Missing | None, origin: Sequence[str] = ()) -> list[Shown]:
    """What lies under a key, or what a run came to; and where it was raised, if it is an exception."""
    if isinstance(found, Ok):
        return [shown_value(_("Value"), found.value)]
    if isinstance(found, Damaged):
        return [Shown(_("Damaged entry"), "", _damage(found), is_note=True)]
    if not isinstance(found, Err):
        return []
    if isinstance(found.error, ClassNotLoaded):
        return [Shown(_("Value"), _part_of(found.error, "name"), _text_of(found.error), is_note=True)]
    parts = [replace(_shown_error(_("Error"), found.error), origin=list(map(printable, origin)))]
    return parts if found.cause is None else [*parts, _shown_error(_("Cause"), found.cause)]


def shown_value(title: str, value: Any) -> Shown:
    """A value as Python would write it, so that its types are visible."""
    try:
        text = repr(value)
        if len(text) <= _LAID_OUT:
            text = pformat(value, width=100, sort_dicts=False)
    except Exception as error:
        note = _("Its repr() failed: %(error)s") % {"error": f"{type(error).__name__}: {error}"}
        return Shown(title, _type_name(value), printable(note), is_note=True)
    return Shown(title, _type_name(value), printable(text[:_CUT]), cut=max(0, len(text) - _CUT))


def _shown_error(title: str, error: Any) -> Shown:
    if not isinstance(error, BaseException):
        return shown_value(title, error)
    if isinstance(error, CachedStepError):
        return Shown(title, _part_of(error, "name"), _part_of(error, "message"))
    return Shown(title, _type_name(error), _text_of(error))


def _text_of(error: BaseException) -> str:
    try:
        message = str(error) or repr(error)
    except Exception as failure:
        message = _("Its str() failed: %(error)s") % {"error": f"{type(failure).__name__}: {failure}"}
    return printable(message)[:_CUT]


def _part_of(error: BaseException, name: str) -> str:
    """One of its texts, which it may lack if it was not made by its class but by whoever wrote the entry."""
    part = getattr(error, name, "")
    return printable(part)[:_CUT] if isinstance(part, str) else ""


def _damage(found: Damaged) -> str:
    return printable(
        _(
            "What lies under this key cannot be read: %(reason)s. It counts as missing, so the step runs again when it "
            "is next asked for. You can delete it."
        )
        % {"reason": found.reason}
    )


def _type_name(value: Any) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
