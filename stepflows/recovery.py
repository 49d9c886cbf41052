"""Runs that nobody looks after any more, found and brought back to work. Every worker does it; no beat is needed."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, NamedTuple

from django.core.cache import caches
from django.db import DatabaseError, InterfaceError, OperationalError, connections, router
from django.utils import timezone

from stepflows import conf
from stepflows.caches import dumps
from stepflows.engine.context import logger
from stepflows.errors import RunLost
from stepflows.models import Run, RunQuerySet
from stepflows.models.run import from_now
from stepflows.models.tables import remedy
from stepflows.results import Err

__all__ = ["Recovered", "Watch", "resume_runs"]

#: Heartbeats between two looks.
_LOOK: Final = 3.0
#: In the cache while somebody looks; seconds after which it ends if that one dies.
_TURN: Final = ("stepflows:resume_runs", 10)
#: Each comes with all its steps, and there may be thousands of them.
_BATCH: Final = 100
#: At most so many messages a second are sent again, however many runs wait: most of them wait because the workers are
#: busy, and only the others because their message was lost.
_RATE: Final = 10

#: Pools of connections of the process that this one was forked from.
_inherited: Final[list[Any]] = []


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


def resume_runs() -> Recovered:
    """Look once for runs whose worker was lost or whose message was, and for those to be removed.

    Many may look at the same time: each run is brought back by one of them.
    """
    done, pause = Counter[str](), _pause()
    # Queues that nothing can be sent to, because the broker is away for example: their runs wait for the next look.
    closed: set[str] = set()
    # No more than were due when it began: if they are many, the first are due again before the last have been seen.
    left, before = _runs().due().count(), -1
    while left > 0 and done.total() > before:
        due = _runs().due().exclude(state=Run.State.QUEUED, queue__in=closed)
        found = list(due.defer("arguments", "outcome")[: min(left, _BATCH)])
        left, before = left - len(found), done.total()
        for run in found:
            if run.state != Run.State.QUEUED or run.queue not in closed:
                done.update(filter(None, [_attended(run, pause, closed)]))
    return Recovered(done["resumed"], done["sent"], done["given_up"], _remove_old())


def _pause() -> float:
    """Seconds until a run that is sent again now is sent once more, if nobody takes it."""
    queued, pause = _runs().filter(state=Run.State.QUEUED), 0.0
    for _ in range(2):
        # The second time without those that are planned for later than that: they wait for no worker.
        pause = queued.count() / _RATE
        queued = queued.filter(due_at__lt=from_now(pause))
    return max(Run.grace(), pause)


def _attended(run: Run, pause: float, closed: set[str]) -> str | None:
    """What was done about it; nothing if that was not possible, which is told and keeps nobody from the others."""
    try:
        return _resend(run, pause, closed) if run.state == Run.State.QUEUED else _recover(run)
    except (OperationalError, InterfaceError):
        # It is not about this run: the database is away.
        raise
    except Exception:
        logger.exception("Run %s of workflow %r could not be brought back", run.pk, run.workflow)
        return None


def _resend(run: Run, pause: float, closed: set[str]) -> str | None:
    sent = run.resend(pause)
    if sent is False:
        closed.add(run.queue)
        return "unsent"
    return "sent" if sent else None


def _recover(run: Run) -> str | None:
    """What was done about it; nothing if somebody else was faster, or it has been heard of meanwhile."""
    if run.attempts >= conf.settings().MAX_ATTEMPTS:
        return "given_up" if _give_up(run) else None
    worker, reason = run.worker, f"not heard of for {run.life():g} s"
    if not run.requeue(reason, attempts=run.attempts, overdue=True):
        return None
    logger.warning("Run %s of workflow %r on worker %r was %s: queued again", run.pk, run.workflow, worker, reason)
    return "resumed"


def _give_up(run: Run) -> bool:
    error = RunLost(
        f"Workflow {run.workflow!r} was lost with its worker in each of {run.attempts} attempts; it is not tried "
        "again. Perhaps one of its steps ends the process, by taking too much memory for example."
    )
    failed = {"state": Run.State.FAILED, "outcome": dumps(Err(error)), "finished_at": timezone.now(), "due_at": None}
    if not run.hand_over(overdue=True, **failed):
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
        # Asked once more: somebody may have resumed one of them meanwhile.
        _, deleted = old.filter(pk__in=batch).delete()
        removed += deleted.get(Run._meta.label, 0)
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
            os.register_at_fork(after_in_child=_forget_pools)
            self._thread = threading.Thread(target=self._run, name="stepflows-watch", daemon=True)
            self._thread.start()

    def stop(self, **_: Any) -> None:
        """End after the look that is under way."""
        self._stopped.set()
        self._thread = None

    def _run(self) -> None:
        stopped, pause, failed = self._stopped, 0.0, False
        while not stopped.wait(pause):
            pause = _LOOK * conf.settings().HEARTBEAT * random.uniform(0.7, 1.0)  # noqa: S311 - no secret
            try:
                if failed:
                    _runs().exists()
                    # The database is back. Who is alive could not say so either, and is given the time to.
                    failed, pause = False, conf.settings().HEARTBEAT
                    continue
                with _turn() as mine:
                    if mine:
                        resume_runs()
                    else:
                        # Whoever looks now may die of it.
                        pause /= 3
            except Exception as error:
                failed, pause = True, pause / 3
                advice = remedy(error) if isinstance(error, DatabaseError) else ""
                logger.warning("Lost runs could not be looked for: %r.%s", error, advice)
            finally:
                connections.close_all()


def _forget_pools() -> None:
    """Have a forked process make its own pools of database connections: what is in those that it inherits is in use.

    A worker of processes had none of its own to hand on before it had a watch.
    """
    for connection in connections.all():
        pools = getattr(connection, "_connection_pools", None)
        if pools:
            # Not dropped: a pool says good-bye to the server, on a connection that its parent goes on with.
            _inherited.append(pools.copy())
            pools.clear()


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
        cache.close()
