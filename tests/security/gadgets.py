"""Classes of a project, of the kind that somebody who can write to the cache would like to have run."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

__all__ = ["PATH", "RAN"]

PATH = __name__
#: The methods that ran.
RAN: list[str] = []


class Noted:
    """Notes whatever is called when instances are made in the ordinary way, or by pickle."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        RAN.append("__new__")
        return super().__new__(cls)

    def __init_subclass__(cls) -> None:
        for name in ("__init__", "__post_init__", "__setattr__", "__setstate__", "__call__", "__getattr__"):
            if name not in vars(cls):
                setattr(cls, name, lambda *args, _name=name, **kwargs: RAN.append(_name))


@dataclass(init=False)
class Command(Noted):
    """Runs something in a shell, if one lets it."""

    line: str


class Failed(Noted, Exception):
    """An error that does something when it is made."""


class Job(NamedTuple):
    line: str


@dataclass
class Finalized:
    """Does something when it goes."""

    line: str

    def __del__(self) -> None:
        RAN.append(f"__del__ {getattr(self, 'line', None)}")


class FinalizedError(Exception):
    def __del__(self) -> None:
        RAN.append("__del__")


@dataclass
class Hashed:
    """Does something when it is put into a set."""

    line: str

    def __hash__(self) -> int:
        RAN.append(f"__hash__ {self.line}")
        return 0


class Mode(enum.Enum):
    FAST = enum.auto()

    @classmethod
    def _missing_(cls, value: object) -> Any:
        RAN.append("_missing_")
        return cls.FAST


class Right(enum.Flag):
    READ = 1

    @classmethod
    def _missing_(cls, value: object) -> Any:
        RAN.append("_missing_")
        return cls.READ


def function(*args: Any) -> None:
    RAN.append("function")
