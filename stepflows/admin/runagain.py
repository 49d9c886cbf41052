"""Running a run again from one of its steps: that step and the later ones are removed from the cache first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.http import urlencode
from django.utils.translation import gettext, ngettext

from stepflows.admin import display
from stepflows.admin.runactions import ActingAdmin
from stepflows.cachedsteps import printable
from stepflows.errors import StepflowsError
from stepflows.models import CachedStep, Run
from stepflows.registry import registry

__all__ = ["AgainAdmin"]


class AgainAdmin(ActingAdmin):
    """The page "Run again from this step": GET asks, POST does it."""

    def has_again_permission(self, request: HttpRequest) -> bool:
        """Whether a run may be run again from one of its steps, which deletes cached steps."""
        return self.has_act_permission(request) and _may_delete_steps(request)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.again_view)
        return [path("<path:object_id>/again/", view, name="stepflows_run_again"), *super().get_urls()]

    def again_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """GET asks, with a list of what is removed; POST removes that and sends the run."""
        if not self.has_again_permission(request):
            raise PermissionDenied
        run = self.get_object(request, unquote(object_id))
        if run is None:
            return self.gone(request, object_id)
        steps = _steps_from(run, (request.POST or request.GET).get("key", ""))
        if not (run.finished and steps and _is_known(run)):
            text = gettext(
                "The run cannot be run again from this step: it is under way, it has no such step now, or its workflow "
                "is not registered here."
            )
            self.message_user(request, text, messages.WARNING)
            return self.back_to(request, run)
        is_sure = request.method == "POST" and request.POST.get("epoch") == str(run.epoch)
        return self._run_again(request, run, steps) if is_sure else self._ask(request, run, steps)

    def again_links(self, request: HttpRequest, run: Run) -> Callable[[str], str]:
        """Where the run can be run again from the step of a key: if it is finished, and for those who may."""
        if not (run.finished and _is_known(run) and self.has_again_permission(request)):
            return lambda _key: ""
        page = self.url_of("again", run)
        return lambda key: f"{page}?{urlencode({'key': key})}"

    def _ask(self, request: HttpRequest, run: Run, steps: list[dict[str, Any]]) -> HttpResponse:
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "title": gettext("Run again from a step"),
            "opts": self.opts,
            "media": self.media,
            "has_view_permission": self.has_view_permission(request),
            "run": run,
            "run_url": self.url_of("change", run),
            "steps": [(display.isolated(step.get("label")), display.isolated(step["key"])) for step in steps],
            "key": steps[0]["key"],
            "epoch": str(run.epoch),
            "shown_count": display.number(len(steps)),
            "has_changed": request.method == "POST",
        }
        return TemplateResponse(request, "admin/stepflows/run/again.html", context)

    def _run_again(self, request: HttpRequest, run: Run, steps: list[dict[str, Any]]) -> HttpResponse:
        try:
            done = run.run_again([step["key"] for step in steps])
        except StepflowsError as error:
            self.message_user(request, printable(str(error)), messages.ERROR)
            return self.back_to(request, run)
        count = {"count": display.number(len(steps)), "key": steps[0]["key"]}
        if done:
            logged = ngettext(
                "Run again from “%(key)s” on: %(count)s cached step was removed.",
                "Run again from “%(key)s” on: %(count)s cached steps were removed.",
                len(steps),
            )
            self.log_change(request, run, logged % count)
            text = ngettext(
                "The run was sent to a worker. %(count)s step runs again, whatever else is cached.",
                "The run was sent to a worker. %(count)s steps run again, whatever else is cached.",
                len(steps),
            )
            self.message_user(request, text % count, messages.SUCCESS)
        else:
            self.message_user(request, gettext("Somebody else has sent the run meanwhile."), messages.WARNING)
        return self.back_to(request, run)


def _may_delete_steps(request: HttpRequest) -> bool:
    codename = get_permission_codename("delete", CachedStep._meta)
    return bool(request.user.has_perm(f"{CachedStep._meta.app_label}.{codename}"))


def _is_known(run: Run) -> bool:
    return any(workflow.name == run.workflow for workflow in registry.all())


def _steps_from(run: Run, key: str) -> list[dict[str, Any]]:
    """The step with this key and those that ended after it, each key once."""
    steps: dict[str, dict[str, Any]] = {}
    for step in run.steps:
        if step.get("key"):
            steps.setdefault(step["key"], step)
    keys = [*steps]
    return [*steps.values()][keys.index(key) :] if key in steps else []
