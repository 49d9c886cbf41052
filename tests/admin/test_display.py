"""How times, spans, sizes and numbers are written."""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone, translation
from pytest_django.fixtures import Settings

from stepflows.admin import display

ZONE = dt.timezone(dt.timedelta(hours=9))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0.0 ms"),
        (0.0004, "0.4 ms"),
        (0.0123, "12 ms"),
        (0.9, "900 ms"),
        (1, "1.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (75.4, "1 min 15 s"),
        (3600, "1 h 0 min"),
        (1_000_000, "277 h 46 min"),
    ],
)
def test_a_span_is_as_exact_as_one_wants_it(seconds: float | None, text: str):
    """Milliseconds for short ones, hours for long ones."""
    assert display.span(seconds) == text


def test_numbers_follow_the_language(settings: Settings):
    """As all of the admin does."""
    with translation.override("de"):
        assert display.number(1234567) == "1.234.567"
        assert display.span(1.5) == "1,5 s"


def test_a_moment_ago_is_just_now_and_the_future_too():
    """Clocks of two machines differ by a little."""
    now = timezone.now()
    assert ">just now</time>" in display.ago(now)
    assert ">just now</time>" in display.ago(now + dt.timedelta(seconds=5))
    assert ">1\xa0minute\xa0ago</time>" in display.ago(now - dt.timedelta(seconds=61))


def test_the_exact_moment_is_told_in_the_sites_zone():
    """Also where moments have no zone."""
    moment = dt.datetime(2026, 1, 2, 20, 4, 5, tzinfo=dt.UTC)
    with timezone.override(ZONE):
        assert display.exact(moment) == "Jan. 3, 2026, 05:04:05"
        assert 'title="Jan. 3, 2026, 05:04:05"' in display.ago(moment)
    assert display.exact(moment.replace(tzinfo=None)) == "Jan. 2, 2026, 20:04:05"


def test_nothing_is_written_as_nothing():
    """In the same way everywhere; no end is never."""
    assert {display.ago(None), display.exact(None), display.size(None), display.isolated(None)} == {display.EMPTY}
    assert display.until(None) == "never"


def test_text_of_others_is_escaped_and_isolated():
    """It may run from right to left."""
    assert display.isolated("<b>") == '<bdi class="stepflows-text">&lt;b&gt;</bdi>'


def test_an_icon_has_its_meaning_beside_it():
    """Colour alone tells nothing to many."""
    assert 'alt=""> &lt;ok&gt;</span>' in display.icon("yes", "<ok>")
