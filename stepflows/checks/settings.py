"""The ``STEPFLOWS`` dict."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured

from stepflows import conf

__all__ = ["check_settings"]


def check_settings(**_: Any) -> list[CheckMessage]:
    """The ``STEPFLOWS`` dict itself."""
    try:
        return [Error(problem, id="stepflows.E001") for problem in conf.problems()]
    except ImproperlyConfigured as error:
        return [Error(str(error), id="stepflows.E001")]
