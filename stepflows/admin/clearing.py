"""Removing many cached steps at once: first what, then how many and whether for certain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth import get_permission_codename
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from stepflows.admin import display
from stepflows.admin.listing import cached_steps
from stepflows.admin.unavailable import asking_caches
from stepflows.cachedsteps import Selection, remove
from stepflows.models import CachedStep

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[CachedStep]
else:
    ModelAdmin = admin.ModelAdmin

__all__ = ["ClearForm", "ClearingAdmin", "clear_query"]

_EVERYTHING: Final = "all"
_WORKFLOW: Final = "workflow:"


class ClearForm(forms.Form):
    """What to clear: in which cache, of which workflow or of all, and perhaps only keys with a prefix."""

    cache = forms.ChoiceField(label=_("Cache"))
    scope = forms.ChoiceField(label=_("Workflow"))
    key_prefix = forms.CharField(
        label=_("Key prefix"),
        required=False,
        strip=False,
        help_text=_("Only keys that begin with this, such as “user:”. Leave it empty for all keys."),
    )

    def __init__(
        self, aliases: Sequence[str], workflows: Sequence[str], data: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(data, label_suffix="", **options)
        cache, scope = cast("list[forms.ChoiceField]", [self.fields["cache"], self.fields["scope"]])
        cache.choices = [(alias, alias) for alias in aliases]
        if len(aliases) == 1:
            cache.widget = forms.HiddenInput()
            cache.initial = aliases[0]
        scope.choices = [
            ("", "---------"),
            *((f"{_WORKFLOW}{name}", name or _("(no name)")) for name in workflows),
            (_EVERYTHING, _("All workflows")),
        ]

    def selection(self) -> Selection:
        """What a valid form says."""
        scope = self.cleaned_data["scope"]
        workflow = None if scope == _EVERYTHING else scope.removeprefix(_WORKFLOW)
        return Selection((self.cleaned_data["cache"],), workflow, self.cleaned_data["key_prefix"])


def clear_query(selection: Selection) -> str:
    """The query string with which the form comes up for what is listed. It never says "all" unasked."""
    given = {"key_prefix": selection.prefix}
    if selection.workflow is not None:
        given["scope"] = f"{_WORKFLOW}{selection.workflow}"
    if len(selection.aliases) == 1:
        given["cache"] = selection.aliases[0]
    return urlencode({name: value for name, value in given.items() if value})


class ClearingAdmin(ModelAdmin):
    """The Clear… page: GET asks, first what and then whether; only POST removes."""

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
        form = self._clear_form(request)
        if not form.is_valid():
            return self._clear_page(request, "clear", form=form)
        selection = form.selection()
        if request.method == "POST":
            return self._clear(request, selection)
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

    def _clear(self, request: HttpRequest, selection: Selection) -> HttpResponse:
        removed = 0
        try:
            for places in selection.walk():
                removed += remove(places)
        finally:
            # Also where the cache fails half-way: what is gone is gone.
            self._log_clear(request, selection, removed)
            text = ngettext(
                "%(count)s cached step was removed: %(what)s.",
                "%(count)s cached steps were removed: %(what)s.",
                removed,
            )
            self.message_user(request, text % _told(selection, removed), messages.SUCCESS)
        page = "stepflows_cachedstep_changelist" if self.has_view_permission(request) else "index"
        return HttpResponseRedirect(reverse(f"admin:{page}", current_app=self.admin_site.name))

    def _log_clear(self, request: HttpRequest, selection: Selection, removed: int) -> None:
        text = ngettext("%(count)s cached step (%(what)s)", "%(count)s cached steps (%(what)s)", removed)
        LogEntry.objects.create(
            user_id=cast("int", request.user.pk),
            content_type=ContentType.objects.get_for_model(self.model, for_concrete_model=False),
            object_repr=(text % _told(selection, removed))[:200],
            action_flag=DELETION,
            change_message=gettext("Cleared."),
        )

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


def _told(selection: Selection, removed: int) -> dict[str, str]:
    return {"count": display.number(removed), "what": str(selection)}
