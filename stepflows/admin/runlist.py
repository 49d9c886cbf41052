"""The list of runs: its filters, its search and its dates, at a cost that does not grow with the number of runs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, Final
from uuid import UUID

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import formats, timezone
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from stepflows.models import Run

__all__ = ["RunList", "WorkflowFilter", "ids_beginning"]

#: What may be large and is not listed.
_LARGE: Final = ("arguments", "outcome", "steps", "history")
_MOST_WORKFLOWS: Final = 200
_DATE: Final = "created_at"
_PARTS: Final = ("year", "month", "day")


class WorkflowFilter(SimpleListFilter):
    """One of the workflows that have runs."""

    title = _("workflow")
    parameter_name = "workflow"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = _workflows(model_admin.get_queryset(request))
        return [(name, name) for name, _number in zip(names, range(_MOST_WORKFLOWS), strict=False)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.value() is None else queryset.filter(workflow=self.value())


class RunList(ChangeList):
    """Counts and pages as any list does, and shows dates without looking at every row for them."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        return super().get_queryset(request, exclude_parameters).defer(*_LARGE)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.queryset.query.where:
            # Nothing is left out, so they need not be counted twice.
            self.full_result_count = self.result_count

    @property
    def hierarchy(self) -> dict[str, Any]:
        """The years, months or days between the first and the last run: what Django's own tag makes of all rows."""
        first, last = self._ends()
        given = (self.params.get(f"{_DATE}__{part}") or "" for part in _PARTS)
        parts = [int(part) for part in takewhile(bool, given)]
        name = {"field_name": Run._meta.get_field(_DATE).verbose_name}  # which Django shows since version 6.1
        if first is None or last is None:
            return {"show": bool(parts), "back": self._back(parts), **name} if parts else {}
        if not parts and first.year == last.year:
            parts = [first.year]
            if first.month == last.month:
                parts.append(first.month)
        return {"show": True, "back": self._back(parts), "choices": list(self._choices(parts, first, last)), **name}

    def _ends(self) -> tuple[dt.datetime | None, dt.datetime | None]:
        """When the first and the last of the runs that are listed were made."""
        if not self.multi_page:
            # They are here already; a search need not go through all rows twice more.
            moments = [run.created_at for run in self.result_list]
            return (_local(min(moments)), _local(max(moments))) if moments else (None, None)
        moments = self.queryset.values_list(_DATE, flat=True)
        return _local(moments.order_by(_DATE).first()), _local(moments.order_by(f"-{_DATE}").first())

    def _choices(self, parts: list[int], first: dt.datetime, last: dt.datetime) -> Iterator[dict[str, Any]]:
        if not parts:
            for year in range(first.year, last.year + 1):
                yield {"link": self._link(year), "title": str(year)}
        elif len(parts) == 1:
            for month in range(first.month, last.month + 1):
                yield {"link": self._link(*parts, month), "title": _title("YEAR_MONTH_FORMAT", [*parts, month])}
        elif len(parts) == 2:
            for day in range(first.day, last.day + 1):
                yield {"link": self._link(*parts, day), "title": _title("MONTH_DAY_FORMAT", [*parts, day])}
        else:
            yield {"title": _title("MONTH_DAY_FORMAT", parts)}

    def _back(self, parts: list[int]) -> dict[str, str] | None:
        if not parts:
            return None
        titles = [gettext("All dates"), str(parts[0]), _title("YEAR_MONTH_FORMAT", parts[:2])]
        return {"link": self._link(*parts[:-1]), "title": titles[len(parts) - 1]}

    def _link(self, *parts: int) -> str:
        names = (f"{_DATE}__{part}" for part in _PARTS)
        return self.get_query_string(dict(zip(names, parts, strict=False)), [f"{_DATE}__"])


def ids_beginning(text: str) -> tuple[UUID, UUID] | None:
    """The first and the last id that begins so, with hyphens or without; ``None`` if none does."""
    digits = text.replace("-", "").lower()
    if not digits or len(digits) > 32 or set(digits) - set("0123456789abcdef"):
        return None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


def _workflows(runs: QuerySet[Run]) -> Iterator[str]:
    """Their workflows by name. Each is looked up in the index behind the one before, whatever number of runs it has."""
    names = runs.order_by("workflow").values_list("workflow", flat=True)
    name = names.first()
    while name is not None:
        yield name
        name = names.filter(workflow__gt=name).first()


def _local(moment: dt.datetime | None) -> dt.datetime | None:
    return timezone.localtime(moment) if moment and timezone.is_aware(moment) else moment


def _title(form: str, parts: Sequence[int]) -> str:
    year, month, day = [*parts, 1, 1][:3]
    return str(capfirst(formats.date_format(dt.date(year, month, day), form)))
