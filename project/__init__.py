"""The example site: a small shop whose checkout is a stepflows workflow."""

from project.celery import app as celery_app

__all__ = ["celery_app"]
