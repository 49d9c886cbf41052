"""The Celery app that sends runs to workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from celery import Celery, current_app
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Info, Warning

from stepflows.messages import TASK
from stepflows.registry import registry

__all__ = ["check_celery", "check_eager"]

#: Seconds after which these brokers deliver a message again that nobody has acknowledged, unless told otherwise.
_VISIBILITY: Final = {"redis": 3600, "rediss": 3600, "sentinel": 3600, "sqs": 1800}


def check_celery(**_: Any) -> list[CheckMessage]:
    """The app, and how long its broker waits for a run."""
    return list(_asked(_check_app, _check_visibility))


def check_eager(**_: Any) -> list[CheckMessage]:
    """Whether there are workers at all."""
    return list(_asked(_check_eager))


def _asked(*checks: Any) -> Iterator[CheckMessage]:
    """What they say; nothing where no workflow can be sent to a worker."""
    if not registry.all():
        return
    try:
        for check in checks:
            yield from check(current_app)
    except Exception as error:
        yield Info(
            f"Celery's configuration could not be read: {type(error).__name__}: {error}",
            hint="Correct it: no worker would start with it.",
            id="stepflows.I001",
        )


def _check_app(app: Celery) -> Iterator[CheckMessage]:
    # Celery makes up an app of this name where the project has not made one.
    if app.main == "default" and not app.conf.broker_url and hasattr(django_settings, "CELERY_BROKER_URL"):
        yield Warning(
            "The settings have CELERY_BROKER_URL, but this process has no Celery app that reads it: delay would write "
            "a run and could not send it.",
            hint="Import the app in the __init__.py of the project: from .celery import app as celery_app.",
            id="stepflows.W008",
        )


def _check_visibility(app: Celery) -> Iterator[CheckMessage]:
    transport = _transport(app)
    if transport not in _VISIBILITY:
        return
    visible = app.conf.broker_transport_options.get("visibility_timeout") or _VISIBILITY[transport]
    limit = app.tasks[TASK].time_limit or app.conf.task_time_limit
    if limit and visible < limit:
        yield Warning(
            f"The broker delivers a message again that is not acknowledged after {visible:g} s (visibility_timeout), "
            f"but a run may take {limit:g} s (task_time_limit): its message comes again and again while it runs. Each "
            "finds the run taken and does nothing, but takes a worker's time.",
            hint=f"Set Celery's broker_transport_options['visibility_timeout'] to more than {limit:g}, or the time "
            f"limit to less than {visible:g}.",
            id="stepflows.W005",
        )


def _transport(app: Celery) -> str:
    """The scheme of the broker's first address: asking Celery would import the library of its client."""
    url: Any = app.conf.broker_read_url or app.conf.broker_url or ""
    first = url if isinstance(url, str) else next(iter(url), "")
    return first.partition(":")[0].partition("+")[0]


def _check_eager(app: Celery) -> Iterator[CheckMessage]:
    if app.conf.task_always_eager and not django_settings.DEBUG:
        yield Warning(
            "Celery's task_always_eager is on: delay runs the workflow in the process that calls it, such as a web "
            "server's, whose visitor waits for all of it, and no worker goes on with it when that process ends.",
            hint="Take CELERY_TASK_ALWAYS_EAGER out of the settings of this site; it is for tests.",
            id="stepflows.W006",
        )
