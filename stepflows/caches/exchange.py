"""What goes to and fro between the results of one scope and the bytes of a backend, written once for both voices."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from stepflows.caches.backend import Answer, Backend, Held, Hold, Write
from stepflows.caches.codec import current_codec
from stepflows.caches.keeper import HeldLease, keeper
from stepflows.caches.mapping import judged, remaining
from stepflows.caches.names import Name
from stepflows.engine.cache import LOST, MISSING, Busy, Claimed, Damaged, Entry, Lease, Lookup, Standing
from stepflows.errors import NotCacheable
from stepflows.results import Err, Ok

__all__ = ["adrive", "all_decoded", "claiming", "decoded", "drive", "frozen", "holds", "storing"]

T = TypeVar("T")
#: Calls of the backend: a method, its arguments and its options; each is sent what the method returns.
Calls: TypeAlias = Generator[tuple[str, tuple[Any, ...], dict[str, Any]], Any, T]


def decoded(scope: str, key: str, data: bytes | None) -> Lookup:
    """What bytes under a key count as."""
    if data is None:
        return MISSING
    found = current_codec().decode(data, scope, key)
    return found if _is_for_ever(found) else _unexpired(found)


def all_decoded(scope: str, keys: Sequence[str], found: Sequence[bytes | None]) -> list[Lookup]:
    """The same for many."""
    decode = current_codec().decode
    lookups = [MISSING if data is None else decode(data, scope, key) for key, data in zip(keys, found, strict=True)]
    return [each if each is MISSING or _is_for_ever(each) else _unexpired(each) for each in lookups]


def claiming(
    scope: str, backend: Backend, token: str, keys: Sequence[str], seconds: float, *, refresh: bool
) -> Calls[list[Claimed]]:
    names = [Name(scope, key) for key in keys]
    answers: list[Any] = yield "claim", (names, token, seconds), {"force": refresh}
    claimed: list[Any] = [
        decoded(scope, name.key, a) if isinstance(a, bytes) else a for name, a in zip(names, answers, strict=True)
    ]
    # What is damaged, or has expired by the clock here, is in nobody's way.
    useless = [at for at, answer in enumerate(claimed) if isinstance(answer, Damaged) or answer is MISSING]
    if useless:
        yield from _claiming_anyway(scope, names, token, seconds, claimed, useless)
    leases = [
        _granted(answer, Hold(name, token), backend, seconds) for name, answer in zip(names, claimed, strict=True)
    ]
    keeper.watch(lease for lease in leases if isinstance(lease, HeldLease))
    return [lease or answer for lease, answer in zip(leases, claimed, strict=True)]


def frozen(scope: str, entry: Entry) -> Entry | NotCacheable:
    """The entry with a copy of its value; or why that cannot be kept."""
    codec = current_codec()
    try:
        copy = codec.decode(codec.encode(entry.result, scope, entry.key), scope, entry.key)
    except NotCacheable as error:
        return error
    return entry if isinstance(copy, Damaged) else entry._replace(result=copy)


def _claiming_anyway(
    scope: str, names: Sequence[Name], token: str, seconds: float, claimed: list[Any], useless: Sequence[int]
) -> Calls[None]:
    wanted = [names[at] for at in useless]
    again: list[Any] = yield "claim", (wanted, token, seconds), {"force": True}
    # Between the two somebody may have put a result in its place.
    found = yield "read_many", (wanted,), {}
    spare: list[Hold] = []
    for at, answer, data in zip(useless, again, found, strict=True):
        result = decoded(scope, names[at].key, data)
        claimed[at] = result if isinstance(result, Ok | Err) else answer
        if claimed[at] is result and not isinstance(answer, Busy):
            spare.append(Hold(names[at], token, answer.place if isinstance(answer, Held) else ""))
    if spare:
        yield "release", (spare,), {}


def storing(scope: str, entries: Sequence[Entry]) -> Calls[list[Standing]]:
    standing: list[Standing] = [entry.result for entry in entries]
    writes: dict[int, Write] = {}
    for at, entry in enumerate(entries):
        ttl = remaining(entry.result)
        if ttl is not None and ttl <= 0:
            yield from _ending(scope, entry)
            continue
        try:
            writes[at] = _write(scope, entry, ttl)
        except NotCacheable as error:
            standing[at] = error
    stay = (yield from _writing(scope, writes, standing)) if writes else []
    if ended := holds(filter(None, [entries[at].lease for at in stay])):
        yield "release", (ended,), {}
    return standing


def _writing(scope: str, writes: Mapping[int, Write], standing: list[Standing]) -> Calls[list[int]]:
    """Note what stands there where it is not what was to be written. Returns where the lease was not ended by it."""
    stay: list[int] = []
    useless: list[int] = []
    for at, answer in zip(writes, (yield "write", (list(writes.values()),), {}), strict=True):
        if answer is Answer.LOST:
            standing[at] = LOST
        elif isinstance(answer, bytes):
            name, data, *_ = writes[at]
            first = standing[at] if answer == data else decoded(scope, name.key, answer)
            if isinstance(first, Ok | Err):
                standing[at] = first
                stay.append(at)
            else:
                useless.append(at)
    if useless:
        # Under the lease still, so that nobody runs the step between the two.
        again = [writes[at]._replace(replace=True, yields=bool(writes[at].token)) for at in useless]
        for at, answer in zip(useless, (yield "write", (again,), {}), strict=True):
            standing[at] = LOST if answer is Answer.LOST else standing[at]
    return stay


def _write(scope: str, entry: Entry, ttl: float | None) -> Write:
    return Write(
        Name(scope, entry.key),
        current_codec().encode(entry.result, scope, entry.key),
        ttl,
        entry.replace,
        entry.lease.token if entry.lease else "",
        bool(entry.lease and entry.lease.token) and (entry.replace or not entry.result.ok),
    )


def _ending(scope: str, entry: Entry) -> Calls[None]:
    """What is past its time is not stored, but takes the place of what was there."""
    if entry.replace:
        yield "remove", ([Name(scope, entry.key)],), {}
    if entry.lease:
        keeper.forget([entry.lease])
        yield "release", (holds([entry.lease]),), {}


def _is_for_ever(found: Ok[Any] | Err | Damaged) -> bool:
    # Most are, and then nobody needs to know what time it is.
    return type(found) is Ok and found.stamp is not None and found.stamp.expires_at is None


def _unexpired(found: Ok[Any] | Err | Damaged) -> Lookup:
    return found if isinstance(found, Damaged) else judged(found)


def drive(backend: Backend, calls: Calls[T]) -> T:
    answer = None
    while True:
        try:
            method, arguments, options = calls.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # a generator's StopIteration has no type
        answer = getattr(backend, method)(*arguments, **options)


async def adrive(backend: Backend, calls: Calls[T]) -> T:
    answer = None
    while True:
        try:
            method, arguments, options = calls.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # a generator's StopIteration has no type
        answer = await getattr(backend, "a" + method)(*arguments, **options)


def _granted(answer: Any, hold: Hold, backend: Backend, seconds: float) -> Lease | None:
    if answer is Answer.UNGUARDED:
        return Lease(hold.name.key, "")
    if answer is Answer.GRANTED or isinstance(answer, Held):
        place = answer.place if isinstance(answer, Held) else ""
        return HeldLease(hold.name.key, hold._replace(place=place), backend, seconds)
    return None


def holds(leases: Iterable[Lease]) -> list[Hold]:
    return [lease.hold for lease in leases if isinstance(lease, HeldLease)]
