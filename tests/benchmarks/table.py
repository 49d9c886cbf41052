"""Figures in rows, beside what is to be reached; printed, and kept as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rich.table import Table as Printed
from rich.text import Text

__all__ = ["Row", "Table", "compared"]

Value = float | str | None

_PER_SECOND: Final = {"µs": 1e6, "ms": 1e3, "s": 1.0}


@dataclass(frozen=True)
class Row:
    name: str
    #: By column.
    values: Mapping[str, Value]
    #: The most that a column's value should be.
    goals: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    title: str
    rows: list[Row]

    def printed(self) -> Printed:
        columns = list(dict.fromkeys(column for row in self.rows for column in row.values))
        aims = any(row.goals for row in self.rows)
        printed = Printed(title=self.title, title_justify="left", title_style="bold")
        printed.add_column("", no_wrap=True)
        for column in columns:
            printed.add_column(column, justify="right", no_wrap=len(column) < 20)
        if aims:
            printed.add_column("to reach", no_wrap=True)
        for row in self.rows:
            goals = [_goals(row)] if aims else []
            printed.add_row(row.name, *(_shown(row.values.get(column)) for column in columns), *goals)
        return printed

    def as_json(self) -> dict[str, Any]:
        rows = [{"name": row.name, **row.values, **({"to reach": row.goals} if row.goals else {})} for row in self.rows]
        return {"title": self.title, "rows": rows}


def compared(
    title: str,
    unit: str,
    seconds: Mapping[str, float],
    *,
    goals: Mapping[str, Mapping[str, float]] | None = None,
    more: Mapping[str, Mapping[str, Value]] | None = None,
) -> Table:
    """The time of each and its ratio to the first one's; goals and further columns by row."""
    base = next(iter(seconds.values()))
    rows = [
        Row(
            name,
            {unit: taken * _PER_SECOND[unit], "ratio": taken / base, **(more or {}).get(name, {})},
            (goals or {}).get(name, {}),
        )
        for name, taken in seconds.items()
    ]
    return Table(title, rows)


def _goals(row: Row) -> Text:
    return Text(", ").join(_goal(row, column, most) for column, most in row.goals.items())


def _goal(row: Row, column: str, most: float) -> Text:
    value = row.values.get(column)
    met = isinstance(value, int | float) and value <= most
    return Text(f"{column} ≤ {most:g} {'✓' if met else '✗'}", style="green" if met else "red")


def _shown(value: Value) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else "".join(_digits(value))


def _digits(value: float) -> Iterator[str]:
    """Three digits that count; whole numbers in full."""
    if isinstance(value, int) or abs(value) >= 100:
        yield f"{value:,.0f}"
    else:
        yield f"{value:.{2 if abs(value) < 10 else 1}f}"
