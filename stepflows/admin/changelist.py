"""The list of cached steps: its filters, its search and its pages."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, cast

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_permission_codename
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from stepflows.admin.clearform import clear_query
from stepflows.admin.listing import CachedSteps, cached_steps
from stepflows.admin.overview import Overview, latest_runs, overview
from stepflows.cachedsteps import Listing, aliases_in_use
from stepflows.caches import backend_for
from stepflows.models import Run

__all__ = ["CacheFilter", "CachedStepList", "PageActionForm", "WorkflowFilter"]

_CACHE = "cache"


class CacheFilter(SimpleListFilter):
    """One cache, where steps may lie in several."""

    title = _("cache")
    parameter_name = _CACHE

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        aliases = model_admin.get_queryset(request).selection.aliases
        return [(alias, alias) for alias in aliases] if len(aliases) > 1 else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> CachedSteps:
        steps, alias = cached_steps(queryset), self.value()
        if alias is None:
            return steps
        if alias not in steps.selection.aliases:
            raise IncorrectLookupParameters(alias)
        return steps.narrowed(aliases=(alias,))


class WorkflowFilter(SimpleListFilter):
    """One of the workflows that have entries, in all its versions. Which those are is known when the page is."""

    title = _("workflow")
    parameter_name = "workflow"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return []

    def has_output(self) -> bool:
        return True

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> CachedSteps:
        steps, workflow = cached_steps(queryset), self.value()
        return steps if workflow is None else steps.narrowed(workflow=workflow)

    def offer(self, workflows: Iterable[str]) -> None:
        """Let people choose among these."""
        self.lookup_choices = [(name, name or _("(no name)")) for name in workflows]


class PageActionForm(ActionForm):
    """Actions are for the steps of one page: more than that is clearing, which has its own permission and page."""

    def clean_select_across(self) -> bool:
        return False


class CachedStepList(ChangeList):
    """Pages come from the caches, by position; there is nothing to sort or to join."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> CachedSteps:
        self.filter_specs, self.has_filters, unknown, _, self.has_active_filters = self.get_filters(request)
        if unknown:
            raise IncorrectLookupParameters(unknown)
        steps = self.root_queryset
        for spec in self.filter_specs:
            steps = cached_steps(spec.queryset(request, steps))
        self.clear_all_filters_qs = self.get_query_string(remove=list(self.get_filters_params()))
        found, _may_have_duplicates = self.model_admin.get_search_results(request, steps, self.query)
        return cached_steps(found)

    def get_results(self, request: HttpRequest) -> None:
        # All that the page shows of the caches, at once. The total is that of those shown: one that is not may be down.
        steps = cached_steps(self.queryset).listed(self.page_num, self.list_per_page)
        self.listing = cast("Listing", steps.listing)
        whole = replace(self.listing, count=self.listing.total)
        self.queryset, self.root_queryset = (
            steps,
            CachedSteps(cached_steps(self.root_queryset).selection, listing=whole),
        )
        super().get_results(request)
        self._offer(self.listing.sizes)
        # Whoever turns pages or searches has begun to look for something else.
        self.overview = None if self.query or self.page_num > 1 else self._overview(request)

    def _overview(self, request: HttpRequest) -> Overview:
        """Of the workflow that is chosen, or of all."""
        workflow, sizes = cached_steps(self.queryset).selection.workflow, self.listing.sizes
        if workflow is not None:
            sizes = {workflow: sizes.get(workflow, 0)}
        may_see_runs = request.user.has_perm(f"{Run._meta.app_label}.{get_permission_codename('view', Run._meta)}")
        found = overview(sizes, latest_runs(workflow) if may_see_runs else None)
        for each in found.workflows:
            each.url = self.get_query_string({WorkflowFilter.parameter_name: each.name}) if each.keys else ""
        return found

    def _offer(self, workflows: Collection[str]) -> None:
        for spec in self.filter_specs:
            if isinstance(spec, WorkflowFilter):
                spec.offer(workflows)
        self.filter_specs = [spec for spec in self.filter_specs if workflows or not isinstance(spec, WorkflowFilter)]
        self.has_filters = bool(self.filter_specs)

    @property
    def clear_url(self) -> str:
        """Where what is listed can be cleared."""
        page = reverse("admin:stepflows_cachedstep_clear", current_app=self.model_admin.admin_site.name)
        query = clear_query(cached_steps(self.queryset).selection)
        return f"{page}?{query}" if query else page

    @property
    def unlisted(self) -> list[str]:
        """Caches that may hold steps but cannot say which."""
        return [alias for alias in aliases_in_use() if not backend_for(alias).can_list]
