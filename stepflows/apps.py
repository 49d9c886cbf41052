"""The Django app."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from django.apps import AppConfig
from django.core import checks
from django.utils.module_loading import autodiscover_modules, import_string
from django.utils.translation import gettext_lazy as _

from stepflows import checks as own
from stepflows.registry import registry

__all__ = ["StepflowsConfig"]


class StepflowsConfig(AppConfig):
    """Finds the ``workflows.py`` of every installed app, as Django's admin finds ``admin.py``."""

    name = "stepflows"
    verbose_name = _("Workflow steps")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        for check in (own.check_settings, own.check_celery, own.check_workflows):
            checks.register(check, "stepflows")
        checks.register(own.check_caches, "stepflows", checks.Tags.caches)
        # They ask a server, or are about what is fine as long as nobody depends on it.
        checks.register(own.check_eviction, "stepflows", checks.Tags.caches, deploy=True)
        checks.register(own.check_eager, "stepflows", deploy=True)
        checks.register(own.check_database, "stepflows", deploy=True)
        # Models cannot be imported before; and whoever sends a run has to know the task.
        registry.dispatcher = import_string("stepflows.dispatch.enqueue")
        import_module("stepflows.tasks")
        if find_spec("opentelemetry") and find_spec("opentelemetry.trace"):
            registry.tracer = import_string("stepflows.otel.tracer")
        autodiscover_modules("workflows")
