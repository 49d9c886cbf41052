"""The ledger of the soak: what steps did, and what was done to their results since."""

from __future__ import annotations

from dataclasses import dataclass

from tests.flows.kills import Note, noticed
from tests.kills.findings import Findings

__all__ = ["Ledger", "deed", "done", "dropped", "value_of", "void"]


def value_of(name: str, place: int) -> str:
    """What the step of that place in an order returns."""
    return f"{name} {place}"


def deed(name: str, place: int) -> str:
    """The deed of a step; it is done once, unless it is interrupted, or its result is void."""
    noticed("start", name, place)
    return value_of(name, place)


def done(name: str, place: int) -> None:
    """Its result has come back to the body, so it is stored."""
    noticed("passed", name, place)


def void(name: str, place: int) -> None:
    """Its result is about to be removed, or has expired: it may be done once more."""
    noticed("void", name, place)


def dropped(name: str, place: int) -> None:
    """It was cancelled, and has no result."""
    noticed("dropped", name, place)


@dataclass
class Ledger(Findings):
    """The findings of the kill test, of steps whose results may be removed."""

    def _read_void(self, note: Note) -> None:
        self._stored.discard(note.step)

    def _read_dropped(self, note: Note) -> None:
        self._open.pop(note.step, None)

    @property
    def wrong(self) -> list[str]:
        again = [f"{note.run} {note.place} was done again although its result was stored." for note in self.again]
        return again + [f"{note.run} {note.place} was done twice at a time." for note in self.together]
