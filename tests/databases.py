"""The database of the settings, for programs that no test runner prepares it for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from django.db import connections
from django.test.utils import setup_databases, teardown_databases

from tests import settings as site
from tests.postgres import running_postgres

__all__ = ["running_database"]


@contextmanager
def running_database() -> Iterator[None]:
    """Its server runs and it has all its tables, which are empty; gone at the end."""
    ours = site.POSTGRES_IS_OURS
    with running_postgres(int(site.DATABASES["default"]["PORT"])) if ours else nullcontext():
        made = setup_databases(verbosity=0, interactive=False)
        try:
            yield
        finally:
            connections.close_all()
            teardown_databases(made, verbosity=0)
