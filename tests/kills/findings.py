"""What the notes say, read from the first to the last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.flows.kills import Note

__all__ = ["Findings", "Waiting"]

Step = tuple[str, int]


@dataclass
class Waiting:
    """From a strike until the run is at work again."""

    #: orphan (it was running), or lost (it was queued, and its message was lost).
    kind: str
    since: float
    #: When it was struck again since: its message was lost, or the worker that had taken it, before it did anything.
    struck: list[float] = field(default_factory=list)
    until: float | None = None

    @property
    def seconds(self) -> float | None:
        return self.until and self.until - self.since

    @property
    def seconds_since_last(self) -> float | None:
        return self.until and self.until - [self.since, *self.struck][-1]


@dataclass
class Findings:
    """A step is finished once its result is stored; what its function has noted itself says nothing about that.

    That it is stored is known in two ways: the step has returned to the body (``passed``), or its key was seen in the
    cache after a kill (``cached``). Both are noted after the fact, so a function whose start is noted later still was
    executed again. A step is interrupted when its function was started by a process of the killed worker, and its key
    is not in the cache after the end of that process.
    """

    starts: Counter[Step] = field(default_factory=Counter)
    #: Starts of steps that were finished.
    again: list[Note] = field(default_factory=list)
    #: Starts of steps that somebody else was just at, and alive.
    together: list[Note] = field(default_factory=list)
    #: By process group.
    interrupted: dict[int, set[Step]] = field(default_factory=dict)
    #: Of the interrupted ones, those whose function had come to its end.
    unstored: int = 0
    flushes: int = 0
    waitings: list[Waiting] = field(default_factory=list)
    _stored: set[Step] = field(default_factory=set)
    #: Who is at it.
    _open: dict[Step, int] = field(default_factory=dict)
    _ended: set[Step] = field(default_factory=set)
    _waiting: dict[str, Waiting] = field(default_factory=dict)

    @classmethod
    def of(cls, notes: Iterable[Note]) -> Findings:
        findings = cls()
        for note in notes:
            read: Callable[[Note], object] | None = getattr(findings, f"_read_{note.kind}", None)
            if read:
                read(note)
        return findings

    def _read_start(self, note: Note) -> None:
        self.starts[note.step] += 1
        if note.step in self._stored:
            self.again.append(note)
        elif note.step in self._open:
            self.together.append(note)
        self._open[note.step] = note.group
        self._ended.discard(note.step)
        self._is_at_work(note)

    def _read_end(self, note: Note) -> None:
        self._ended.add(note.step)

    def _read_passed(self, note: Note) -> None:
        self._stored.add(note.step)
        self._open.pop(note.step, None)
        self._is_at_work(note)

    def _read_cached(self, note: Note) -> None:
        self._stored.add(note.step)

    def _read_killed(self, note: Note) -> None:
        under_way = {step for step, group in self._open.items() if group == note.group}
        self.interrupted[note.group] = under_way - self._stored
        self.unstored += len(under_way - self._stored & self._ended)
        for step in under_way:
            del self._open[step]

    def _read_flushed(self, note: Note) -> None:
        self.flushes += 1

    def _read_orphan(self, note: Note) -> None:
        self._read_struck(note)
        self._waiting[note.run].kind = "orphan"

    def _read_lost(self, note: Note) -> None:
        self._read_struck(note)

    def _read_struck(self, note: Note) -> None:
        if note.run in self._waiting:
            self._waiting[note.run].struck.append(note.time)
        else:
            self._waiting[note.run] = Waiting(note.kind, note.time)
            self.waitings.append(self._waiting[note.run])

    def _is_at_work(self, note: Note) -> None:
        if waiting := self._waiting.pop(note.run, None):
            waiting.until = note.time
