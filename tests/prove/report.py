"""The table of what was tried, how often, and what was lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.table import Table

from tests.prove.trial import Row

__all__ = ["details", "lost", "printed"]

#: So many details of one row are enough to begin with.
_DETAILS: Final = 5

Rows = Mapping[str, Sequence[Row]]


def printed(rows: Rows, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("", "what was tried", "how often"):
        table.add_column(column)
    table.add_column("lost", justify="right")
    table.add_column("")
    for name, each in rows.items():
        for number, row in enumerate(each):
            count = f"[red]{row.lost:,}[/]" if row.lost else "[green]0[/]"
            table.add_row("" if number else name, row.what, row.tried, count, row.note)
        table.add_section()
    return table


def lost(rows: Rows) -> int:
    """How much was lost in all."""
    return sum(row.lost for each in rows.values() for row in each)


def details(rows: Rows) -> Iterator[str]:
    """What to look at, of every row that has lost something."""
    for name, each in rows.items():
        for row in each:
            if row.lost:
                yield f"\n{name}, {row.what}:"
                yield from row.details[:_DETAILS] or [row.note]
                if len(row.details) > _DETAILS:
                    yield f"... and {len(row.details) - _DETAILS} more"
