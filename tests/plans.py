"""How a database means to answer a query."""

from __future__ import annotations

from typing import Any

from django.db import connection, transaction
from django.db.models import QuerySet

__all__ = ["plan"]


def plan(query: QuerySet[Any]) -> str:
    """What the database says it would do if the table were a large one."""
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # It reads a small table whole, index or not.
            cursor.execute("SET LOCAL enable_seqscan = off")
        return query.explain()
