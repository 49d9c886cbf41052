"""An entry of a cache as a row that the admin can list, without a table."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

__all__ = ["CachedStep"]


class _NoRows(models.Manager["CachedStep"]):
    """There is no table, so whatever walks through all models, such as ``dumpdata``, finds nothing and no error."""

    def get_queryset(self) -> models.QuerySet[CachedStep]:
        return super().get_queryset().none()


class CachedStep(models.Model):
    """An entry of a cache, as the admin lists it. There is no table: the caches are asked."""

    #: Names alias, scope and key.
    id = models.CharField(_("id"), primary_key=True, max_length=600)
    alias = models.CharField(_("cache"), max_length=200)
    scope = models.CharField(_("scope"), max_length=400)
    workflow = models.CharField(_("workflow"), max_length=200)
    version = models.CharField(_("version"), max_length=200, blank=True)
    key = models.CharField(_("key"), max_length=200)
    label = models.CharField(_("label"), max_length=200)
    #: ``None`` where the entry is damaged.
    ok = models.BooleanField(_("succeeded"), null=True)
    stored_at = models.DateTimeField(_("stored"), null=True)
    expires_at = models.DateTimeField(_("expires"), null=True)
    #: Seconds.
    duration = models.FloatField(_("duration"), null=True)
    #: Bytes.
    size = models.BigIntegerField(_("size"), null=True)
    run_id = models.CharField(_("run"), max_length=200, blank=True)

    objects = _NoRows()

    class Meta:
        managed = False
        verbose_name = _("cached step")
        verbose_name_plural = _("cached steps")
        default_permissions = ("view", "delete")
        permissions = (("clear_cachedstep", _("Can clear cached steps")),)

    def __str__(self) -> str:
        return f"{self.workflow} {self.key}"
