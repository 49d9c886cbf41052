"""The thread that renews the leases of this process, all of them."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeVar
from weakref import WeakSet

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.db import connections

from stepflows.caches.backend import Backend, Hold
from stepflows.engine.cache import Lease
from stepflows.errors import CacheUnavailable

__all__ = ["HeldLease", "claim_in_thread", "keeper"]

logger = logging.getLogger("stepflows")

T = TypeVar("T")


class HeldLease(Lease):
    """A lease on a Django cache."""

    __slots__ = ("backend", "due", "hold", "seconds")

    def __init__(self, key: str, hold: Hold, backend: Backend, seconds: float) -> None:
        super().__init__(key, hold.token)
        self.hold = hold
        self.backend = backend
        self.seconds = seconds
        #: When it is to be renewed (monotonic).
        self.due = time.monotonic() + seconds / 3


class _Keeper:
    """Renews each lease at a third of its life, those of one cache together.

    It keeps none alive itself: what nobody holds any more is not renewed. A forked child begins with none.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._changed = threading.Condition()
        self._leases: WeakSet[HeldLease] = WeakSet()
        self._abandoned: list[tuple[Backend, Sequence[Hold]]] = []
        self._thread: threading.Thread | None = None
        #: What waits until something before it is done.
        self._postponed: list[tuple[Backend, Sequence[Hold]]] = []
        #: What is under way.
        self._busy: set[tuple[Backend, float | None]] = set()
        self._wakes = math.inf

    def watch(self, leases: Iterable[HeldLease]) -> None:
        """Renew them from now on."""
        with self._changed:
            for lease in leases:
                self._leases.add(lease)
                if lease.due < self._wakes:
                    self._wakes = lease.due
                    self._changed.notify()
            if self._leases:
                self._begin()

    def forget(self, leases: Iterable[Lease]) -> None:
        """Renew them no more."""
        with self._changed:
            for lease in leases:
                self._leases.discard(lease)  # type: ignore[arg-type]

    @contextmanager
    def paused(self, leases: Sequence[Lease]) -> Iterator[None]:
        """Do not renew them while they are ended, which would bring them back; go on if that fails."""
        self.forget(leases)
        try:
            yield
        except BaseException:
            self.watch(lease for lease in leases if isinstance(lease, HeldLease))
            raise

    def abandon(self, backend: Backend, holds: Sequence[Hold]) -> None:
        """End these leases soon, in the keeper's thread."""
        with self._changed:
            self._abandoned.append((backend, holds))
            self._changed.notify()
            self._begin()

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="stepflows-leases", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._wait()
            try:
                self._renew_due()
                self._release_abandoned()
            except Exception:
                # All other leases depend on this thread.
                logger.exception("The thread that renews leases met an error and goes on")

    def _wait(self) -> None:
        while not self._abandoned and (left := self._wakes - time.monotonic()) > 0:
            self._changed.wait(min(left, threading.TIMEOUT_MAX))

    def _renew_due(self) -> None:
        batches: defaultdict[tuple[Backend, float], list[HeldLease]] = defaultdict(list)
        with self._changed:
            now = time.monotonic()
            for lease in list(self._leases):
                # Those that were claimed together stay together.
                if lease.due <= now + lease.seconds / 30:
                    lease.due = now + lease.seconds / 3
                    batches[lease.backend, lease.seconds].append(lease)
            self._wakes = min((lease.due for lease in self._leases), default=math.inf)
        for (backend, seconds), leases in batches.items():
            self._apart((backend, seconds), partial(self._renew, backend, seconds, leases))

    def _apart(self, what: tuple[Backend, float | None], task: Callable[[], None]) -> bool:
        """In a thread of its own: a server that does not answer must not cost the leases on others."""
        with self._changed:
            if what in self._busy:
                return False
            self._busy.add(what)
        threading.Thread(target=self._perform, args=(what, task), name="stepflows-leases-task", daemon=True).start()
        return True

    def _perform(self, what: tuple[Backend, float | None], task: Callable[[], None]) -> None:
        try:
            task()
        except Exception:
            logger.exception("Leases could not be looked after")
        finally:
            with self._changed:
                self._busy.discard(what)
                self._abandoned += self._postponed
                self._postponed = []
                self._changed.notify()
            # A database cache, or one that has clients of each thread's own, has opened one for this thread.
            connections.close_all()
            caches.close_all()

    def _release_abandoned(self) -> None:
        with self._changed:
            abandoned, self._abandoned = self._abandoned, []
        # A server that is away costs one timeout and not one for each.
        together: defaultdict[Backend, list[Hold]] = defaultdict(list)
        for backend, holds in abandoned:
            together[backend] += holds
        for backend, each in together.items():
            if not self._apart((backend, None), partial(_release, backend, each)):
                with self._changed:
                    self._postponed.append((backend, each))

    def _renew(self, backend: Backend, seconds: float, leases: list[HeldLease]) -> None:
        try:
            held = backend.renew([lease.hold for lease in leases], seconds)
        except Exception as error:
            _report("renewed", len(leases), error)
            return
        with self._changed:
            # Of these the step ended meanwhile; renewing may have brought them back.
            ended = [lease.hold for lease in leases if lease not in self._leases]
            lost = [lease for lease, kept in zip(leases, held, strict=True) if not kept and lease in self._leases]
            for lease in lost:
                self._leases.discard(lease)
        for lease in lost:
            logger.warning(
                "The lease of key %r (%s, scope %r) was lost while its step runs: this process or its way to the cache "
                "stood still for more than %g s. The first result stored will count.",
                lease.key,
                backend.title,
                lease.hold.name.scope,
                seconds,
            )
        if ended:
            _release(backend, ended)


def _release(backend: Backend, holds: Sequence[Hold]) -> None:
    try:
        backend.release(holds)
    except Exception as error:
        _report("given back; they last until they end by themselves", len(holds), error)


def _report(what: str, number: int, error: Exception) -> None:
    unexpected = None if isinstance(error, CacheUnavailable) else error
    logger.warning("%d %s could not be %s: %s", number, _leases(number), what, error, exc_info=unexpected)


def _leases(number: int) -> str:
    return "lease" if number == 1 else "leases"


async def claim_in_thread(claim: Callable[[], T], backend: Backend, holds: Sequence[Hold], *, sensitive: bool) -> T:
    """What a claim in a thread comes to. No thread can be cancelled: once nobody waits, what it is granted ends."""
    lock = threading.Lock()
    left = False

    def attempt() -> T:
        answer = claim()
        with lock:
            if left:
                keeper.abandon(backend, holds)
        return answer

    try:
        return await sync_to_async(attempt, thread_sensitive=sensitive)()
    except asyncio.CancelledError:
        with lock:
            left = True
        raise


keeper: Final = _Keeper()
os.register_at_fork(after_in_child=keeper.begin)
