"""Runs that nobody looks after any more, found and brought back to work. Every worker does it; no beat is needed."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, NamedTuple

from django.core.cache import caches
from django.db import connections, router
from django.utils import timezone

from stepflows import conf
from stepflows.caches import dumps
from stepflows.engine.context import logger
from stepflows.errors import RunLost
from stepflows.models import Run, RunQuerySet
from stepflows.results import Err

__all__ = ["Recovered", "Watch", "resume_runs"]

#: Heartbeats between two looks.
_LOOK: Final = 3.0
#: In the cache while somebody looks; seconds after which it ends if that one dies.
_TURN: Final = ("stepflows:resume_runs", 10)
_BATCH: Final = 500
#: At most so many messages a second are sent again, however many runs wait: most of them wait because the workers are
#: busy, and only the others because their message was lost.
_RATE: Final = 10


class Recovered(NamedTuple):
    """What was done about runs that nobody looked after."""

    #: Lost by their workers, and queued again.
    resumed: int = 0
    #: Sent once more, because nobody took them.
    sent: int = 0
    #: Given up after ``MAX_ATTEMPTS``.
    given_up: int = 0
    #: Removed, because their time (``RUN_RETENTION``) is over.
    removed: int = 0


class _NotSent(Exception):
    """The broker is away: the other runs wait for the next look."""


def resume_runs() -> Recovered:
    """Look once for runs whose worker was lost or whose message was, and for those to be removed.

    Many may look at the same time: each run is brought back by one of them.
    """
    done = Counter[str | None]()
    pause = max(Run.grace(), _runs().filter(state=Run.State.QUEUED).count() / _RATE)
    more = True
    while more:
        found = list(_runs().due().defer("arguments", "outcome")[:_BATCH])
        before = done.total()
        try:
            done.update(filter(None, (_recover(run, pause) for run in found)))
        except _NotSent:
            break
        more = len(found) == _BATCH and done.total() > before
    return Recovered(done["resumed"], done["sent"], done["given_up"], _remove_old())


def _recover(run: Run, pause: float) -> str | None:
    """What was done about it; nothing if somebody else was faster."""
    if run.state == Run.State.QUEUED:
        return _resend(run, pause)
    if run.attempts >= conf.settings().MAX_ATTEMPTS:
        return "given_up" if _give_up(run) else None
    worker, reason = run.worker, f"not heard of for {run.life():g} s"
    if not run.requeue(reason, attempts=run.attempts):
        return None
    logger.warning("Run %s of workflow %r on worker %r was %s: queued again", run.pk, run.workflow, worker, reason)
    return "resumed"


def _resend(run: Run, pause: float) -> str | None:
    sent = run.resend(pause)
    if sent is False:
        raise _NotSent
    return "sent" if sent else None


def _give_up(run: Run) -> bool:
    error = RunLost(
        f"Workflow {run.workflow!r} was lost with its worker in each of {run.attempts} attempts; it is not tried "
        "again. Perhaps one of its steps ends the process, by taking too much memory for example."
    )
    failed = {"state": Run.State.FAILED, "outcome": dumps(Err(error)), "finished_at": timezone.now(), "due_at": None}
    if not run.hand_over(**failed):
        return False
    logger.error("Run %s: %s", run.pk, error)
    return True


def _remove_old() -> int:
    retention = conf.settings().RUN_RETENTION
    if retention is None:
        return 0
    before = timezone.now() - (retention if isinstance(retention, timedelta) else timedelta(seconds=retention))
    # Both, because there is an index on the one.
    old = _runs().filter(created_at__lt=before, finished_at__lt=before).order_by("created_at")
    removed = 0
    while batch := list(old.values_list("pk", flat=True)[:_BATCH]):
        _runs().filter(pk__in=batch).delete()
        removed += len(batch)
    return removed


def _runs() -> RunQuerySet:
    return Run.objects.using(router.db_for_write(Run))


class Watch:
    """A thread that looks at once and then every 30 s (three heartbeats), while one of all workers does at a time."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, **_: Any) -> None:
        """Begin; once."""
        if self._thread is None:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._run, name="stepflows-watch", daemon=True)
            self._thread.start()

    def stop(self, **_: Any) -> None:
        """End after the look that is under way."""
        self._stopped.set()
        self._thread = None

    def _run(self) -> None:
        stopped, pause = self._stopped, 0.0
        while not stopped.wait(pause):
            pause = _LOOK * conf.settings().HEARTBEAT * random.uniform(0.7, 1.0)  # noqa: S311 - no secret
            try:
                with _turn() as mine:
                    if mine:
                        resume_runs()
                    else:
                        # Whoever looks now may die of it.
                        pause /= 3
            except Exception as error:
                logger.warning("Lost runs could not be looked for: %r", error)
            finally:
                connections.close_all()


@contextmanager
def _turn() -> Iterator[bool]:
    """Whether nobody else is looking at this moment. A cache that is down keeps nobody from it."""
    name, seconds = _TURN
    cache = caches[conf.settings().CACHE]
    try:
        mine, taken = cache.add(name, 1, seconds), True
    except Exception as error:
        logger.info("Who looks for lost runs could not be agreed on: %r", error)
        mine, taken = True, False
    try:
        yield mine
    finally:
        if mine and taken:
            cache.delete(name)
