"""The picture for the README: a hit beside the alternatives, and many processes on one cold key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.benchmarks import herd, hit
from tests.benchmarks.table import Row, Table

__all__ = ["draw"]

OURS: Final = "#0b6e4f"
OTHERS: Final = "#a8b0b8"
INK: Final = "#24292f"


def draw(tables: Sequence[Table], file: Path) -> bool:
    """Write the picture, unless the tables that it shows were not measured."""
    by_title: Mapping[str, Table] = {table.title: table for table in tables}
    if not by_title.keys() >= {hit.SYNC, hit.ASYNC, herd.TITLE}:
        return False
    mpl.rcParams.update({"font.family": "sans-serif", "font.size": 9, "text.color": INK, "axes.labelcolor": INK})
    figure = Figure(figsize=(10, 3.6), dpi=200, facecolor="white", layout="constrained")
    left, right = figure.subfigures(1, 2)
    hits = [row for title in (hit.SYNC, hit.ASYNC) for row in by_title[title].rows[1:] if row.name in hit.PLOTTED]
    axes = _bars(left, "One hit, in times of a raw GET and decode", hits, "ratio", _ratio)
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    _bars(right, f"{herd.TITLE}: last answer", by_title[herd.TITLE].rows, herd.LAST, _runs)
    figure.savefig(file)
    return True


def _bars(panel: Any, title: str, rows: Sequence[Row], column: str, label: Callable[[Row, float], str]) -> Any:
    panel.suptitle(title, x=0.02, ha="left", fontsize=10, fontweight="bold")
    axes = panel.subplots()
    lengths = [float(row.values[column] or 0) for row in rows]
    colors = [OURS if row.name.startswith("stepflows") else OTHERS for row in rows]
    bars = axes.barh([row.name for row in rows], lengths, color=colors, height=0.7)
    axes.bar_label(bars, [label(row, length) for row, length in zip(rows, lengths, strict=True)], padding=3)
    axes.set_xlim(0, max(lengths) * 1.6)
    axes.invert_yaxis()
    axes.xaxis.set_visible(False)
    axes.tick_params(left=False, labelcolor=INK)
    axes.spines[:].set_visible(False)
    return axes


def _ratio(row: Row, ratio: float) -> str:
    return f"{ratio:.2f}"


def _runs(row: Row, seconds: float) -> str:
    runs = row.values["executions"]
    return f"{seconds:.2f} s, ran once" if runs == 1 else f"{seconds:.2f} s, ran {runs} times"
