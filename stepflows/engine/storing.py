"""What becomes of results once their steps have run: stored, deferred to a commit, or kept for the run alone."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from stepflows.engine.cache import LOST, Entry, Lease, Lost, Standing
from stepflows.engine.context import RunContext, logger
from stepflows.engine.execution import Executed, Request, outcome_of, step_event, where
from stepflows.engine.operations import Defer, Operation, Pause, Plan, Release, Store
from stepflows.errors import CacheUnavailable, NotCacheable
from stepflows.results import Err, FailedStep, Ok, Result, Stamp, stamped

__all__ = ["Kept", "hit_event", "is_kept", "keep", "let_go", "replayed"]

#: The result that counts, or word that somebody else is at it.
Kept = Result[Any] | Lost

# A step that ran may have charged a card: that its result is stored is worth waiting for, and so is whoever waits.
_PAUSES: Final = (0.05, 0.15, 0.4, 0.9, 1.0)
#: Seconds after which a store that has failed twice is not tried again.
_PATIENCE: Final = 3.0


def keep(run: RunContext, executed: Sequence[Executed]) -> Generator[Operation, Any, list[Kept]]:
    """Store results, and return those that count: the first stored."""
    kept: list[Kept] = [each.result for each in executed]
    entries: dict[int, Entry] = {}
    loose: list[Lease] = []
    unstored: list[Lease] = []
    for position, each in enumerate(executed):
        entry = _entry(run, each)
        if entry is None:
            loose += filter(None, [each.lease])
        elif each.transactions and not (each.lease and not each.lease.token):
            # (Without a token the cache itself is part of the transaction.)
            kept[position] = yield from _defer(run, each, entry)
        else:
            entries[position] = entry
    if entries:
        stored = yield from _store(run, list(entries.values()))
        for position, standing in zip(entries, stored, strict=True):
            each = executed[position]
            kept[position] = yield from _standing(run, each, entries[position], standing)
            if isinstance(standing, NotCacheable):
                loose += filter(None, [each.lease])
            elif isinstance(standing, CacheUnavailable):
                unstored += filter(None, [each.lease])
    yield from let_go(loose)
    if unstored:
        # Whoever keeps the error with its traceback keeps these as well: nobody may go on renewing them.
        yield from let_go(unstored, soon=True)
    return kept


def let_go(leases: Sequence[Lease], *, soon: bool = False) -> Generator[Operation, Any, None]:
    """End leases without a result, now or ``soon``. Those that cannot be ended end by themselves."""
    if leases:
        try:
            yield Release(leases, soon)
        except CacheUnavailable as error:
            logger.warning("A lease could not be given back and lasts until it ends by itself: %s", error)


def replayed(run: RunContext, request: Request, found: Result[Any]) -> Result[Any]:
    """A stored result as this step's own."""
    label = found.stamp and found.stamp.label
    # What was put there by hand has none.
    if label and label != request.label:
        logger.warning("%s: uses the result stored under the label %r", where(run, request), label)
    if isinstance(found, Err):
        return replace(found, step=FailedStep(request.label, request.key, replayed=True))
    return found


def hit_event(run: RunContext, request: Request, found: Result[Any]) -> Operation:
    duration = found.stamp and found.stamp.duration
    return step_event(run, request, "step_cache_hit", duration=duration, **outcome_of(found))


def is_kept(request: Request, result: Result[Any]) -> bool:
    """Whether a result is to be used again at all."""
    return request.policy.ttl != 0 and _is_to_keep(request, result)


def _is_to_keep(request: Request, result: Result[Any]) -> bool:
    """Whether it is a success, or an error of those to be stored."""
    return result.ok or request.policy.keeps(cast("Err", result))


def _entry(run: RunContext, executed: Executed) -> Entry | None:
    """What is to be stored, if anything."""
    request, result = executed.request, executed.result
    policy = request.policy
    # Even without any time, what is refreshed takes the place of what is there.
    if not _is_to_keep(request, result) or (policy.ttl == 0 and not request.refresh):
        return None
    now = time.time()
    stamp = Stamp(request.label, now, executed.seconds, run.run_id, None if policy.ttl is None else now + policy.ttl)
    return Entry(str(request.key), stamped(result, stamp), request.refresh, executed.lease)


def _store(
    run: RunContext, entries: Sequence[Entry]
) -> Generator[Operation, Any, Sequence[Standing | CacheUnavailable]]:
    """Try for some seconds; but not as long again for each of many steps."""
    started = time.monotonic()
    pauses = () if started - run.gave_up < _PATIENCE else _PAUSES
    for number, pause in enumerate((*pauses, None)):
        try:
            stored: list[Standing] = yield Store(entries)
        except CacheUnavailable as error:
            if pause is None or (number and time.monotonic() - started > _PATIENCE):
                run.gave_up = time.monotonic()
                return [error] * len(entries)
            yield Pause(pause)
        else:
            return stored
    raise AssertionError


def _standing(
    run: RunContext, executed: Executed, entry: Entry, standing: Standing | CacheUnavailable
) -> Generator[Operation, Any, Kept]:
    """What counts, given what stands in the cache."""
    request, result = executed.request, executed.result
    key = str(request.key)
    run.ahead.pop(key, None)
    if isinstance(standing, Ok | Err):
        run.kept.pop(key, None)
        return result if standing is entry.result else replayed(run, request, standing)
    if standing is LOST:
        logger.warning("%s: its lease was lost while it ran, and somebody else runs it now", where(run, request))
        return LOST
    if isinstance(standing, NotCacheable):
        refused = standing.of(where(run, request))
        cause = result.error if isinstance(result, Err) else None
        refused.__cause__ = cause if isinstance(cause, BaseException) else None
        result = Err(refused, cause, FailedStep(request.label, key))
        problem: Exception = refused
    else:
        run.kept[key] = result
        problem = standing
        logger.error("%s: ran, but its result could not be stored: %s", where(run, request), standing)
    if run.listening:
        yield step_event(run, request, "step_cache_write_failed", ok=False, error=problem)
    return result


def _defer(run: RunContext, executed: Executed, entry: Entry) -> Generator[Operation, Any, Kept]:
    """It counts in this run at once, and elsewhere when the transaction that the step used commits."""
    run.kept[entry.key] = executed.result
    run.ahead.pop(entry.key, None)
    run.deferred += 1

    def committed(frozen: Entry) -> Plan:
        run.deferred -= 1
        run.kept.pop(entry.key, None)
        [standing] = yield from _store(run, [frozen])
        kept = yield from _standing(run, executed, frozen, standing)
        if not isinstance(standing, Ok | Err | Lost):
            yield from let_go([entry.lease] if entry.lease else [])
        return executed.result if isinstance(kept, Lost) else kept

    def forgotten() -> None:
        run.deferred -= 1
        run.kept.pop(entry.key, None)

    problem: NotCacheable | None = yield Defer(executed.transactions, entry, committed, forgotten)
    if problem is None:
        return executed.result
    forgotten()
    refused = yield from _standing(run, executed, entry, problem)
    yield from let_go([entry.lease] if entry.lease else [])
    return refused
