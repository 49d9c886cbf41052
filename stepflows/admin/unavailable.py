"""The page that explains why a cache cannot be listed or read."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from django.contrib.admin import ModelAdmin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

from stepflows.cachedsteps import aliases_in_use
from stepflows.errors import CacheUnavailable, CannotList, InvalidUse

__all__ = ["asking_caches"]

A = TypeVar("A", bound="ModelAdmin[Any]")
P = ParamSpec("P")


def asking_caches(
    view: Callable[Concatenate[A, HttpRequest, P], HttpResponse],
) -> Callable[Concatenate[A, HttpRequest, P], HttpResponse]:
    """Have a view answer with an explanation where a cache is down, cannot list, or is not in ``CACHES``."""

    @wraps(view)
    def answer(self: A, request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        try:
            return view(self, request, *args, **kwargs)
        except (CacheUnavailable, CannotList, InvalidUse) as error:
            return _explanation(self, request, error)

    return answer


def _explanation(model_admin: ModelAdmin[Any], request: HttpRequest, error: Exception) -> HttpResponse:
    cannot_list = isinstance(error, CannotList)
    aliases = aliases_in_use()
    context = {
        **model_admin.admin_site.each_context(request),
        "title": _("This cache cannot be listed") if cannot_list else _("The cache cannot be used"),
        "opts": model_admin.opts,
        "error": error,
        "cannot_list": cannot_list,
        "aliases": aliases if len(aliases) > 1 else (),
        "media": model_admin.media,
    }
    request.current_app = model_admin.admin_site.name
    template = "admin/stepflows/cachedstep/unavailable.html"
    return TemplateResponse(request, template, context, status=200 if cannot_list else 503)
