"""The order of things, written once for threads and event loops.

A plan is a generator: it yields operations, is sent their answers, and returns a result. Nothing here touches a cache,
a clock that matters, or a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final

from stepflows.engine.cache import MISSING, Damaged, Lookup
from stepflows.engine.context import RunContext, judge, logger
from stepflows.engine.execution import Request, Work, execute, outcome_of, step_event, where
from stepflows.engine.flight import Missed, settle, unreachable
from stepflows.engine.keys import Prefetch
from stepflows.engine.operations import Call, Gathering, Keys, Load, LoadMany, Operation, Plan, Returned, Together
from stepflows.engine.storing import hit_event, replayed
from stepflows.errors import CacheUnavailable, CannotList
from stepflows.results import Err, Ok, Result

__all__ = ["computed", "each", "step", "workflow"]

#: For ``isinstance``, where a union would be made anew at each hit.
RESULTS: Final = (Ok, Err)


def workflow(run: RunContext, body: Callable[[], Any], prefetch: Prefetch = ()) -> Plan:
    """A whole run. The keys of ``prefetch`` are looked up together before it begins."""
    started = time.perf_counter()
    try:
        if run.listening:
            yield run.event("workflow_start")
        yield from _read_ahead(run, prefetch)
        result = run.conclude((yield Call(body)))
    except BaseException as error:
        if run.listening and not isinstance(error, GeneratorExit):
            yield run.event("workflow_error", duration=time.perf_counter() - started, ok=False, error=error)
        raise
    if run.listening:
        kind = "workflow_success" if result.ok else "workflow_error"
        yield run.event(kind, duration=time.perf_counter() - started, **outcome_of(result))
    return result


def step(run: RunContext, request: Request, work: Work) -> Plan:
    """One step: its stored result, or else its execution, stored."""
    key = request.key
    if key is None or not run.caching:
        return (yield from _uncached(run, request, work))
    if not request.refresh:
        if key in run.kept:
            return run.kept[key]
        found: Lookup | None = run.ahead.pop(key, None)
        if found is None:
            try:
                found = yield Load(key)
            except CacheUnavailable as error:
                return (yield from unreachable(run, {key: Missed(request, work)}, error))[key]
        if isinstance(found, RESULTS):
            if run.listening:
                yield hit_event(run, request, found)
            return replayed(run, request, found)
        yield from _announce(run, request, found)
    elif run.listening:
        yield step_event(run, request, "step_cache_miss")
    return (yield from settle(run, {key: Missed(request, work)}))[key]


def computed(value: Any) -> Plan:
    """Nothing is left to do."""
    yield from ()
    return judge(Returned(value))


def each(run: RunContext, steps: Sequence[tuple[Request, Work]], limit: int | None) -> Plan:
    """A step per item: all looked up together, only the missing ones executed, each stored when it is done."""
    if not run.caching:
        gathering: Gathering = yield Together([_uncached(run, request, work) for request, work in steps], limit)
        return gathering.failed or Ok([result.unwrap() for result in gathering.complete()])
    # Of items with one key the first is the one that runs, as it would be one after the other.
    missed: dict[str, Missed] = {}
    for request, work in steps:
        missed.setdefault(str(request.key), Missed(request, work))
    try:
        results = yield from _look_up(run, missed)
    except CacheUnavailable as error:
        results = yield from unreachable(run, missed, error, limit)
    else:
        if not any(isinstance(result, Err) for result in results.values()):
            results |= yield from settle(run, {key: missed[key] for key in missed if key not in results}, limit)
    for result in results.values():
        if isinstance(result, Err):
            return result
    return Ok([results[str(request.key)].unwrap() for request, _ in steps])


def _read_ahead(run: RunContext, prefetch: Prefetch) -> Generator[Operation, Any, None]:
    if not (prefetch and run.caching):
        return
    try:
        keys = (yield Keys(prefetch)) if isinstance(prefetch, str) else prefetch
        found: list[Lookup] = yield LoadMany(keys)
    except (CacheUnavailable, CannotList) as error:
        # Each step will find out by itself what that means for it.
        logger.warning("workflow %r: nothing could be read ahead: %s", run.workflow, error)
        return
    # What has an end may have come to it before it is asked for.
    run.ahead = {
        key: lookup
        for key, lookup in zip(keys, found, strict=True)
        if isinstance(lookup, RESULTS) and not (lookup.stamp and lookup.stamp.expires_at)
    }


def _look_up(run: RunContext, missed: Mapping[str, Missed]) -> Generator[Operation, Any, dict[str, Result[Any]]]:
    """What this run or the cache has of them."""
    results: dict[str, Result[Any]] = {}
    found: dict[str, Lookup] = {}
    for key, (request, _) in missed.items():
        if request.refresh:
            found[key] = MISSING
        elif key in run.kept:
            results[key] = run.kept[key]
        elif key in run.ahead:
            found[key] = run.ahead.pop(key)
    ask = [key for key in missed if key not in results and key not in found]
    if ask:
        found.update(zip(ask, (yield LoadMany(ask)), strict=True))
    for key, lookup in found.items():
        request = missed[key].request
        if isinstance(lookup, RESULTS):
            if run.listening:
                yield hit_event(run, request, lookup)
            results[key] = replayed(run, request, lookup)
        else:
            yield from _announce(run, request, lookup)
    return results


def _announce(run: RunContext, request: Request, found: Lookup) -> Generator[Operation, Any, None]:
    """Tell of a miss."""
    if isinstance(found, Damaged):
        logger.warning("%s: the stored entry counts as missing: %s", where(run, request), found.reason)
        if run.listening:
            yield step_event(run, request, "step_cache_corrupt", ok=False, error=found.reason)
    if run.listening:
        yield step_event(run, request, "step_cache_miss")


def _uncached(run: RunContext, request: Request, work: Work) -> Plan:
    return (yield from execute(run, request, work)).result
