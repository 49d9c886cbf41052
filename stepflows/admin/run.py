"""The admin of runs: what workers did and do, and what can be done about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from stepflows.admin import display, runpage
from stepflows.admin.runagain import AgainAdmin
from stepflows.admin.runlist import RunList, WorkflowFilter, ids_beginning
from stepflows.admin.runsteps import Links, Steps, place_in
from stepflows.models import CachedStep, Run

__all__ = ["RunAdmin"]


@admin.register(Run)
class RunAdmin(AgainAdmin):
    """Runs, newest first."""

    list_display = ("shown_id", "shown_state", "shown_workflow", "took", "age", "shown_steps", "shown_attempts")
    list_display_links = ("shown_id",)
    list_filter = ("state", WorkflowFilter, "created_at")
    list_per_page = 50
    list_max_show_all = 200
    show_full_result_count = False
    date_hierarchy = "created_at"
    search_fields = ("summary",)
    search_help_text = _("Finds runs by their arguments, or by how their id begins.")
    sortable_by = ("shown_workflow", "shown_state", "shown_attempts", "age")
    show_facets = admin.ShowFacets.NEVER
    fields = ()

    class Media:
        css = {"all": ("stepflows/admin.css", "stepflows/runs.css")}  # noqa: RUF012 - the form that Django asks for
        js = ("stepflows/runs.js",)

    # Permissions.

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        """Nobody writes into the rows. Who may resume, retry and cancel is :meth:`has_act_permission`."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        codename = get_permission_codename("view", self.opts)
        return bool(request.user.has_perm(f"{self.opts.app_label}.{codename}"))

    # The list.

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return RunList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Run], search_term: str
    ) -> tuple[QuerySet[Run], bool]:
        """By what is in the arguments, and by how the id begins."""
        found, _may_have_duplicates = super().get_search_results(request, queryset, search_term)
        ids = ids_beginning(search_term.strip())
        return (found | queryset.filter(pk__range=ids) if ids else found), False

    @admin.display(description=_("run"))
    def shown_id(self, run: Run) -> SafeString:
        return format_html('<span title="{}">{}</span>', run.pk, str(run.pk)[:8])

    @admin.display(description=_("workflow and arguments"), ordering="workflow")
    def shown_workflow(self, run: Run) -> SafeString:
        workflow, summary = (display.isolated(Truncator(text).chars(70)) for text in (run.workflow, run.summary))
        if not run.summary:
            return format_html('<span title="{}">{}</span>', run.workflow, workflow)
        form = '<span title="{}">{}</span><br><span class="quiet" title="{}">{}</span>'
        return format_html(form, run.workflow, workflow, run.summary, summary)

    @admin.display(description=_("state"), ordering="state")
    def shown_state(self, run: Run) -> SafeString:
        return runpage.shown_state(run)

    @admin.display(description=_("duration"))
    def took(self, run: Run) -> str:
        return display.span(runpage.elapsed(run))

    @admin.display(description=_("executed / cached"))
    def shown_steps(self, run: Run) -> str:
        return f"{display.number(run.executed)} / {display.number(run.cached)}"

    @admin.display(description=_("attempts"), ordering="attempts")
    def shown_attempts(self, run: Run) -> str:
        return display.number(run.attempts)

    @admin.display(description=_("age"), ordering="-created_at")
    def age(self, run: Run) -> str:
        return display.ago(run.created_at)

    # The page of one run.

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.live_view)
        return [path("<path:object_id>/live/", view, name="stepflows_run_live"), *super().get_urls()]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        return super().render_change_form(
            request, {**context, **self._shown(request, context["original"])}, *args, **kwargs
        )

    def live_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The part of the page that changes while a run is under way."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        run = self.get_object(request, unquote(object_id))
        if run is None:
            raise Http404
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/stepflows/run/live.html", self._shown(request, run))

    def _shown(self, request: HttpRequest, run: Run) -> dict[str, Any]:
        links = Links(self._step_links(request, run), self.again_links(request, run))
        taken = runpage.elapsed(run)
        return {
            "run": run,
            "facts": runpage.facts_of(run),
            "values": runpage.values_of(run),
            "steps": Steps(run.steps, links, name="step", taken=taken),
            "attempts": runpage.attempts_of(run, links),
            "acts": self.acts_on(request, run),
            "said": gettext("The run is %(state)s.") % {"state": run.get_state_display()},
            "live_url": "" if run.finished else self.url_of("live", run),
            "page_url": self.url_of("change", run),
        }

    def _step_links(self, request: HttpRequest, run: Run) -> Callable[[str], str]:
        """Where the cached step of a key is looked at, for those who may."""
        if not (self.admin_site.is_registered(CachedStep) and _may_look_at_steps(request)):
            return lambda _key: ""
        place_of = place_in(run)

        def link(key: str) -> str:
            place = place_of(key)
            arguments = (quote(place.id),) if place else ()
            page = "admin:stepflows_cachedstep_change"
            return reverse(page, args=arguments, current_app=self.admin_site.name) if place else ""

        return link


def _may_look_at_steps(request: HttpRequest) -> bool:
    codename = get_permission_codename("view", CachedStep._meta)
    return bool(request.user.has_perm(f"{CachedStep._meta.app_label}.{codename}"))
