"""Values as msgpack: what it knows at the speed of C, all else as extension types.

``msgpack`` rather than ``ormsgpack``: keys of dicts may be of any type, lone surrogates survive, and what is raised
while reading (a missing class, a time limit) comes out as itself instead of as "ext_hook failed".
"""

from __future__ import annotations

from functools import reduce
from typing import Any, Final, cast

from msgpack import ExtType, Timestamp, Unpacker, packb, unpackb  # type: ignore[import-untyped,unused-ignore]

from stepflows.caches import instances, replay, types
from stepflows.caches.classes import per_class
from stepflows.caches.kind import Kind, Unpack
from stepflows.caches.remedies import refusal
from stepflows.errors import NotCacheable

__all__ = ["LOOKALIKES", "MAX_DEPTH", "Writer", "kind_of", "pack_plain", "unpack"]

#: How deep extension types may lie in each other. Lists and dicts have limits of their own.
MAX_DEPTH: Final = 64
#: msgpack writes a list in a list by recursion in C, so its 511 at every one of our levels would exhaust the stack.
_FREE_DEPTH: Final = 3
_LISTS_BELOW: Final = 16
#: unpackb() takes 40 kB of the thread's stack, an Unpacker lies on the heap but takes five times as long to make.
_ON_THE_STACK: Final = 3

_EXACT = types.KINDS
_READ: Final = {kind.code: kind.read for kind in (*_EXACT.values(), *instances.KINDS, *replay.KINDS)}

#: msgpack writes these as if they were bytes or extension types of ours.
LOOKALIKES: Final = frozenset({bytearray, memoryview, ExtType, Timestamp})
#: The bytes with which it does so. Without them there can be none, so most values need no second look.
_LOOKALIKE_MARKS: Final = bytes([*range(0xC4, 0xCA), *range(0xD4, 0xD9)])


@per_class
def kind_of(cls: type) -> Kind | None:
    """How instances of the class are written, if they can be and are not msgpack's own."""
    if issubclass(cls, BaseException):
        return replay.EXCEPTION
    return _EXACT.get(cls) or instances.kind_of_class(cls)


def pack_plain(value: Any) -> bytes:
    """Bytes for a value that is known to hold only what msgpack itself knows."""
    return packb(value, unicode_errors="surrogatepass")  # type: ignore[no-any-return]


class Writer:
    """One encoding. It keeps what is under way and is not to be used again after it has raised."""

    __slots__ = ("depth", "made", "open", "slim")

    def __init__(self, *, slim: bool = False) -> None:
        self.depth = 0
        self.open: list[int] = []
        self.made: list[int] = []
        self.slim = slim

    def pack(self, value: Any) -> bytes:
        """The value as bytes. Raises :exc:`~stepflows.errors.NotCacheable` without a path."""
        if self.depth == MAX_DEPTH or (self.depth > _FREE_DEPTH and _is_deep(value)):
            raise _too_deep()
        self.depth += 1
        try:
            data: bytes = packb(value, default=self._extension, strict_types=True, unicode_errors="surrogatepass")
        except (ValueError, RecursionError) as exc:
            raise _too_deep() from exc
        finally:
            self.depth -= 1
        if len(data.translate(None, _LOOKALIKE_MARKS)) != len(data):
            _refuse_lookalikes(value)
        return data

    def _extension(self, value: Any) -> ExtType:
        kind = kind_of(type(value))
        if kind is None:
            raise refusal(value)
        if kind is replay.EXCEPTION and id(value) in self.made:
            kind = replay.REFERENCE
        return ExtType(kind.code, kind.write(value, self))


def _too_deep() -> NotCacheable:
    return NotCacheable("it is nested too deeply", remedy="Return flatter data.")


def _is_deep(value: Any) -> bool:
    """Whether more lists and dicts lie in each other than are allowed deep down."""
    layer = {id(value): value}
    for _ in range(_LISTS_BELOW):
        inner = (item for part in layer.values() for item in _lists_in(part))
        layer = {id(item): item for item in inner}
        if not layer:
            return False
    return True


def _lists_in(part: Any) -> list[Any]:
    items = part.values() if type(part) is dict else part if type(part) is list else ()
    return [item for item in items if type(item) is list or type(item) is dict]


def _refuse_lookalikes(value: Any) -> None:
    """Raise if a look-alike is in the lists and dicts of a value; extension types have looked at theirs already."""
    rest: list[Any] = [[value]]
    while rest:
        part = rest.pop()
        inner = [*part, *part.values()] if type(part) is dict else part
        found = set(map(type, inner))
        if not found.isdisjoint(LOOKALIKES):
            raise refusal(next(item for item in inner if type(item) in LOOKALIKES))
        if list in found or dict in found:
            rest += [item for item in inner if type(item) is list or type(item) is dict]


def _level(inner: Unpack, depth: int) -> Unpack:
    """A function that unpacks, with ``inner`` for what lies in extension types."""

    def extension(code: int, body: bytes) -> Any:
        read = _READ.get(code)
        if read is None:
            raise ValueError(f"unknown extension type {code}")
        return read(body, inner)

    def on_the_stack(data: bytes | memoryview) -> Any:
        return unpackb(data, ext_hook=extension, strict_map_key=False, unicode_errors="surrogatepass")

    def on_the_heap(data: bytes | memoryview) -> Any:
        unpacker = Unpacker(
            ext_hook=extension,
            strict_map_key=False,
            unicode_errors="surrogatepass",
            read_size=1,
            max_buffer_size=max(len(data), 1),
        )
        unpacker.feed(data)
        value = unpacker.unpack()
        if unpacker.tell() != len(data):
            raise ValueError("there is more than one value in an extension type")
        return value

    return on_the_stack if depth < _ON_THE_STACK else on_the_heap


def _refuse(_: bytes | memoryview) -> Any:
    raise ValueError("extension types lie too deep in each other")


#: The value of some bytes. Raises ValueError and its like for bytes that are none, and ClassNotLoaded.
unpack: Final[Unpack] = reduce(_level, reversed(range(MAX_DEPTH)), cast(Unpack, _refuse))
