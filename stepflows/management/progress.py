"""How far something long is: a bar on a terminal, a line now and then in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
except ImportError:  # it comes with stepflows[rich]
    Console = None  # type: ignore[assignment,misc]

__all__ = ["progress"]

#: Seconds between two lines.
_PAUSE: Final = 2.0


@contextmanager
def progress(total: int, output: Any, say: Callable[[str], None]) -> Iterator[Callable[[int], None]]:
    """Gives a function to be told how many are done. ``say`` writes a line to ``output``."""
    if Console is None or not output.isatty():
        yield _lines(total, say)
        return
    columns = (TextColumn("Removing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=output), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def _lines(total: int, say: Callable[[str], None]) -> Callable[[int], None]:
    told = time.monotonic()

    def tell(done: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _PAUSE:
            told = time.monotonic()
            say(f"Removed {done:,} of {total:,} ...")

    return tell
