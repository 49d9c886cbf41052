"""The rows that runs leave in the database, and what the admin shows of the caches."""

from stepflows.models.cachedstep import CachedStep
from stepflows.models.run import Run, RunQuerySet

__all__ = ["CachedStep", "Run", "RunQuerySet"]
