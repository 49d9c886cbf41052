"""The admin of runs: what workers did, to be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from stepflows.admin import display
from stepflows.admin.values import Shown, shown_outcome, shown_value
from stepflows.cachedsteps import printable
from stepflows.errors import StepflowsError
from stepflows.models import Run

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Run]
else:
    ModelAdmin = admin.ModelAdmin

__all__ = ["RunAdmin"]

_OUTCOMES = {
    "executed": ("yes", _("executed")),
    "cached": ("yes", _("from the cache")),
    "waited": ("yes", _("done by another run")),
    "running": ("unknown", _("under way")),
    "error": ("no", _("error")),
    "replayed_error": ("no", _("error from the cache")),
}


@admin.register(Run)
class RunAdmin(ModelAdmin):
    """Runs, newest first."""

    list_display = ("shown_id", "shown_workflow", "shown_state", "created", "took", "executed", "cached", "attempts")
    list_display_links = ("shown_id",)
    list_filter = ("state", "workflow")
    search_fields = ("id__startswith",)
    search_help_text = _("Finds runs whose id begins with this.")
    sortable_by = ("shown_workflow", "shown_state", "created", "attempts")
    show_facets = admin.ShowFacets.NEVER
    actions = None
    fieldsets = (
        (None, {"fields": ("shown_workflow", "id", "shown_state", "failed_in")}),
        (None, {"fields": ("created_exactly", "started_exactly", "finished_exactly", "took", "attempts", "worker")}),
    )

    class Media:
        css = {"all": ("stepflows/admin.css",)}  # noqa: RUF012 - the form that Django asks for

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        return super().get_queryset(request).defer("arguments", "outcome", "steps", "history")

    # Columns and fields.

    @admin.display(description=_("run"))
    def shown_id(self, run: Run) -> SafeString:
        return format_html('<span title="{}">{}</span>', run.pk, str(run.pk)[:8])

    @admin.display(description=_("workflow"), ordering="workflow")
    def shown_workflow(self, run: Run) -> str:
        return display.isolated(run.workflow)

    @admin.display(description=_("state"), ordering="state")
    def shown_state(self, run: Run) -> SafeString:
        return format_html('<span class="stepflows-state {}">{}</span>', run.state, run.get_state_display())

    @admin.display(description=_("created"), ordering="created_at")
    def created(self, run: Run) -> str:
        return display.ago(run.created_at)

    @admin.display(description=_("duration"))
    def took(self, run: Run) -> str:
        return display.span(run.duration)

    @admin.display(description=_("executed"))
    def executed(self, run: Run) -> str:
        return display.number(run.executed)

    @admin.display(description=_("cached"))
    def cached(self, run: Run) -> str:
        return display.number(run.cached)

    @admin.display(description=_("created"))
    def created_exactly(self, run: Run) -> str:
        return display.exact(run.created_at)

    @admin.display(description=_("started"))
    def started_exactly(self, run: Run) -> str:
        return display.exact(run.started_at)

    @admin.display(description=_("finished"))
    def finished_exactly(self, run: Run) -> str:
        return display.exact(run.finished_at)

    @admin.display(description=_("failed in step"))
    def failed_in(self, run: Run) -> str:
        if not run.failed_step:
            return display.EMPTY
        label, key, replayed = run.failed_step
        origin = gettext("replayed from the cache") if replayed else ""
        return format_html("{} {} {}", display.isolated(label), display.isolated(key), origin)

    # The page of one run.

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        run: Run = context["original"]
        context["shown"] = [*_shown_arguments(run), *shown_outcome(run.result)]
        context["steps"] = list(map(_shown_step, run.steps))
        return super().render_change_form(request, context, *args, **kwargs)


def _shown_arguments(run: Run) -> list[Shown]:
    try:
        args, kwargs = run.args, run.kwargs
    except StepflowsError as error:
        return [Shown(gettext("Arguments"), "", printable(str(error)), is_note=True)]
    shown = [shown_value(gettext("Arguments"), kwargs or args)]
    return [shown_value(gettext("Positional arguments"), args), *shown] if args and kwargs else shown


def _shown_step(step: dict[str, Any]) -> dict[str, Any]:
    icon, text = _OUTCOMES.get(step.get("outcome", ""), ("unknown", step.get("outcome", "")))
    return {
        "label": display.isolated(step.get("label", "")),
        "key": display.isolated(step.get("key")),
        "outcome": display.icon(icon, str(text)),
        "offset": display.span(step.get("offset")),
        "duration": display.span(step.get("duration")),
        "attempt": step.get("attempt"),
    }
