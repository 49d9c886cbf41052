"""The database that runs are in."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Warning
from django.db import connections, router

from stepflows.registry import registry

__all__ = ["check_database"]


def check_database(**_: Any) -> list[CheckMessage]:
    """Whether a site and its workers can write to it at the same time."""
    alias = router.db_for_write(apps.get_model("stepflows", "Run"))
    connection = connections[alias]
    # A transaction of another mode that reads before it writes is refused at once, whatever the timeout.
    mode = str(connection.settings_dict["OPTIONS"].get("transaction_mode") or "")
    if connection.vendor != "sqlite" or mode.upper() in {"IMMEDIATE", "EXCLUSIVE"} or not registry.all():
        return []
    return [
        Warning(
            f"Runs are in the database {alias!r}, which is SQLite: transactions of the site and of its workers that "
            "write at the same time fail with 'database is locked', and workers on other machines see no runs.",
            hint="Use PostgreSQL or MySQL. Where all is on one machine, this will do: "
            f"DATABASES[{alias!r}]['OPTIONS'] = {{'transaction_mode': 'IMMEDIATE', 'timeout': 20}}.",
            id="stepflows.W007",
        )
    ]
