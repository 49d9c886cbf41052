"""Runs on a worker, without a worker: performed where the test is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

from asgiref.sync import sync_to_async
from django.core.exceptions import ObjectDoesNotExist
from django.utils.module_loading import import_string

from stepflows.engine.loops import is_on_a_loop
from stepflows.errors import InvalidUse
from stepflows.messages import withheld

if TYPE_CHECKING:
    from stepflows.models import Run

__all__ = ["QueuedRuns", "runs_in_place"]


class QueuedRuns(Sequence["Run"]):
    """The runs that were queued in the block, in that order. Those whose row was rolled back are dropped on the way."""

    def __init__(self, perform: Callable[[Any], bool]) -> None:
        self._perform = perform
        self._runs: list[Run] = []

    def __repr__(self) -> str:
        return f"<QueuedRuns {self._runs!r}>"

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Run]: ...

    def __getitem__(self, index: int | slice) -> Run | Sequence[Run]:
        return self._runs[index]

    def perform(self) -> None:
        """Perform those that are queued by now, and those that they queue, here; and read their rows again."""
        while waiting := [run for run in list(self._runs) if self._is_waiting(run)]:
            for run in waiting:
                self._perform(run.pk)
                # It can be waited for, although the transaction of a test case never commits.
                run.awaits_commit = False

    async def aperform(self) -> None:
        """The same from an async test."""
        await sync_to_async(self.perform)()

    def note(self, run: Run) -> None:
        """Remember one that would be sent."""
        if run not in self._runs:
            self._runs.append(run)

    def end(self) -> None:
        """Perform what is left. On an event loop nothing may be."""
        if not is_on_a_loop():
            self.perform()
        elif any(run.state == run.State.QUEUED for run in self._runs):
            raise InvalidUse(
                "runs_in_place() ends on an event loop, where runs cannot be performed, and there are some left: "
                f"{', '.join(map(str, self._runs))}. Call: await runs.aperform() at the end of its block."
            )

    def _is_waiting(self, run: Run) -> bool:
        try:
            run.refresh_from_db()
        except ObjectDoesNotExist:
            self._runs.remove(run)
            return False
        return run.state == run.State.QUEUED


@contextmanager
def runs_in_place() -> Iterator[QueuedRuns]:
    """Send nothing to a broker in this block, and perform at its end, in this thread, what was queued in it.

    So is whatever those runs queue, and what is resumed or retried in the block; no ``countdown`` or ``eta`` is waited
    for. To have it done earlier, call ``perform()`` of what the block is given (in async tests ``await
    runs.aperform()``), which is the sequence of the runs::

        with runs_in_place() as runs:
            client.post("/orders/7/pay/")
        assert runs[0].result == Ok("receipt")

    It needs no broker and works in Django's ``TestCase``, where nothing is ever committed. If the block raises, nothing
    is performed. A block inside another one has its own runs.
    """
    # Where there is no project, tests of a cache of one's own can be imported; models cannot.
    runs = QueuedRuns(import_string("stepflows.runs.perform"))
    with withheld(runs.note):
        yield runs
        runs.end()
