"""Tables that are not there yet."""

from __future__ import annotations

from django.db import DatabaseError, IntegrityError

from stepflows.models.run import Run

__all__ = ["remedy", "told"]


def told(error: DatabaseError) -> str:
    """The error in a line, with its remedy; some databases add the statement, which is stepflows' own."""
    line, _, _ = str(error).partition("\n")
    return f"{line}.{remedy(error)}"


def remedy(error: DatabaseError) -> str:
    """What to do about an error of the database that is about the table of runs, or nothing.

    Every database names the table that it does not have, each in words of its own.
    """
    table = Run._meta.db_table
    if table not in str(error) or isinstance(error, IntegrityError):
        return ""
    return f" Run manage.py migrate if the table {table} is missing or has not all its columns."
