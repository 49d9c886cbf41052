"""Where the bars of a timeline lie: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Final

__all__ = ["Bar", "Tick", "Timeline", "lay_out", "seconds_of"]

#: Percent. What took no time can be seen and clicked nevertheless.
_NARROWEST: Final = 0.6
#: Seconds, some thirty million years. Nothing lasts longer.
_LONGEST: Final = 1e15
_TICKS: Final = 5
_MOST_LANES: Final = 6
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
#: What people count in between seconds and days.
_CLOCK: Final = (
    *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR for hours in (1, 2, 3, 6, 12)),
)


@dataclass(frozen=True)
class Bar:
    """One span in a row of its own. ``x`` and ``width`` are percent of the canvas."""

    #: Which of the given spans it is.
    index: int
    start: float
    duration: float
    x: float
    width: float

    #: Bars that overlap have different lanes, as far as there are enough.
    lane: int = 0

    @property
    def end(self) -> float:
        return self.x + self.width

    def text_at(self, room: float) -> tuple[float, bool]:
        """Where text that takes so much room (percent) is, and whether it ends there: on the bar if it fits, else
        behind it or before it; and where there is no room either, it begins or ends with the bar.
        """
        if self.width >= room:
            return self.x, False
        if self.end + room <= 100:
            return self.end, False
        if self.x >= room:
            return self.x, True
        return (self.x, False) if self.x + room <= 100 else (self.end, True)


@dataclass(frozen=True)
class Tick:
    """A mark on the axis."""

    seconds: float
    x: float


@dataclass(frozen=True)
class Timeline:
    """Bars from the top down, by their beginnings."""

    seconds: float
    bars: Sequence[Bar]
    ticks: Sequence[Tick]
    #: How many the bars need to lie beside each other, up to a few.
    lanes: int


def lay_out(spans: Sequence[tuple[Any, Any]], elapsed: Any = 0.0) -> Timeline:
    """Lay out spans, each a beginning and a duration in seconds; one without a duration goes on until the end.

    ``elapsed`` is how long it all has taken at least. Whatever is no number, or less than nothing, counts as zero.
    """
    starts = [seconds_of(start) for start, _ in spans]
    known = [start + seconds_of(duration) for start, (_, duration) in zip(starts, spans, strict=True)]
    total = max(known, default=0.0)
    total = max(total, seconds_of(elapsed))
    ends = [total if duration is None else end for end, (_, duration) in zip(known, spans, strict=True)]
    bars = [_bar(index, *span, total) for index, span in enumerate(zip(starts, ends, strict=True))]
    placed = _in_lanes(sorted(bars, key=lambda bar: (bar.start, bar.index)))
    return Timeline(total, placed, _ticks(total), max((bar.lane for bar in placed), default=0) + 1)


def seconds_of(value: Any) -> float:
    """A span of time as it can be drawn, whatever a row says: clocks jump, and rows are anybody's."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return 0.0
    return float(min(max(value, 0), _LONGEST))


def _bar(index: int, start: float, end: float, total: float) -> Bar:
    x = _percent(start, total)
    width = max(_percent(end, total) - x, _NARROWEST)
    return Bar(index, start, end - start, min(x, 100 - width), width)


def _in_lanes(bars: list[Bar]) -> list[Bar]:
    """Each in the first lane that is free when it begins; where none is, in the one that is free first."""
    free: list[float] = []
    placed = []
    for bar in bars:
        lane = next((lane for lane, end in enumerate(free) if end <= bar.start), len(free))
        if lane == _MOST_LANES:
            lane = free.index(min(free))
        free[lane : lane + 1] = [bar.start + bar.duration]
        placed.append(replace(bar, lane=lane))
    return placed


def _percent(seconds: float, total: float) -> float:
    return 0.0 if total <= 0 else min(100.0, 100 * (seconds / total))


def _ticks(total: float) -> list[Tick]:
    step = _step(total)
    marks = (count * step for count in range(2 * _TICKS)) if step else iter([0.0])
    return [Tick(seconds, _percent(seconds, total)) for seconds in takewhile(lambda mark: mark <= total, marks)]


def _step(total: float) -> float:
    """How far two marks are apart: a number that people like."""
    rough = total / _TICKS
    if rough == 0:
        return 0.0
    if rough <= _MINUTE / 2:
        return _smallest((1, 2, 5, 10), rough, 10 ** math.floor(math.log10(rough)))
    if rough <= _CLOCK[-1]:
        return next(step for step in (_MINUTE / 2, *_CLOCK) if step >= rough)
    return _smallest((1, 2, 5, 10), rough, _DAY * max(1, 10 ** math.floor(math.log10(rough / _DAY))))


def _smallest(factors: Iterable[int], rough: float, unit: float) -> float:
    return next((factor * unit for factor in factors if factor * unit >= rough), 10 * unit)
