r"""Which entries a Redis server holds: two sorted sets per alias, kept by scripts so that no two of them can interfere.

One set holds a member ``<scope>\0<key>`` for each entry, all with score 0, so it is ordered text. The other holds
those that have a ttl, scored by the time when it ends (milliseconds of the server's clock), so what is past is found
without a search. Entries that the server evicted, or somebody else deleted, leave their members behind until a listing
finds out.

A last member, above all text, says that the set knows of all entries there are. It is put there when the set begins,
together with a mark in a key of its own. So where there is the mark but no such member, the set was lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from django.core.cache.backends.base import BaseCache

from stepflows.caches import scripts
from stepflows.caches.backend import BATCH, Answer, Survey, Write
from stepflows.caches.codec import current_codec
from stepflows.caches.connection import Flow, Script
from stepflows.caches.enumerable import HEAD_BYTES, made_prefix
from stepflows.caches.names import Name, backend_key, lease_key, reserved_key
from stepflows.engine.cache import Damaged

__all__ = ["EVERYTHING", "NAMES", "Index", "Range", "batches", "milliseconds", "range_of"]

T = TypeVar("T")

#: The members from ``low`` (included) to ``high`` (left out).
Range = tuple[bytes, bytes]

# Above every byte of UTF-8.
_TOP: Final = b"\xff"
# Above all members of a scope, whatever bytes somebody has put there.
_BEYOND: Final = b"\1"
EVERYTHING: Final[Range] = (b"", _TOP)

#: How much one command reads, claims or writes: while it does, the server keeps everybody else waiting.
NAMES: Final = 500
_BYTES: Final = 1_000_000
_CENTURIES: Final = 10**16
_WRITTEN: Final = {1: Answer.WRITTEN, 2: Answer.LATE, 3: Answer.LOST}
# What means more than itself in a pattern of SCAN.
_SPECIAL: Final = re.compile(r"[][*?\\]")


class Index:
    """The index of one alias, whose entries come and go with their members."""

    def __init__(self, cache: BaseCache) -> None:
        self._cache = cache

    def write(self, writes: Iterable[Write]) -> Flow[list[bytes | Answer]]:
        """See :meth:`~stepflows.caches.backend.Backend.write`."""
        answers: list[bytes | Answer] = []
        for batch in _small_batches(writes):
            places = [key for write in batch for key in self._places(write.name)]
            arguments = [part for write in batch for part in _arguments(write)]
            replies = yield from self._run(scripts.WRITE, places, arguments)
            answers += [_WRITTEN[reply] if isinstance(reply, int) else reply for reply in replies]
        return answers

    def remove(self, names: Sequence[Name]) -> Flow[int]:
        """Remove entries and their members at once, and return how many entries there were."""
        there = 0
        for batch in batches(names, BATCH):
            there += yield from self._run(scripts.REMOVE, self._keys(batch), map(_member_of, batch))
        return there

    def count(self, bounds: Range) -> Flow[int]:
        return self._listed(scripts.COUNT, *bounds)

    def page(self, bounds: Range, start: int, limit: int) -> Flow[tuple[list[Name], bytes | None]]:
        """Names of entries, of at most ``limit`` members by rank; and where the next page begins, if there is one.

        Members whose entry is not there are dropped from the index.
        """
        members = yield from self._listed(scripts.PAGE, *bounds, start, limit)
        if not members:
            return [], None
        names = list(map(_name_of, members))
        living = yield from self._run(scripts.LIVING, self._keys(names), members)
        # From the last one on, whatever is removed or stored meanwhile.
        following = members[-1] + b"\0" if len(members) == limit else None
        return [name for name, lives in zip(names, living, strict=True) if lives], following

    def scopes(self) -> Flow[list[str]]:
        """Every scope, by leaping from each one's first member to the next one's."""
        scopes: list[str] = []
        low = b""
        while True:
            found = yield from self._listed(scripts.SCOPES, low, BATCH)
            scopes += map(_text, found)
            if len(found) < BATCH:
                return scopes
            low = found[-1] + _BEYOND

    def survey(self, plain: str | None, prefix: str, start: int, limit: int, size: int) -> Flow[Survey | None]:
        """See :meth:`~stepflows.caches.backend.Backend.survey`; ``None`` if some had gone, and was dropped."""
        sizes: dict[str, int] = {}
        members: list[bytes] = []
        low: bytes | None = b""
        wanted = int(plain is None), _encoded(plain or ""), _encoded(prefix)
        count = is_complete = 0
        while low is not None:
            left = limit - len(members)
            reply = yield from self._listed(scripts.SURVEY, low, BATCH, *wanted, start, left)
            scopes, of_each, of_wanted, page, is_complete, low, start = reply
            sizes.update(zip(map(_text, scopes), of_each, strict=True))
            members += page
            count += of_wanted
        names = list(map(_name_of, members))
        heads = yield from self._looked(names, members, size)
        return None if None in heads else Survey(sizes, count, names, heads, bool(is_complete))

    def _looked(self, names: list[Name], members: list[bytes], size: int) -> Flow[list[bytes | None]]:
        if not names:
            return []
        heads = yield from self._run(scripts.LOOK, self._keys(names), [size - 1, *members])
        # What is no string is foreign, and no entry.
        return [b"" if isinstance(head, list) else head for head in heads]

    def is_complete(self) -> Flow[bool]:
        """Whether no index was lost, as far as the server still knows."""
        return bool((yield from self._run(scripts.COMPLETE)))

    def rebuild(self) -> Flow[int]:
        """List every entry of the server's that lies where its name belongs, and return how many are listed then."""
        pattern = _SPECIAL.sub(r"\\\g<0>", made_prefix(self._cache)) + "*"
        cursor = -1
        while cursor != 0:
            cursor, places = yield ("SCAN", max(cursor, 0), "MATCH", pattern, "COUNT", BATCH)
            if found := (yield from self._entries(places)):
                yield from self._run(scripts.LIST, found, map(_member_of, found.values()))
        yield from self._run(scripts.FINISH)
        return (yield from self.count(EVERYTHING))

    def _entries(self, places: Sequence[bytes]) -> Flow[dict[bytes, Name]]:
        """Of some of the server's keys those that are entries, which tell their names: a key may be a hash."""
        found: dict[bytes, Name] = {}
        codec = current_codec()
        for place, data in zip(places, (yield from scripts.HEADS(places, [HEAD_BYTES - 1])), strict=True):
            head = codec.head(data)
            if not isinstance(head, Damaged):
                name = Name(head.scope, head.key)
                if self._keys([name]) == [place.decode("utf-8", "replace")]:
                    found[place] = name
        return found

    def _listed(self, script: Script, *arguments: bytes | int) -> Flow[Any]:
        while True:
            more, *reply = yield from self._run(script, (), arguments)
            if not more:
                return reply[0]

    def _run(
        self, script: Script, keys: Iterable[str | bytes] = (), arguments: Iterable[bytes | str | int] = ()
    ) -> Flow[Any]:
        # Made anew each time: a KEY_FUNCTION may give each tenant an index.
        own = [self._cache.make_key(reserved_key(purpose)) for purpose in ("index", "expiry", "indexed")]
        return (yield from script([*own, *keys], arguments))

    def _keys(self, names: Iterable[Name]) -> list[str]:
        make_key = self._cache.make_key
        return [make_key(backend_key(name)) for name in names]

    def _places(self, name: Name) -> tuple[str, str]:
        return self._cache.make_key(backend_key(name)), self._cache.make_key(lease_key(name))


