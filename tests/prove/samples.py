"""What is measured while the soak runs, and whether it stays bounded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Final, NamedTuple

import psutil  # type: ignore[import-untyped,unused-ignore]

from tests.prove.trial import Row

__all__ = ["BOUNDS", "Bound", "Samples", "asked_of"]

#: The first part of the time, in which everything is met for the first time.
_WARM_UP: Final = 0.25
#: Fewer samples than that in a third say nothing.
_LEAST: Final = 20


class Bound(NamedTuple):
    """How much more the median of the last third may be than that of the first third after the warm-up."""

    unit: str
    share: float
    more: float

    def allows(self, first: float, last: float) -> bool:
        return last <= first * (1 + self.share) + self.more

    def __str__(self) -> str:
        return f"at most {self.share:+.0%} and {self.more:g}{self.unit}"


#: By the last word of what is measured.
BOUNDS: Final = {
    "memory": Bound(" MB", 0.08, 4),
    "files": Bound("", 0, 4),
    "threads": Bound("", 0, 3),
    "index": Bound("", 0.25, 30),
    "entries": Bound("", 0.25, 30),
    "rows": Bound("", 0.25, 30),
}


@dataclass
class Samples:
    """Series of measurements by name."""

    series: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, measured: Iterable[tuple[str, float]]) -> None:
        for name, value in measured:
            self.series[name].append(value)

    def rows(self) -> list[Row]:
        return [_row(name, values, BOUNDS[name.split()[-1]]) for name, values in self.series.items()]


def _row(name: str, values: Sequence[float], bound: Bound) -> Row:
    settled = values[int(len(values) * _WARM_UP) :]
    third = len(settled) // 3
    if third < _LEAST:
        return Row(name, f"{len(values):,} samples", 0, f"too few to judge; {max(values):,.0f}{bound.unit} at most")
    first, last = median(settled[:third]), median(settled[-third:])
    told = f"{first:,.1f} → {last:,.1f}{bound.unit}, {max(values):,.1f} at the highest ({bound})"
    grown = not bound.allows(first, last)
    return Row(name, f"{len(values):,} samples", int(grown), told, (f"{name} grew: {told}",) if grown else ())


def asked_of(name: str, processes: Sequence[int]) -> Callable[[], Iterable[tuple[str, float]]]:
    """Memory, file descriptors and threads of some processes together, as long as all of them live."""
    known = [psutil.Process(pid) for pid in processes]

    def measured() -> Iterable[tuple[str, float]]:
        with suppress(psutil.NoSuchProcess):
            memory = sum(process.memory_info().rss for process in known) / 1e6
            files = sum(process.num_fds() for process in known)
            threads = sum(process.num_threads() for process in known)
            return (f"{name}, memory", memory), (f"{name}, files", files), (f"{name}, threads", threads)
        return ()

    return measured
