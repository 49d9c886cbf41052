"""What can be done about runs in the admin: resumed, retried and cancelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from stepflows.admin import display
from stepflows.cachedsteps import printable
from stepflows.errors import CacheUnavailable, StepflowsError
from stepflows.models import Run

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Run]
else:
    ModelAdmin = admin.ModelAdmin

__all__ = ["ActingAdmin", "Button"]

S = Run.State


@dataclass(frozen=True)
class Act:
    """One thing to do about a run, and how it is told."""

    perform: Callable[[Run], bool]
    #: Where it makes sense, and what it is called there.
    labels: dict[str, Any]
    logged: Any
    done: Any
    refused: Any


ACTS: Final = {
    "resume": Act(
        Run.resume,
        {S.FAILED: _("Resume"), S.CANCELLED: _("Resume"), S.QUEUED: _("Send again")},
        _("Resumed."),
        ngettext_lazy("%(count)s run was resumed.", "%(count)s runs were resumed.", "number"),
        ngettext_lazy(
            "%(count)s run was not resumed: it has neither failed nor was it cancelled.",
            "%(count)s runs were not resumed: they have neither failed nor were they cancelled.",
            "number",
        ),
    ),
    "retry": Act(
        Run.retry,
        {S.FAILED: _("Retry"), S.CANCELLED: _("Retry")},
        _("Retried."),
        ngettext_lazy("%(count)s run is tried again.", "%(count)s runs are tried again.", "number"),
        ngettext_lazy(
            "%(count)s run is not tried again: it has neither failed nor was it cancelled.",
            "%(count)s runs are not tried again: they have neither failed nor were they cancelled.",
            "number",
        ),
    ),
    "cancel": Act(
        Run.cancel,
        {S.QUEUED: _("Cancel"), S.RUNNING: _("Cancel")},
        _("Cancelled."),
        ngettext_lazy("%(count)s run was cancelled.", "%(count)s runs were cancelled.", "number"),
        ngettext_lazy(
            "%(count)s run was not cancelled: it was finished already.",
            "%(count)s runs were not cancelled: they were finished already.",
            "number",
        ),
    ),
}


class Button(NamedTuple):
    """What the page of a run offers to do about it."""

    name: str
    label: str
    url: str


class ActingAdmin(ModelAdmin):
    """Actions on the list, buttons on the page of one run; POST alone does anything."""

    actions = ("resume_runs", "retry_runs", "cancel_runs")

    def has_act_permission(self, request: HttpRequest) -> bool:
        """Whether runs may be resumed, retried and cancelled."""
        codename = get_permission_codename("change", self.opts)
        return bool(request.user.has_perm(f"{self.opts.app_label}.{codename}"))

    def get_urls(self) -> list[URLPattern]:
        views = {name: partial(self.act_view, name=name) for name in ACTS}
        made = [
            path(f"<path:object_id>/{name}/", self.admin_site.admin_view(view), name=f"stepflows_run_{name}")
            for name, view in views.items()
        ]
        return [*made, *super().get_urls()]

    def url_of(self, name: str, run: Run) -> str:
        """The address of a page about a run."""
        return reverse(f"admin:stepflows_run_{name}", args=(quote(str(run.pk)),), current_app=self.admin_site.name)

    # On the list.

    @admin.action(permissions=["act"], description=_("Resume selected runs"))
    def resume_runs(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        self._act(request, "resume", queryset.iterator(500))

    @admin.action(permissions=["act"], description=_("Retry selected runs (forgets their errors)"))
    def retry_runs(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        self._act(request, "retry", queryset.iterator(500))

    @admin.action(permissions=["act"], description=_("Cancel selected runs"))
    def cancel_runs(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        self._act(request, "cancel", queryset.iterator(500))

    # On the page of one run.

    def acts_on(self, request: HttpRequest, run: Run) -> list[Button]:
        """What makes sense now, for those who may."""
        if not self.has_act_permission(request):
            return []
        offered = ((name, act.labels.get(run.state)) for name, act in ACTS.items())
        return [Button(name, str(label), self.url_of(name, run)) for name, label in offered if label]

    def act_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """Do it, and go back to the run."""
        if not self.has_act_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        run = self.get_object(request, unquote(object_id))
        if run is None:
            return self.gone(request, object_id)
        self._act(request, name, [run])
        return self.back_to(request, run)

    def gone(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What Django says where there is no such row."""
        respond: Callable[..., HttpResponse] = ModelAdmin._get_obj_does_not_exist_redirect  # type: ignore[attr-defined]  # noqa: SLF001
        return respond(self, request, self.opts, object_id)

    def _act(self, request: HttpRequest, name: str, runs: Iterable[Run]) -> None:
        act, done, refused = ACTS[name], 0, 0
        problems: dict[str, None] = {}
        for run in runs:
            try:
                performed = act.perform(run)
            except StepflowsError as error:
                problems[printable(str(error))] = None
                if isinstance(error, CacheUnavailable):
                    # The next one would wait for it just as long.
                    break
                continue
            done, refused = done + performed, refused + (not performed)
            if performed:
                self.log_change(request, run, str(act.logged))
        self._tell(request, act.done, done, messages.SUCCESS)
        self._tell(request, act.refused, refused, messages.WARNING)
        for problem in [*problems][:5]:
            self.message_user(request, problem, messages.ERROR)

    def _tell(self, request: HttpRequest, text: Any, number: int, level: int) -> None:
        if number:
            self.message_user(request, text % {"number": number, "count": display.number(number)}, level)

    def back_to(self, request: HttpRequest, run: Run) -> HttpResponse:
        """Where somebody goes who has done something about a run."""
        if self.has_view_permission(request):
            return HttpResponseRedirect(self.url_of("change", run))
        return HttpResponseRedirect(reverse("admin:index", current_app=self.admin_site.name))
