"""A clear that goes on from one request to the next, so that none takes long and the person sees how far it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final, cast

from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.http import HttpRequest
from django.utils.translation import gettext, ngettext

from stepflows.admin import display
from stepflows.cachedsteps import Selection, remove
from stepflows.models import CachedStep

__all__ = ["Progress"]

_SESSION_KEY: Final = "stepflows_clearing"
#: Those that were left are forgotten after so many others.
_MOST_KEPT: Final = 10


@dataclass
class Progress:
    """How far the clear of a selection is. Each has one entry in the log, which tells at any time how many are gone."""

    selection: Selection
    #: How many there were in the beginning.
    total: int
    removed: int = 0
    #: The entry in the log, by which the clear is known from request to request.
    log: int | None = None
    is_over: bool = False

    @classmethod
    def kept(cls, request: HttpRequest, log: str) -> Progress | None:
        """The one that this person has begun and that is not over, if there is such."""
        found = request.session.get(_SESSION_KEY, {}).get(log)
        if found is None:
            return None
        selection = Selection(tuple(found["aliases"]), found["workflow"], found["prefix"])
        return cls(selection, found["total"], found["removed"], int(log))

    def go_on(self, request: HttpRequest, seconds: float) -> None:
        """Remove more, for about that long."""
        self.is_over, deadline = True, None
        try:
            for places in self.selection.walk():
                # Only from here on, because some caches take long to say what they hold and would never come further.
                deadline = deadline or time.monotonic() + seconds
                self.removed += remove(places)
                if time.monotonic() >= deadline:
                    self.is_over = False
                    break
        finally:
            # Also where the cache fails half-way: what is gone is gone.
            self._write_log(request)
            self._keep(request)

    def told(self, text: str) -> str:
        """A text with the number of those that are gone, and with what they are."""
        return text % {"count": display.number(self.removed), "what": str(self.selection)}

    def _write_log(self, request: HttpRequest) -> None:
        text = ngettext("%(count)s cached step (%(what)s)", "%(count)s cached steps (%(what)s)", self.removed)
        told = self.told(text)[:200]
        if self.log is not None and LogEntry.objects.filter(pk=self.log).update(object_repr=told):
            return
        entry = LogEntry.objects.create(
            user_id=cast("int", request.user.pk),
            content_type=ContentType.objects.get_for_model(CachedStep, for_concrete_model=False),
            object_repr=told,
            action_flag=DELETION,
            change_message=gettext("Cleared."),
        )
        self.log = entry.pk

    def _keep(self, request: HttpRequest) -> None:
        kept: dict[str, Any] = request.session.get(_SESSION_KEY, {})
        kept.pop(str(self.log), None)
        if not self.is_over:
            aliases, workflow, prefix = self.selection.aliases, self.selection.workflow, self.selection.prefix
            kept[str(self.log)] = {
                "aliases": aliases,
                "workflow": workflow,
                "prefix": prefix,
                "total": self.total,
                "removed": self.removed,
            }
        request.session[_SESSION_KEY] = dict(list(kept.items())[-_MOST_KEPT:])
