"""The admin of cached steps: looked at, deleted and cleared, never added or changed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import LogEntry
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from stepflows.admin import display
from stepflows.admin.changelist import CachedStepList, CacheFilter, PageActionForm, WorkflowFilter
from stepflows.admin.clearing import ClearingAdmin
from stepflows.admin.listing import CachedSteps, cached_steps, place_of
from stepflows.admin.unavailable import asking_caches
from stepflows.admin.values import shown_outcome
from stepflows.cachedsteps import Place, Selection, aliases_in_use, printable, remove
from stepflows.caches import backend_for
from stepflows.caches.codec import current_codec
from stepflows.models import CachedStep, Run

__all__ = ["CachedStepAdmin"]


@admin.register(CachedStep)
class CachedStepAdmin(ClearingAdmin):
    """The entries of the caches that ``STEPFLOWS["CACHE"]`` and the registered workflows name."""

    list_display = ("shown_workflow", "shown_key", "shown_label", "outcome", "stored", "expires", "shown_size", "took")
    list_display_links = ("shown_key",)
    list_filter = (WorkflowFilter, CacheFilter)
    list_per_page = 100
    list_max_show_all = 100
    sortable_by = ()
    search_fields = ("key",)
    search_help_text = _("Finds keys that begin with this, such as “user:”.")
    show_facets = admin.ShowFacets.NEVER
    action_form = PageActionForm
    fieldsets = (
        (None, {"fields": ("shown_workflow", "shown_key", "shown_label", "outcome")}),
        (None, {"fields": ("stored_exactly", "expires_exactly", "took", "shown_size", "alias", "run")}),
    )

    class Media:
        css = {"all": ("stepflows/admin.css",)}  # noqa: RUF012 - the form that Django asks for

    # Permissions.

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: CachedStep | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: CachedStep | None = None) -> bool:
        codename = get_permission_codename("view", self.opts)
        return bool(request.user.has_perm(f"{self.opts.app_label}.{codename}"))

    # What there is.

    def get_queryset(self, request: HttpRequest) -> CachedSteps:
        aliases = aliases_in_use()
        return CachedSteps(Selection(tuple(alias for alias in aliases if backend_for(alias).can_list) or aliases))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> CachedStep | None:
        return next(iter(self.get_queryset(request).filter(pk__in=[object_id])), None)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[CachedStep], search_term: str
    ) -> tuple[QuerySet[CachedStep], bool]:
        """Keys that begin with the term."""
        prefix = search_term.lstrip()
        return (cached_steps(queryset).narrowed(prefix=prefix) if prefix else queryset), False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return CachedStepList

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        several = len(self.get_queryset(request).selection.aliases) > 1
        return [*self.list_display, "alias"] if several else [*self.list_display]

    # Columns and fields.

    def action_checkbox(self, step: CachedStep) -> SafeString:
        """Django's own, without the template that it would look up and render for each row."""
        label = gettext("Select this object for an action - {}").replace("{}", str(step))
        html = '<input type="checkbox" name="{}" value="{}" class="action-select" aria-label="{}">'
        return format_html(html, ACTION_CHECKBOX_NAME, step.pk, label)

    @admin.display(description=_("workflow"))
    def shown_workflow(self, step: CachedStep) -> str:
        if not step.version:
            return display.isolated(step.workflow)
        version = gettext("version %(version)s") % {"version": step.version}
        return format_html('{} <span class="quiet">{}</span>', display.isolated(step.workflow), version)

    @admin.display(description=_("key"))
    def shown_key(self, step: CachedStep) -> str:
        return display.isolated(step.key)

    @admin.display(description=_("label"))
    def shown_label(self, step: CachedStep) -> str:
        return display.isolated(step.label)

    @admin.display(description=_("outcome"))
    def outcome(self, step: CachedStep) -> SafeString:
        if step.ok is None:
            return display.icon("alert", gettext("damaged"))
        return display.icon("yes", gettext("ok")) if step.ok else display.icon("no", gettext("error"))

    @admin.display(description=_("stored"))
    def stored(self, step: CachedStep) -> str:
        return display.ago(step.stored_at)

    @admin.display(description=_("stored"))
    def stored_exactly(self, step: CachedStep) -> str:
        return display.exact(step.stored_at)

    @admin.display(description=_("expires"))
    def expires(self, step: CachedStep) -> str:
        return display.EMPTY if step.ok is None else display.until(step.expires_at)

    @admin.display(description=_("expires"))
    def expires_exactly(self, step: CachedStep) -> str:
        return display.exact(step.expires_at) if step.expires_at else self.expires(step)

    @admin.display(description=_("size"))
    def shown_size(self, step: CachedStep) -> str:
        return display.size(step.size)

    @admin.display(description=_("duration"))
    def took(self, step: CachedStep) -> str:
        return display.span(step.duration)

    @admin.display(description=_("run"))
    def run(self, step: CachedStep) -> str:
        """The run that stored it: a link, if it left a row."""
        try:
            pk = UUID(step.run_id)
            url = reverse("admin:stepflows_run_change", args=(pk,), current_app=self.admin_site.name)
        except (ValueError, NoReverseMatch):
            return step.run_id or display.EMPTY
        return format_html('<a href="{}">{}</a>', url, pk) if Run.objects.filter(pk=pk).exists() else step.run_id

    # Views.

    @asking_caches
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        # What a deletion wrote to the log is undone when the cache then fails.
        with transaction.atomic(router.db_for_write(LogEntry)) if request.method == "POST" else nullcontext():
            context = {"has_clear_permission": self.has_clear_permission(request), **(extra_context or {})}
            return super().changelist_view(request, context)

    @asking_caches
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        # Before a cache is asked, so that nobody else learns whether it is up.
        _require(self.has_view_permission(request))
        return super().change_view(request, object_id, form_url, extra_context)

    @asking_caches
    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        _require(self.has_delete_permission(request))
        return super().delete_view(request, object_id, extra_context)

    @asking_caches
    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        _require(self.has_view_permission(request))
        return super().history_view(request, object_id, extra_context)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        place = place_of(context["original"])
        data = backend_for(place.alias).read(place.name)
        codec = current_codec()
        if data is not None:
            context["shown"] = shown_outcome(codec.decode(data, *place.name), codec.origin(data))
        return super().render_change_form(request, context, *args, **kwargs)

    # Deleting.

    def get_deleted_objects(
        self, objs: Sequence[CachedStep] | QuerySet[CachedStep], request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """Nothing hangs on a cached step, so these are all."""
        steps = list(objs)
        allowed = all(self.has_delete_permission(request, step) for step in steps)
        count = {str(self.opts.verbose_name_plural): len(steps)} if steps else {}
        return [self._link(step) for step in steps], count, set() if allowed else {str(self.opts.verbose_name)}, []

    def delete_model(self, request: HttpRequest, obj: CachedStep) -> None:
        remove([place_of(obj)])

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: Any) -> HttpResponse:
        response = super().response_delete(request, obj_display, obj_id)
        # Django sends those who may not change things to the admin's first page, and that is everybody here.
        return self._back_to_list(request) if self.has_view_permission(request) else response

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> HttpResponse:
        """Steps expire, so it is nothing special that one is gone; its id would tell nobody anything."""
        place = Place.of(unquote(object_id))
        text = gettext("The cached step “%(key)s” is not there any more. It expired or was deleted.")
        self.message_user(request, text % {"key": printable(place.name.key) if place else object_id}, messages.WARNING)
        return self._back_to_list(request)

    def _back_to_list(self, request: HttpRequest) -> HttpResponse:
        url = reverse("admin:stepflows_cachedstep_changelist", current_app=self.admin_site.name)
        filters: dict[str, Any] = {"preserved_filters": self.get_preserved_filters(request), "opts": self.opts}
        return HttpResponseRedirect(add_preserved_filters(filters, url))

    def _link(self, step: CachedStep) -> SafeString:
        url = reverse("admin:stepflows_cachedstep_change", args=(quote(step.pk),), current_app=self.admin_site.name)
        name = display.isolated(str(step))
        return format_html('{}: <a href="{}">{}</a>', capfirst(self.opts.verbose_name), url, name)


def _require(permission: bool) -> None:  # noqa: FBT001 - said by the call
    if not permission:
        raise PermissionDenied
