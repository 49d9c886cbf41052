"""How the admin writes outcomes, times, spans and sizes."""

from __future__ import annotations

from datetime import datetime
from math import isfinite
from typing import Final, cast

from django.template.defaultfilters import filesizeformat
from django.templatetags.static import static
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import ngettext_lazy

__all__ = ["EMPTY", "ago", "exact", "icon", "isolated", "number", "size", "span", "until"]


#: What stands where there is nothing, in lists and on pages alike.
EMPTY: Final = "-"

# Whole phrases, because "2 days" is another word in "2 days ago" in many a language.
_AGO: Final = cast(
    "dict[str, str]",
    {
        "year": ngettext_lazy("%(num)d year ago", "%(num)d years ago", "num"),
        "month": ngettext_lazy("%(num)d month ago", "%(num)d months ago", "num"),
        "week": ngettext_lazy("%(num)d week ago", "%(num)d weeks ago", "num"),
        "day": ngettext_lazy("%(num)d day ago", "%(num)d days ago", "num"),
        "hour": ngettext_lazy("%(num)d hour ago", "%(num)d hours ago", "num"),
        "minute": ngettext_lazy("%(num)d minute ago", "%(num)d minutes ago", "num"),
    },
)
_IN: Final = cast(
    "dict[str, str]",
    {
        "year": ngettext_lazy("in %(num)d year", "in %(num)d years", "num"),
        "month": ngettext_lazy("in %(num)d month", "in %(num)d months", "num"),
        "week": ngettext_lazy("in %(num)d week", "in %(num)d weeks", "num"),
        "day": ngettext_lazy("in %(num)d day", "in %(num)d days", "num"),
        "hour": ngettext_lazy("in %(num)d hour", "in %(num)d hours", "num"),
        "minute": ngettext_lazy("in %(num)d minute", "in %(num)d minutes", "num"),
    },
)


def ago(moment: datetime | None) -> str:
    """How long ago a moment was, and when exactly."""
    if moment is None:
        return EMPTY
    seconds = (datetime.now(moment.tzinfo) - moment).total_seconds()
    text = _("just now") if seconds < 60 else timesince(moment, time_strings=_AGO, depth=1)
    return _time(moment, text)


def until(moment: datetime | None) -> str:
    """In how long a moment is, and when exactly; no moment is never."""
    return _time(moment, timeuntil(moment, time_strings=_IN, depth=1)) if moment else _("never")


def exact(moment: datetime | None) -> str:
    """The moment in the site's format and time zone."""
    if moment is None:
        return EMPTY
    local = timezone.localtime(moment) if timezone.is_aware(moment) else moment
    return f"{formats.date_format(local, 'DATE_FORMAT')}, {formats.date_format(local, 'H:i:s')}"


def span(seconds: float | None) -> str:
    """A span of time, as exactly as one wants to know it."""
    if seconds is None or not isfinite(seconds):
        return EMPTY
    if seconds < 1:
        return _("%(count)s ms") % {"count": formats.number_format(seconds * 1000, 0 if seconds >= 0.01 else 1)}
    if seconds < 60:
        return _("%(count)s s") % {"count": formats.number_format(seconds, 1)}
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return _("%(minutes)s min %(seconds)s s") % {"minutes": minutes, "seconds": rest}
    hours, minutes = divmod(minutes, 60)
    return _("%(hours)s h %(minutes)s min") % {"hours": number(hours), "minutes": minutes}


def size(count: int | None) -> str:
    """A number of bytes."""
    return EMPTY if count is None else filesizeformat(count)


def number(count: int) -> str:
    """A number with the thousands set apart."""
    return formats.number_format(count, force_grouping=True)


def icon(name: str, text: str) -> SafeString:
    """One of Django's own icons (``yes``, ``no``, ``alert``, ``unknown``) with its meaning as text beside it."""
    source = static(f"admin/img/icon-{name}.svg")
    return format_html('<span class="stepflows-outcome"><img src="{}" alt=""> {}</span>', source, text)


def isolated(text: str | None) -> str:
    """Text of somebody's, which may run from right to left without taking its surroundings along."""
    if not text:
        return EMPTY
    return format_html('<bdi class="stepflows-text">{}</bdi>', text)


def _time(moment: datetime, text: str) -> SafeString:
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), exact(moment), text)
