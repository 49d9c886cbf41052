"""Removing many cached steps at once: first what, then how many and whether for certain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext, ngettext

from stepflows.admin import display
from stepflows.admin.clearform import ClearForm, clear_query
from stepflows.admin.listing import cached_steps
from stepflows.admin.progress import Progress
from stepflows.admin.unavailable import asking_caches
from stepflows.cachedsteps import Selection
from stepflows.models import CachedStep

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[CachedStep]
else:
    ModelAdmin = admin.ModelAdmin

__all__ = ["ClearingAdmin"]


class ClearingAdmin(ModelAdmin):
    """The Clear… page: GET asks, first what and then whether; only POST removes, some seconds' worth at a time."""

    #: For how long one request removes steps, before a page tells how far it is.
    clear_seconds = 2.0

    def has_clear_permission(self, request: HttpRequest) -> bool:
        """Whether whole workflows, prefixes and caches may be cleared."""
        codename = get_permission_codename("clear", self.opts)
        return bool(request.user.has_perm(f"{self.opts.app_label}.{codename}"))

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_clear"
        return [path("clear/", self.admin_site.admin_view(self.clear_view), name=name), *super().get_urls()]

    @asking_caches
    def clear_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_clear_permission(request):
            raise PermissionDenied
        if "clearing" in request.POST:
            return self._clear_more(request, request.POST["clearing"])
        form = self._clear_form(request)
        if not form.is_valid():
            return self._clear_page(request, "clear", form=form)
        selection = form.selection()
        if request.method == "POST":
            return self._clear(request, Progress(selection, selection.count))
        return self._clear_page(
            request,
            "clear_confirmation",
            selection=selection,
            count=selection.count,
            shown_count=display.number(selection.count),
            fields=form.cleaned_data,
            query=clear_query(selection),
        )

    def _clear_form(self, request: HttpRequest) -> ClearForm:
        data, selection = request.POST or request.GET, cached_steps(self.get_queryset(request)).selection
        chosen = (data["cache"],) if data.get("cache") in selection.aliases else selection.aliases
        complete = request.method == "POST" or ("scope" in data and "cache" in data and "change" not in data)
        workflows = Selection(chosen).workflows
        return ClearForm(selection.aliases, workflows, data if complete else None, initial=data.dict())

    def _clear_more(self, request: HttpRequest, name: str) -> HttpResponse:
        progress = Progress.kept(request, name)
        if progress is not None:
            return self._clear(request, progress)
        # A page from before, found again by going back. What was stored since then, nobody has agreed to remove.
        self.message_user(request, gettext("This clear has come to its end already."), messages.WARNING)
        return self._cleared(request)

    def _clear(self, request: HttpRequest, progress: Progress) -> HttpResponse:
        try:
            progress.go_on(request, self.clear_seconds)
        finally:
            if progress.is_over:
                text = ngettext(
                    "%(count)s cached step was removed: %(what)s.",
                    "%(count)s cached steps were removed: %(what)s.",
                    progress.removed,
                )
                self.message_user(request, progress.told(text), messages.SUCCESS)
        if progress.is_over:
            return self._cleared(request)
        total = max(progress.total, progress.removed)
        return self._clear_page(
            request,
            "clear_progress",
            progress=progress,
            total=total,
            shown_removed=display.number(progress.removed),
            shown_total=display.number(total),
        )

    def _cleared(self, request: HttpRequest) -> HttpResponse:
        page = "stepflows_cachedstep_changelist" if self.has_view_permission(request) else "index"
        return HttpResponseRedirect(reverse(f"admin:{page}", current_app=self.admin_site.name))

    def _clear_page(self, request: HttpRequest, name: str, **context: Any) -> HttpResponse:
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            f"admin/stepflows/cachedstep/{name}.html",
            {
                **self.admin_site.each_context(request),
                "title": gettext("Clear cached steps"),
                "opts": self.opts,
                "media": self.media,
                "has_view_permission": self.has_view_permission(request),
                **context,
            },
        )
