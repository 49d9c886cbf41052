"""Cached steps and runs in Django's admin. Another admin site registers the same two classes."""

from stepflows.admin.cachedstep import CachedStepAdmin
from stepflows.admin.run import RunAdmin

__all__ = ["CachedStepAdmin", "RunAdmin"]
