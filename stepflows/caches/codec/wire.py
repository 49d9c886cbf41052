"""Values as msgpack: what it knows at the speed of C, all else as extension types.

``msgpack`` rather than ``ormsgpack``: keys of dicts may be of any type, lone surrogates survive, and what is raised
while reading (a missing class, a time limit) comes out as itself instead of as "ext_hook failed".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial, reduce
from itertools import chain, islice
from typing import Any, Final, cast

from msgpack import ExtType, Packer, Timestamp, Unpacker, unpackb  # type: ignore[import-untyped,unused-ignore]

from stepflows.caches.codec import exceptions, types
from stepflows.caches.codec.classes import ENUM, RECORD, kind_of_class, per_class
from stepflows.caches.codec.exceptions import Unpack
from stepflows.caches.codec.lengths import check_lengths
from stepflows.caches.codec.refusal import refusal
from stepflows.errors import NotCacheable

__all__ = ["pack", "unpack"]

#: How deep extension types may lie in each other. Lists and dicts have limits of their own.
_MAX_DEPTH: Final = 64
#: msgpack writes a list in a list by recursion in C, so its 511 at every one of our levels would exhaust the stack.
_FREE_DEPTH: Final = 3
_LISTS_BELOW: Final = 16
#: unpackb() takes 40 kB of the thread's stack, an Unpacker lies on the heap but takes five times as long to make.
_ON_THE_STACK: Final = 3
#: Exceptions inside exceptions (causes, groups, arguments) beyond this are kept by name and message.
_MAX_ERRORS: Final = 10

_EXCEPTION: Final = 15
_READ: Final = {kind.code: kind.read for kind in (*types.KINDS.values(), ENUM, RECORD)}

#: msgpack writes these as if they were bytes or extension types of ours.
_LOOKALIKES: Final = frozenset({bytearray, memoryview, ExtType, Timestamp})
#: The bytes with which it does so. Without them there can be none, so most values need no second look.
_LOOKALIKE_MARKS: Final = bytes([*range(0xC4, 0xCA), *range(0xD4, 0xD9)])

_kind_of: Final = per_class(lambda cls: types.KINDS.get(cls) or kind_of_class(cls))


class _Writer:
    """One encoding under way."""

    __slots__ = ("depth", "errors")

    def __init__(self) -> None:
        self.depth = 0
        #: The exceptions under way, outermost first, by id.
        self.errors: list[int] = []

    def pack(self, value: Any) -> bytes:
        if self.depth == _MAX_DEPTH or (self.depth > _FREE_DEPTH and any(islice(_layers(value), _LISTS_BELOW, None))):
            raise _too_deep()
        try:
            packer = Packer(default=self._extension, strict_types=True, unicode_errors="surrogatepass", buf_size=512)
            data: bytes = packer.pack(value)
        except (ValueError, RecursionError) as exc:
            raise _too_deep() from exc
        if len(data.translate(None, _LOOKALIKE_MARKS)) != len(data):
            _refuse_lookalikes(value)
        return data

    def _extension(self, value: Any) -> ExtType:
        self.depth += 1
        try:
            # Not isinstance(), which would have a lazy object make what it stands for.
            if issubclass(type(value), BaseException):
                return ExtType(_EXCEPTION, self.pack(self._parts_of(value)))
            kind = _kind_of(type(value))
            if kind is None:
                raise refusal(value)
            return ExtType(kind.code, self.pack(kind.write(value)))
        finally:
            self.depth -= 1

    def _parts_of(self, error: BaseException) -> list[Any]:
        if id(error) in self.errors or len(self.errors) == _MAX_ERRORS:
            return exceptions.summary(error)
        self.errors.append(id(error))
        try:
            return exceptions.write(error, self.pack)
        finally:
            self.errors.pop()


def pack(value: Any) -> bytes:
    """The value as bytes. Raises :exc:`~stepflows.errors.NotCacheable` without a path."""
    return _Writer().pack(value)


def _too_deep() -> NotCacheable:
    return NotCacheable("it is nested too deeply", remedy="Return flatter data.")


def _refuse_lookalikes(value: Any) -> None:
    """Raise if a look-alike is in the lists and dicts of a value; extension types have looked at theirs already."""
    for part in chain([[value]], *_layers(value)):
        if not _LOOKALIKES.isdisjoint(map(type, part)):
            raise refusal(next(item for item in part if type(item) in _LOOKALIKES))


def _layers(value: Any) -> Iterator[Iterable[Any]]:
    """The lists and dicts of a value as iterables of what they hold, outermost first, those of one depth together."""
    layer: Iterable[Any] = [[value]]
    while layer := {id(item): item for part in layer for item in part if type(item) is list or type(item) is dict}:
        layer = [(*part, *part.values()) if type(part) is dict else part for part in layer.values()]
        yield layer


def _level(inner: Unpack, depth: int) -> Unpack:
    """A function that unpacks, with ``inner`` for what lies in extension types."""
    readers: dict[int, Callable[..., Any]] = {**_READ, _EXCEPTION: partial(exceptions.read, inner)}

    def extension(code: int, body: bytes) -> Any:
        if code not in readers:
            raise ValueError(f"unknown extension type {code}")
        parts = inner(body)
        if type(parts) is not list:
            raise ValueError("an extension type has a body of the wrong shape")
        return readers[code](*parts)

    def on_the_stack(data: bytes | memoryview) -> Any:
        check_lengths(data)
        return unpackb(data, ext_hook=extension, strict_map_key=False, unicode_errors="surrogatepass")

    def on_the_heap(data: bytes | memoryview) -> Any:
        unpacker = Unpacker(
            ext_hook=extension,
            strict_map_key=False,
            unicode_errors="surrogatepass",
            read_size=1,
            max_buffer_size=max(len(data), 1),
        )
        check_lengths(data)
        unpacker.feed(data)
        (value,) = unpacker
        return value

    return on_the_stack if depth < _ON_THE_STACK else on_the_heap


def _refuse(_: bytes | memoryview) -> Any:
    raise ValueError("extension types lie too deep in each other")


#: The value of some bytes. Raises ValueError and its like for bytes that are none, and ClassNotLoaded.
unpack: Final[Unpack] = reduce(_level, reversed(range(_MAX_DEPTH)), cast(Unpack, _refuse))
