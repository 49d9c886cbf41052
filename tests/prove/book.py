"""What callers of one process did, in the order in which it happened, and what of it may not be."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Book", "Execution", "Span"]


@dataclass
class Span:
    """From one moment to another; moments are counted, not timed."""

    begun: int
    #: None while it lasts.
    ended: int | None = None

    def meets(self, begun: int, ended: int) -> bool:
        return self.begun <= ended and (self.ended is None or self.ended >= begun)


@dataclass
class Execution:
    """One call of a step's function."""

    serial: int
    key: str
    #: When its run had asked for the step, and when it was called.
    asked: int
    started: int
    #: When somebody had first got its result from the cache, or was told that it is stored; None if nobody was.
    stored: int | None = None


@dataclass
class Book:
    """All that was done to some keys in one cache, and to the cache."""

    executions: dict[int, Execution] = field(default_factory=dict)
    #: When the cache was in trouble, and when it lost what it held.
    troubles: list[Span] = field(default_factory=list)
    lapses: list[Span] = field(default_factory=list)
    #: Whether steps are run uncached when the cache is in trouble.
    runs_anyway: bool = False
    #: Results that were compared.
    compared: int = 0
    #: Runs that were told that the cache is away.
    refused: int = 0
    #: What should not have been, in words.
    wrong: list[str] = field(default_factory=list)
    _moments: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def moment(self) -> int:
        with self._lock:
            self._moments += 1
            return self._moments

    def begin(self, key: str, asked: int) -> Execution:
        """A function is called."""
        moment = self.moment()
        with self._lock:
            execution = Execution(len(self.executions), key, asked, moment)
            self.executions[execution.serial] = execution
        return execution

    def compare(self, key: str, value: object, *, stored: bool) -> None:
        """Somebody was given this for the key: it has to be what an execution for that very key returned."""
        moment = self.moment()
        with self._lock:
            self.compared += 1
            execution = self.executions.get(value[1]) if isinstance(value, list) and len(value) == 2 else None
            if execution is None or value != [key, execution.serial] or execution.key != key:
                self.wrong.append(f"{key} has the wrong result {value!r}.")
            elif stored and execution.stored is None:
                execution.stored = moment

    def refuse(self, what: str, since: int) -> None:
        """A run was told that the cache is away; it may be told so only when it is."""
        now = self.moment()
        self.refused += 1
        if not _met(self.troubles, since, now):
            self.wrong.append(f"{what} was told that the cache is away, and it was not.")

    def repeated(self) -> Iterator[str]:
        """Executions that need not have been."""
        by_key = defaultdict(list)
        for execution in self.executions.values():
            by_key[execution.key].append(execution)
        for executions in by_key.values():
            executions.sort(key=lambda execution: execution.started)
            for number, later in enumerate(executions):
                yield from (told for before in executions[:number] if (told := self._judged(before, later)))

    def _judged(self, before: Execution, later: Execution) -> str:
        if self.runs_anyway and _met(self.troubles, later.asked, later.started):
            return ""
        if before.stored is not None and before.stored < later.asked:
            if not _met(self.lapses, before.started, later.started):
                return f"{later.key} was executed again although its result was stored."
        elif not _met(self.troubles, before.asked, later.started):
            return f"{later.key} was executed twice although the cache was well."
        return ""


def _met(spans: list[Span], begun: int, ended: int) -> bool:
    return any(span.meets(begun, ended) for span in spans)
