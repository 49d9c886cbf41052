"""The order of things, written once for threads and event loops.

A plan is a generator: it yields operations, is sent their answers, and returns a result. Nothing here touches a cache,
a clock that matters, or a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from stepflows.engine.cache import MISSING, Damaged, Lookup
from stepflows.engine.context import RunContext, judge, logger
from stepflows.engine.operations import (
    Call,
    Gathering,
    Load,
    LoadMany,
    Operation,
    Outcome,
    Pause,
    Plan,
    Returned,
    StepInfo,
    Store,
    Together,
)
from stepflows.engine.policy import Policy
from stepflows.errors import CacheUnavailable, NotCacheable
from stepflows.results import Err, FailedStep, Ok, Result, Stamp, stamped

__all__ = ["Request", "Work", "computed", "each", "gather", "single", "step", "workflow"]

#: The number of the last attempt, and what came of it.
Working: TypeAlias = Generator[Operation, Any, tuple[int, Result[Any]]]
#: What looking a key up came to.
Found: TypeAlias = Lookup | CacheUnavailable


@dataclass(frozen=True, slots=True)
class Request:
    """One step, as the body asked for it."""

    label: str
    key: str | None
    policy: Policy
    refresh: bool = False
    #: Seconds for one attempt.
    timeout: float | None = None


#: For ``isinstance``, where a union would be made anew at each hit.
RESULTS: Final = (Ok, Err)

#: What a step does when it is executed.
Work: TypeAlias = Callable[[RunContext, Request], Working]


def workflow(run: RunContext, body: Callable[[], Any]) -> Plan:
    """A whole run."""
    started = time.perf_counter()
    try:
        if run.listening:
            yield run.event("workflow_start")
        result = run.conclude((yield Call(body)))
    except BaseException as error:
        if run.listening and not isinstance(error, GeneratorExit):
            yield run.event("workflow_error", duration=time.perf_counter() - started, ok=False, error=error)
        raise
    if run.listening:
        kind = "workflow_success" if result.ok else "workflow_error"
        yield run.event(kind, duration=time.perf_counter() - started, **_outcome(result))
    return result


def step(run: RunContext, request: Request, work: Work) -> Plan:
    """One step: its stored result, or else its execution, stored."""
    key = request.key
    if key is None or not run.caching:
        return (yield from _uncached(run, request, work))
    found: Found = MISSING
    if not request.refresh:
        if key in run.kept:
            return run.kept[key]
        try:
            found = yield Load(key)
        except CacheUnavailable as error:
            found = error
        if isinstance(found, RESULTS):
            if run.listening:
                yield _hit(run, request, found)
            return _replayed(run, request, found)
    return (yield from _settle(run, request, work, found))


def computed(value: Any) -> Plan:
    """Nothing is left to do."""
    yield from ()
    return judge(Returned(value))


def each(run: RunContext, steps: Sequence[tuple[Request, Work]], limit: int | None) -> Plan:
    """A step per item: all looked up together, only the missing ones executed, each stored when it is done."""
    if not run.caching:
        return (yield from _each_uncached(run, steps, limit))
    # Of items with one key the first is the one that runs, as it would be one after the other.
    by_key: dict[str, tuple[Request, Work]] = {}
    for request, work in steps:
        by_key.setdefault(str(request.key), (request, work))
    results = {key: run.kept[key] for key, (request, _) in by_key.items() if key in run.kept and not request.refresh}
    found = yield from _look_up(run, [request for key, (request, _) in by_key.items() if key not in results])
    for key, lookup in found.items():
        if isinstance(lookup, RESULTS):
            if run.listening:
                yield _hit(run, by_key[key][0], lookup)
            results[key] = _replayed(run, by_key[key][0], lookup)
    for result in results.values():
        if isinstance(result, Err):
            return result
    plans = {key: _settle(run, *by_key[key], found[key]) for key in by_key if key not in results}
    gathering: Gathering = yield Together(list(plans.values()), limit)
    if gathering.failed:
        return gathering.failed
    results.update(zip(plans, gathering.complete(), strict=True))
    return Ok([results[str(request.key)].unwrap() for request, _ in steps])


def single(function: Callable[[], Any]) -> Work:
    """The work of a step that has one function."""

    def work(run: RunContext, request: Request) -> Working:
        return _attempts(run, request, function)

    return work


def gather(
    functions: Sequence[tuple[str, Callable[[], Any]]], collect: Callable[[list[Any]], Any], limit: int | None
) -> Work:
    """The work of a step that has several named functions, and of what ``collect`` makes of their values."""

    def part(run: RunContext, request: Request, name: str, function: Callable[[], Any]) -> Plan:
        _, result = yield from _attempts(run, request, function, name)
        return result

    def work(run: RunContext, request: Request) -> Working:
        parts = [part(run, request, name, function) for name, function in functions]
        gathering: Gathering = yield Together(parts, limit)
        if gathering.failed:
            return 1, gathering.failed
        return 1, Ok(collect([result.unwrap() for result in gathering.complete()]))

    return work


def _each_uncached(run: RunContext, steps: Sequence[tuple[Request, Work]], limit: int | None) -> Plan:
    gathering: Gathering = yield Together([_uncached(run, request, work) for request, work in steps], limit)
    return gathering.failed or Ok([result.unwrap() for result in gathering.complete()])


def _look_up(run: RunContext, requests: Sequence[Request]) -> Generator[Operation, Any, dict[str, Found]]:
    found: dict[str, Found] = {str(request.key): MISSING for request in requests}
    ask = [str(request.key) for request in requests if not request.refresh]
    if ask:
        try:
            found.update(zip(ask, (yield LoadMany(ask)), strict=True))
        except CacheUnavailable as error:
            found.update(dict.fromkeys(ask, error))
    return found


def _settle(run: RunContext, request: Request, work: Work, found: Found) -> Plan:
    """What is done when the cache did not give a result."""
    if isinstance(found, CacheUnavailable):
        return (yield from _cache_down(run, request, work, found))
    if isinstance(found, Damaged):
        logger.warning("%s: the stored entry counts as missing: %s", _where(run, request), found.reason)
        if run.listening:
            yield _event(run, request, "step_cache_corrupt", ok=False, error=found.reason)
    if run.listening:
        yield _event(run, request, "step_cache_miss")
    result, seconds = yield from _execute(run, request, work)
    # What is damaged would otherwise stand there as the first result stored.
    return (yield from _keep(run, request, result, seconds, replace=request.refresh or isinstance(found, Damaged)))


def _hit(run: RunContext, request: Request, found: Result[Any]) -> Operation:
    duration = found.stamp and found.stamp.duration
    return _event(run, request, "step_cache_hit", duration=duration, **_outcome(found))


def _replayed(run: RunContext, request: Request, found: Result[Any]) -> Result[Any]:
    """A stored result as this step's own."""
    if found.stamp is not None and found.stamp.label != request.label:
        logger.warning("%s: uses the result stored under the label %r", _where(run, request), found.stamp.label)
    if isinstance(found, Err):
        return replace(found, step=FailedStep(request.label, request.key, replayed=True))
    return found


