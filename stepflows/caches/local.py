"""Leases on what lives in this process: mappings, and Map-likes that know no leases of their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from weakref import ref

from stepflows.engine.cache import Busy, Lease
from stepflows.engine.keys import new_token

__all__ = ["give_back", "take", "taking"]

# Reentrant, because a lease may be given back wherever the garbage collector finds its transaction.
_lock = threading.RLock()
_taken: Final[dict[tuple[int, str], ref[_LocalLease]]] = {}


class _LocalLease(Lease):
    __slots__ = ("given",)

    def __init__(self, key: str, token: str, given: Any) -> None:
        super().__init__(key, token)
        # Kept alive, so that no other object can have its id meanwhile.
        self.given = given


def take(given: Any, keys: Iterable[str]) -> list[Lease | Busy]:
    """A lease on each key of this very object, or who has it."""
    token = new_token()
    with _lock:
        return [_take(given, key, token) for key in keys]


@contextmanager
def taking(given: Any, keys: Iterable[str]) -> Iterator[list[Lease | Busy]]:
    """The same, given back if what is done with them fails."""
    taken = take(given, keys)
    try:
        yield taken
    except BaseException:
        give_back(lease for lease in taken if isinstance(lease, Lease))
        raise


def give_back(leases: Iterable[Lease]) -> None:
    with _lock:
        for lease in leases:
            place = (id(lease.given), lease.key)  # type: ignore[attr-defined]
            if (taken := _taken.get(place)) is not None and taken() is lease:
                del _taken[place]


def _take(given: Any, key: str, token: str) -> Lease | Busy:
    place = (id(given), key)
    taken = _taken.get(place)
    held = taken() if taken else None
    if held is not None:
        return Busy(held.token)
    lease = _LocalLease(key, token, given)
    _taken[place] = ref(lease, partial(_dropped, place))
    return lease


def _dropped(place: tuple[int, str], dead: ref[_LocalLease]) -> None:
    """Called when nobody holds a lease any more."""
    with _lock:
        if _taken.get(place) is dead:
            del _taken[place]


def _forked() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have had it
    _lock = threading.RLock()
    _taken.clear()


os.register_at_fork(after_in_child=_forked)
