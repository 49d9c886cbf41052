"""Classes at module level, as the codec asks of them."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from datetime import datetime, time, timezone
from decimal import Decimal
from functools import cached_property
from typing import Any, Generic, NamedTuple, Self, TypeVar

from stepflows.caches.codec import Codec
from stepflows.results import Ok

T = TypeVar("T")

__all__ = ["again", "same"]


def again(value: Any) -> Any:
    """The value after a trip through an entry."""
    found = Codec().decode(Codec().encode(Ok(value)))
    assert isinstance(found, Ok), found
    return found.value


def same(one: Any, other: Any) -> bool:
    """Equal, and of one type, at every depth; not-a-number is itself, and a fold or a sign of zero counts."""
    return bool(_spelt(one) == _spelt(other))


def _spelt(value: Any) -> Any:
    """The value with its type, all the way down, in terms that compare by value."""
    cls = type(value)
    if isinstance(value, float):
        return cls, "nan" if math.isnan(value) else value.hex()
    if isinstance(value, dict):
        return cls, [(_spelt(key), _spelt(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return cls, [*map(_spelt, value)]
    if isinstance(value, set | frozenset):
        return cls, sorted(map(_spelt, value), key=repr)
    if isinstance(value, datetime | time):
        return cls, value.replace(tzinfo=None), value.fold, _spelt(value.tzinfo)
    if isinstance(value, timezone | Decimal):
        return cls, repr(value)
    if dataclasses.is_dataclass(value):
        return cls, [_spelt(getattr(value, field.name)) for field in dataclasses.fields(value)]
    return cls, value


#: Whatever ran although nothing of a class may run.
RAN: list[str] = []


class Colour(enum.Enum):
    RED = "red"
    BLUE = ("a", 1)
    CRIMSON = "red"  # noqa: PIE796


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Word(enum.StrEnum):
    YES = "yes"
    NO = "no"


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()
    EXECUTE = enum.auto()


class Mode(enum.IntFlag):
    A = 1
    B = 2


class Outer:
    class Inner(enum.Enum):
        ONE = 1


@dataclass
class Point:
    x: Any
    y: Any = 0


@dataclass(frozen=True)
class Money:
    amount: Any
    currency: str = "EUR"


@dataclass(frozen=True, slots=True)
class Slim:
    a: Any
    b: Any = None


@dataclass
class Counted:
    """With an argument that is no field, a field that is no argument, and code that may not run again."""

    price: int
    factor: InitVar[int]
    total: int = field(init=False)

    def __post_init__(self, factor: int) -> None:
        RAN.append("post_init")
        self.total = self.price * factor
        self.note = "no field"

    @cached_property
    def double(self) -> int:
        RAN.append("double")
        return self.total * 2


@dataclass
class Unfinished:
    a: int
    b: int = field(init=False)


class Guarded:
    def __new__(cls, *args: Any, **options: Any) -> Any:
        RAN.append("new")
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        RAN.append("setattr")
        super().__setattr__(name, value)

    def __setstate__(self, state: Any) -> None:
        RAN.append("setstate")


@dataclass
class Guard(Guarded):
    a: int


@dataclass
class Box(Generic[T]):
    item: T


@dataclass
class DictLike(dict):
    a: int = 0


Pair = namedtuple("Pair", "left right")  # noqa: PYI024
Misnamed = namedtuple("Elsewhere", "a")  # type: ignore[name-match]  # noqa: PYI024


class Row(NamedTuple):
    id: Any
    name: Any = ""


class Noted(Row):
    """Has a __dict__ beside its fields."""

    def __new__(cls, *args: Any) -> Self:
        RAN.append("tuple new")
        return super().__new__(cls, *args)


class Meta(type):
    def __getattr__(cls, name: str) -> Any:
        RAN.append(f"metaclass {name}")
        raise AttributeError(name)


class WithMeta(metaclass=Meta):
    pass


class Declined(Exception):
    def __init__(self, *, code: str, amount: int) -> None:
        RAN.append("init")
        super().__init__(f"declined: {code}")
        self.code = code
        self.amount = amount


class Slotted(Exception):
    __slots__ = ("place", "unset")

    def __init__(self, place: str) -> None:
        self.place = place


class Own(Exception):
    def __new__(cls, *args: Any) -> Self:
        RAN.append("error new")
        return super().__new__(cls, *args)

    @property
    def args(self) -> Any:  # type: ignore[override]
        RAN.append("args")
        return ()

    def __setattr__(self, name: str, value: Any) -> None:
        RAN.append("error setattr")
        super().__setattr__(name, value)


class Both(ValueError, OSError):
    pass


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Failures(ExceptionGroup[Exception]):
    def __new__(cls, errors: list[Exception], code: int) -> Self:
        made = super().__new__(cls, f"code {code}", errors)
        made.code = code
        return made

    code: int


class CodedOSError(OSError):
    def __init__(self, a: str, b: str) -> None:
        super().__init__(5, f"{a} {b}")
        self.a = a


def explode() -> None:
    RAN.append("exploded")


NOT_A_CLASS: Mapping[str, int] = {}