def _cache_down(run: RunContext, request: Request, work: Work, error: CacheUnavailable) -> Plan:
    if request.policy.on_cache_down == "run":
        logger.warning("%s: runs uncached: %s", _where(run, request), error)
        result = run.kept[str(request.key)] = yield from _uncached(run, request, work)
        return result
    logger.error("%s: was not run: %s", _where(run, request), error)
    if run.listening:
        yield _event(run, request, "step_error", ok=False, error=error)
    return Err(error, error.__cause__, FailedStep(request.label, request.key))


def _uncached(run: RunContext, request: Request, work: Work) -> Plan:
    result, _ = yield from _execute(run, request, work)
    return result


def _execute(run: RunContext, request: Request, work: Work) -> Generator[Operation, Any, tuple[Result[Any], float]]:
    """Run the step; its result, and the seconds it took."""
    started = time.perf_counter()
    try:
        if run.listening:
            yield _event(run, request, "step_start")
        attempt, result = yield from work(run, request)
    except BaseException as error:
        # Not a failure but an end all the same, which whoever was told of the start is told of. GeneratorExit may be
        # the plan's own end, after which it may not yield.
        if run.listening and not isinstance(error, GeneratorExit):
            elapsed = time.perf_counter() - started
            yield _event(run, request, "step_error", duration=elapsed, ok=False, error=error)
        raise
    seconds = time.perf_counter() - started
    if isinstance(result, Err):
        result = replace(result, step=FailedStep(request.label, request.key))
    if run.listening:
        kind = "step_success" if result.ok else "step_error"
        yield _event(run, request, kind, duration=seconds, attempt=attempt, **_outcome(result))
    return result, seconds


def _attempts(run: RunContext, request: Request, function: Callable[[], Any], part: str = "") -> Working:
    token = run.token(request.key, part)
    retry = request.policy.retry
    attempt = 1
    while True:
        info = StepInfo(request.label, request.key, attempt, token)
        outcome: Outcome = yield Call(function, info, request.timeout)
        result = judge(outcome)
        if isinstance(result, Ok) or retry is None or not retry.wants(result, attempt):
            return attempt, result
        if run.listening:
            yield _event(run, request, "step_retry", attempt=attempt, **_outcome(result))
        yield Pause(retry.pause(attempt))
        attempt += 1


def _keep(run: RunContext, request: Request, result: Result[Any], seconds: float, *, replace: bool) -> Plan:
    """Store a result, and return the one that counts: the first stored."""
    key, policy = str(request.key), request.policy
    if (policy.ttl == 0 and not replace) or (isinstance(result, Err) and not policy.keeps(result)):
        return result
    now = time.time()
    stamp = Stamp(request.label, now, seconds, run.run_id, None if policy.ttl is None else now + policy.ttl)
    ours = stamped(result, stamp)
    try:
        stored: Result[Any] = yield Store(key, ours, replace)
    except NotCacheable as error:
        refused = error.of(_where(run, request))
        cause = result.error if isinstance(result, Err) else None
        refused.__cause__ = cause if isinstance(cause, BaseException) else None
        if run.listening:
            yield _event(run, request, "step_cache_write_failed", ok=False, error=refused)
        return Err(refused, cause, FailedStep(request.label, key))
    except CacheUnavailable as error:
        run.kept[key] = result
        logger.error("%s: ran, but its result could not be stored: %s", _where(run, request), error)
        if run.listening:
            yield _event(run, request, "step_cache_write_failed", ok=False, error=error)
        return result
    run.kept.pop(key, None)
    return result if stored is ours else _replayed(run, request, stored)


def _outcome(result: Result[Any]) -> dict[str, Any]:
    return {"ok": result.ok, "error": result.error if isinstance(result, Err) else None}


def _event(run: RunContext, request: Request, kind: str, **more: Any) -> Operation:
    return run.event(kind, request.label, request.key, **more)


def _where(run: RunContext, request: Request) -> str:
    return run.where(request.label, request.key)
