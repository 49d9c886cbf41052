"""Where the bars of a timeline lie."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepflows.admin.timeline import lay_out, seconds_of

NUMBERS = st.one_of(st.floats(), st.integers(), st.none(), st.booleans(), st.text(max_size=3))
LENGTHS = st.floats(min_value=0, max_value=1e9)


def _places(*spans: Any, elapsed: Any = 0) -> list[tuple[int, float, float]]:
    """Which span is drawn in each row, and from where to where."""
    return [(bar.index, round(bar.x, 2), round(bar.end, 2)) for bar in lay_out(spans, elapsed).bars]


def test_each_span_is_a_bar_in_proportion_to_its_time():
    """From its beginning to its end, on a canvas that ends with the last."""
    assert _places((0, 1), (1, 2), (1, 3)) == [(0, 0, 25), (1, 25, 75), (2, 25, 100)]


def test_bars_are_sorted_by_their_beginning():
    """Spans come in the order in which they ended."""
    assert _places((5, 1), (0, 10)) == [(1, 0, 100), (0, 50, 60)]


def test_the_canvas_is_as_long_as_it_all_took():
    """Also where nothing was a step."""
    assert _places((0, 1), elapsed=4) == [(0, 0, 25)]


def test_a_span_that_has_not_ended_goes_on_until_now():
    """It is under way."""
    assert _places((1, None), (0, 1), elapsed=4) == [(1, 0, 25), (0, 25, 100)]


def test_what_took_no_time_can_be_seen():
    """At the end of the canvas too."""
    drawn = lay_out([(0, 0), (10, 0), (0, 10)])
    assert all(bar.width > 0.5 for bar in drawn.bars)
    assert max(bar.end for bar in drawn.bars) == 100


def test_nothing_at_all_is_an_empty_canvas():
    """A run without steps."""
    drawn = lay_out([])
    assert (drawn.bars, drawn.seconds, drawn.lanes) == ([], 0, 1)


@pytest.mark.parametrize("value", [None, "1", True, math.nan, -1, -math.inf, [], {}])
def test_what_is_no_span_of_time_counts_as_none(value: Any):
    """Clocks jump, and a row may hold anything."""
    assert seconds_of(value) == 0


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=30), NUMBERS)
def test_bars_never_leave_the_canvas(spans: list[tuple[Any, Any]], elapsed: Any):
    """Whatever the numbers are: all finite, in order, one bar for each."""
    drawn = lay_out(spans, elapsed)
    assert sorted(bar.index for bar in drawn.bars) == list(range(len(spans)))
    for bar in drawn.bars:
        assert all(map(math.isfinite, (bar.x, bar.width, bar.start, bar.duration)))
        assert bar.x >= 0
        assert bar.width > 0
        assert bar.end <= 100.000001
        assert bar.duration >= 0
        assert 0 <= bar.lane < drawn.lanes <= 6
    assert [bar.start for bar in drawn.bars] == sorted(bar.start for bar in drawn.bars)


@given(st.lists(st.tuples(LENGTHS, LENGTHS), min_size=2, max_size=6))
def test_bars_that_overlap_have_lanes_of_their_own(spans: list[tuple[float, float]]):
    """As long as they are few."""
    bars = lay_out(spans).bars
    for position, bar in enumerate(bars):
        for other in bars[position + 1 :]:
            assert bar.lane != other.lane or bar.start + bar.duration <= other.start


@given(st.floats(0, 50), LENGTHS, LENGTHS, LENGTHS)
def test_text_that_takes_half_of_the_canvas_stays_on_it(room: float, start: float, took: float, elapsed: float):
    """Wherever its bar is."""
    [bar] = lay_out([(start, took)], elapsed).bars
    x, ends_there = bar.text_at(room)
    assert (x - room if ends_there else 100 - x - room) >= -0.000001


def test_text_is_on_its_bar_or_beside_it():
    """On it if it fits, else behind it, else before it."""
    drawn = lay_out([(0, 10), (0, 1), (9, 1), (3.5, 3)])
    places = {bar.index: bar.text_at(40) for bar in drawn.bars}
    assert places == {0: (0, False), 1: (10, False), 2: (90, True), 3: (35, False)}


@pytest.mark.parametrize(
    ("seconds", "marks"),
    [
        (0, [0]),
        (0.004, [0, 0.001, 0.002, 0.003, 0.004]),
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (7, [0, 2, 4, 6]),
        (100, [0, 20, 40, 60, 80, 100]),
        (250, [0, 60, 120, 180, 240]),
        (3600, [0, 900, 1800, 2700, 3600]),
        (86_400 * 2, [0, 43_200, 86_400, 129_600, 172_800]),
        (86_400 * 14, [0, 432_000, 864_000]),
    ],
)
def test_marks_are_at_numbers_that_people_like(seconds: float, marks: list[float]):
    """Fractions of seconds, minutes and hours as a clock has them, days."""
    assert [tick.seconds for tick in lay_out([(0, seconds)]).ticks] == pytest.approx(marks)


@given(st.floats(min_value=0, allow_nan=False))
def test_there_are_a_few_marks_however_long_it_takes(seconds: float):
    """On the canvas, and never more than a dozen."""
    ticks = lay_out([(0, seconds)]).ticks
    assert 1 <= len(ticks) <= 12
    assert all(0 <= tick.x <= 100 for tick in ticks)
