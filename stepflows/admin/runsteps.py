"""The steps of a run as a timeline and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from django.core.cache.backends.base import BaseCache
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from stepflows import conf
from stepflows.admin import display
from stepflows.admin.timeline import Bar, lay_out, seconds_of
from stepflows.cachedsteps import Place
from stepflows.caches import StepCache
from stepflows.caches.names import Name
from stepflows.errors import UnknownWorkflow
from stepflows.models import Run
from stepflows.registry import registry

__all__ = ["Links", "ShownStep", "Steps", "place_in"]

#: Of each outcome its icon, and what it means.
OUTCOMES: Final = {
    "executed": ("yes", _("executed")),
    "cached": ("yes", _("from the cache")),
    "waited": ("yes", _("done by another run")),
    "running": ("clock", _("under way")),
    "interrupted": ("alert", _("broken off")),
    "error": ("no", _("error")),
    "replayed_error": ("no", _("error from the cache")),
}
#: More than this makes a page slow.
_MOST: Final = 1000
#: Steps; a longer table is folded.
_FOLDED: Final = 30
#: Steps; a longer timeline scrolls, and above it there is all of it at a glance.
_GLANCED: Final = 40
#: Pixels.
_ROW: Final = 24
#: Characters of a label that are drawn on a bar, and in the table.
_LABEL: Final = 32
_CELL: Final = 300
#: Percent of the narrowest timeline that a letter takes.
_LETTER: Final = 1.4


def place_in(run: Run) -> Callable[[str], Place | None]:
    """Where the steps of a run lie in the caches, if that is anywhere where they can be looked at."""
    try:
        cache = registry.get(run.workflow).cache
    except UnknownWorkflow:
        return lambda _key: None
    if not isinstance(cache, StepCache) or isinstance(cache.alias, BaseCache):
        return lambda _key: None
    alias, scope = cache.alias or conf.settings().CACHE, cache.scope
    return lambda key: Place(alias, Name(scope, key))


class Links(NamedTuple):
    """Where a key can be followed to; each gives an address, or nothing."""

    step: Callable[[str], str]
    again: Callable[[str], str]


class ShownStep:
    """One step, as its row in the table and its bar tell of it."""

    def __init__(self, step: Any, links: Links) -> None:
        given = step if isinstance(step, dict) else {}
        self.label = str(given.get("label") or "")
        self.key = str(given.get("key") or "")
        self.outcome = str(given.get("outcome") or "")
        self.offset = seconds_of(given.get("offset"))
        self.seconds = None if self.outcome == "running" else seconds_of(given.get("duration"))
        self.attempt = given.get("attempt")
        self.step_url = links.step(self.key) if self.key and self.outcome != "running" else ""
        self.again_url = links.again(self.key) if self.key else ""

    @property
    def name(self) -> str:
        return self.label or self.key or gettext("(no label)")

    @property
    def outcome_text(self) -> str:
        return str(OUTCOMES[self.outcome][1]) if self.outcome in OUTCOMES else self.outcome

    @property
    def outcome_icon(self) -> SafeString:
        return display.icon(OUTCOMES.get(self.outcome, ("unknown",))[0], self.outcome_text)

    @property
    def css(self) -> str:
        return self.outcome if self.outcome in OUTCOMES else "other"

    @property
    def label_cell(self) -> str:
        return display.isolated(Truncator(self.label).chars(_CELL))

    @property
    def key_cell(self) -> str:
        key = display.isolated(Truncator(self.key).chars(_CELL))
        return format_html('<a href="{}">{}</a>', self.step_url, key) if self.step_url else key

    @property
    def began(self) -> str:
        return display.span(self.offset)

    @property
    def duration(self) -> str:
        return display.EMPTY if self.is_instant else display.span(self.seconds)

    @property
    def is_instant(self) -> bool:
        """Whether it took no time, because its result was there."""
        return self.outcome in ("cached", "replayed_error") and not self.seconds


class DrawnBar:
    """A bar in the SVG. Numbers are text already, since templates write numbers as people do."""

    def __init__(self, bar: Bar, row: int, step: ShownStep, steps: str) -> None:
        self.step = step
        self.id = f"stepflows-{steps}-{bar.index}"
        sign = "✕ " if step.outcome in ("error", "replayed_error") else ""
        self.text = sign + Truncator(step.name).chars(_LABEL)
        self.took = "" if step.is_instant else display.span(bar.duration if step.seconds is None else step.seconds)
        self.x, self.width = f"{bar.x:.3f}%", f"{bar.width:.3f}%"
        self.top, self.baseline = str(row * _ROW + 2), str(row * _ROW + 16)
        text_x, self.hangs_left = bar.text_at(_LETTER * (len(self.text) + len(self.took) + 2))
        self.text_x = f"{text_x:.3f}%"
        self.lane = str(bar.lane)

    @property
    def title(self) -> str:
        parts = [self.step.name, self.step.key if self.step.key != self.step.name else "", self.step.outcome_text]
        after = gettext("after %(time)s") % {"time": self.step.began}
        return ", ".join(filter(None, [*parts, self.took, after]))


class DrawnTick(NamedTuple):
    x: str
    text: str
    anchor: str


class Legend(NamedTuple):
    outcome: str
    text: str


class Steps:
    """The steps of one attempt: a timeline, and a table."""

    def __init__(self, steps: Any, links: Links, *, name: str, taken: float | None = None) -> None:
        every = [ShownStep(step, links) for step in steps] if isinstance(steps, list) else []
        self.name = name
        self.count = len(every)
        self.all = _those_that_matter(every)
        spans = [(step.offset, step.seconds) for step in self.all]
        drawn = lay_out(spans, taken)
        self.bars = [DrawnBar(bar, row, self.all[bar.index], name) for row, bar in enumerate(drawn.bars)]
        self.ticks = [DrawnTick(f"{tick.x:.3f}%", _tick_text(tick.seconds), _anchor(tick.x)) for tick in drawn.ticks]
        self.legend = _legend(every)
        self.total = display.span(drawn.seconds)
        self.lanes = str(drawn.lanes)

    @property
    def shown_count(self) -> str:
        return display.number(self.count)

    @property
    def left_out(self) -> str:
        return display.number(self.count - len(self.all)) if self.count > len(self.all) else ""

    @property
    def height(self) -> str:
        return str(_ROW * max(1, len(self.bars)))

    @property
    def is_long(self) -> bool:
        return len(self.bars) > _GLANCED

    @property
    def is_folded(self) -> bool:
        return self.count > _FOLDED

    @property
    def has_again(self) -> bool:
        return any(step.again_url for step in self.all)


def _those_that_matter(steps: list[ShownStep]) -> Sequence[ShownStep]:
    """All of them if they are not too many; else those that failed or are under way, and the longest."""
    if len(steps) <= _MOST:
        return steps
    calm = ("executed", "cached", "waited")
    ranked = sorted(range(len(steps)), key=lambda at: (steps[at].outcome in calm, -(steps[at].seconds or 0)))
    return [steps[at] for at in sorted(ranked[:_MOST])]


def _tick_text(seconds: float) -> str:
    return display.span(seconds) if seconds else "0"


def _anchor(x: float) -> str:
    return "start" if x < 2 else "end" if x > 96 else "middle"


def _legend(steps: Sequence[ShownStep]) -> list[Legend]:
    counts = Counter(step.css for step in steps)
    texts = {name: str(text) for name, (_icon, text) in OUTCOMES.items()} | {"other": gettext("other")}
    order = sorted(counts, key=[*texts].index)
    return [Legend(name, f"{display.number(counts[name])} {texts[name]}") for name in order]
