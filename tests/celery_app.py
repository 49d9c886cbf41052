"""The Celery app of the tests, as any Django project has it."""

import os
from datetime import UTC, datetime, timedelta

from celery import Celery

if shift := float(os.environ.get("TEST_CLOCK_SHIFT", 0)):
    # A worker on a machine whose clock is wrong: Python's is, in this process and in those that it forks.
    import time_machine

    time_machine.travel(datetime.now(UTC) + timedelta(seconds=shift)).start()

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

app = Celery("tests")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
