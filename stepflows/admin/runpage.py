"""What the page of one run says beside its steps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from stepflows.admin import display
from stepflows.admin.runsteps import Links, Steps
from stepflows.admin.values import Shown, shown_outcome, shown_value
from stepflows.cachedsteps import printable
from stepflows.errors import StepflowsError
from stepflows.models import Run

__all__ = ["Attempt", "Fact", "attempts_of", "elapsed", "facts_of", "shown_state", "values_of"]

#: What :mod:`stepflows.recovery` writes into the history.
_LOST: Final = re.compile(r"not heard of for (\S+) s")


def elapsed(run: Run) -> float | None:
    """Seconds that the latest attempt took, or has taken so far."""
    if run.started_at is None:
        return None
    now = datetime.now(run.started_at.tzinfo)
    return max(0.0, ((run.finished_at or now) - run.started_at).total_seconds())


def shown_state(run: Run) -> SafeString:
    return format_html('<span class="stepflows-state {}">{}</span>', run.state, run.get_state_display())


# Attempts.


@dataclass(frozen=True)
class Attempt:
    """An earlier attempt at the run."""

    number: int
    worker: str
    started: str
    took: str
    reason: str
    steps: Steps


def attempts_of(run: Run, links: Links) -> list[Attempt]:
    """Those before the latest one, which the page itself is about; the latest of them first."""
    history = run.history if isinstance(run.history, list) else []
    given = [attempt for attempt in history if isinstance(attempt, dict)]
    return [_attempt(number, attempt, links) for number, attempt in enumerate(given, 1)][::-1]


def _attempt(number: int, given: dict[str, Any], links: Links) -> Attempt:
    started, ended = _moment(given.get("started_at")), _moment(given.get("ended_at"))
    taken = _between(started, ended)
    return Attempt(
        number,
        display.isolated(str(given.get("worker") or "")),
        display.exact(started),
        display.span(taken),
        display.isolated(_reason(str(given.get("reason") or ""))),
        Steps(given.get("steps"), links, name=f"attempt-{number}", taken=taken),
    )


def _reason(reason: str) -> str:
    """Why an attempt ended: a state or a loss, of which there are translations, or an exception's text."""
    if lost := _LOST.fullmatch(reason):
        return gettext("not heard of for %(seconds)s s") % {"seconds": lost[1]}
    return str(dict(Run.State.choices).get(reason, reason))


def _moment(text: Any) -> datetime | None:
    try:
        return parse_datetime(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _between(started: datetime | None, ended: datetime | None) -> float | None:
    if started is None or ended is None or timezone.is_aware(started) is not timezone.is_aware(ended):
        return None
    return max(0.0, (ended - started).total_seconds())


# Facts, arguments and results.


class Fact(NamedTuple):
    name: str
    text: str


def facts_of(run: Run) -> list[Fact]:
    """What the row says in a word each, without what it does not say."""
    return [Fact(str(name), text) for name, text in _facts(run) if text not in ("", display.EMPTY)]


def _facts(run: Run) -> Iterator[tuple[Any, str]]:
    yield _("State"), shown_state(run)
    yield _("Duration"), display.span(elapsed(run))
    yield _("Failed in step"), _failed_in(run)
    yield _("Steps"), _counted(run)
    yield _("Attempts"), display.number(run.attempts)
    yield _("Worker"), display.isolated(run.worker)
    yield _("Workflow"), display.isolated(run.workflow)
    yield _("Created"), display.exact(run.created_at)
    yield _("Started"), display.exact(run.started_at)
    yield _("Finished"), display.exact(run.finished_at)
    yield _("Queue"), display.isolated(run.queue)
    yield _("Priority"), display.EMPTY if run.priority is None else display.number(run.priority)
    if run.state == Run.State.QUEUED:
        yield _("Sent again unless taken by"), display.exact(run.due_at)
    elif run.state == Run.State.RUNNING:
        yield _("Lost unless heard of by"), display.exact(run.due_at)


def _counted(run: Run) -> str:
    if not run.executed and not run.cached:
        return display.EMPTY
    counts = {"executed": display.number(run.executed), "cached": display.number(run.cached)}
    return gettext("%(executed)s executed, %(cached)s cached") % counts


def _failed_in(run: Run) -> str:
    if not run.failed_step:
        return display.EMPTY
    label, key, replayed = run.failed_step
    origin = gettext("replayed from the cache") if replayed else ""
    return format_html("{} {} {}", display.isolated(label), display.isolated(key) if key else "", origin)


def values_of(run: Run) -> list[Shown]:
    """The result or the error, and the arguments."""
    result = None if run.state == Run.State.CANCELLED else run.result
    return [*shown_outcome(result), *_arguments(run)]


def _arguments(run: Run) -> list[Shown]:
    try:
        args, kwargs = run.args, run.kwargs
    except StepflowsError as error:
        return [Shown(gettext("Arguments"), "", printable(str(error)), is_note=True)]
    shown = [shown_value(gettext("Arguments"), kwargs or args)]
    return [shown_value(gettext("Positional arguments"), args), *shown] if args and kwargs else shown