def batches(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _arguments(write: Write) -> tuple[bytes | str | int, ...]:
    span = 0 if write.ttl is None else milliseconds(write.ttl)
    return write.data, _member_of(write.name), span, write.token, int(write.replace), int(write.yields)


def _small_batches(writes: Iterable[Write]) -> Iterator[list[Write]]:
    batch: list[Write] = []
    size = 0
    for write in writes:
        size += len(write.data)
        if batch and (size > _BYTES or len(batch) == NAMES):
            yield batch
            batch, size = [], len(write.data)
        batch.append(write)
    if batch:
        yield batch


def milliseconds(seconds: float) -> int:
    return min(max(1, round(seconds * 1000)), _CENTURIES)


def range_of(scope: str | None, prefix: str = "") -> Range:
    """The members of a scope whose key has a prefix; or all members of all scopes."""
    if scope is None:
        return EVERYTHING
    low = _member_of(Name(scope, prefix))
    return low, low + _TOP


def _member_of(name: Name) -> bytes:
    return _encoded("\0".join(name))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _name_of(member: bytes) -> Name:
    scope, _, key = _text(member).partition("\0")
    return Name(scope, key)


def _text(data: bytes) -> str:
    # What is no UTF-8 is none of ours; whatever name it makes here has no entry and is dropped.
    return data.decode("utf-8", "replace")
