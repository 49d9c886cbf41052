"""Single flight: of all who miss a key, one runs its step, and the others wait for what comes of it.

The right to run is a lease. (The name is that of Go's ``singleflight``; leases on missing keys are memcached's idea.)
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from stepflows.engine.cache import Busy, Claimed, Lease, Lost
from stepflows.engine.calls import holding
from stepflows.engine.context import RunContext, judge, logger
from stepflows.engine.deferrals import is_any_here, is_deferred
from stepflows.engine.execution import Executed, Request, Work, execute, step_event, where
from stepflows.engine.operations import Claim, Deferred, Operation, Outcome, Pause, Plan, Raised, Together
from stepflows.engine.policy import is_failure
from stepflows.engine.storing import hit_event, is_kept, keep, let_go, replayed
from stepflows.errors import CacheUnavailable, InvalidUse, StepDeadlock
from stepflows.results import Err, FailedStep, Ok, Result

__all__ = ["Missed", "settle", "unreachable"]

#: How many leases are asked for at once, so that others have a share of a large map.
_BATCH: Final = 500
#: Seconds between two looks at a key that somebody else has the lease of: the first pause, and the longest.
_FIRST: Final = 0.002
_LONGEST: Final = 0.032


class Missed(NamedTuple):
    """A step whose result the cache does not have."""

    request: Request
    work: Work


#: A part of the plan that answers nothing.
Part = Generator[Operation, Any, None]


def settle(
    run: RunContext, missed: Mapping[str, Missed], limit: int | None = None
) -> Generator[Operation, Any, dict[str, Result[Any]]]:
    """A result for each key, from wherever it comes. After the first failure there may be none for some."""
    flight = _Flight(run, missed, limit)
    try:
        yield from flight.fly()
    except BaseException as error:
        # GeneratorExit is the plan's own end, after which it may not yield: what is dropped ends by itself.
        if not isinstance(error, GeneratorExit):
            yield from let_go(flight.held())
        raise
    return flight.settled


def unreachable(
    run: RunContext, missed: Mapping[str, Missed], error: CacheUnavailable, limit: int | None = None
) -> Generator[Operation, Any, dict[str, Result[Any]]]:
    """The same while the cache cannot be reached: run uncached, or fail, as the policy says."""
    settled = {key: run.kept[key] for key, (request, _) in missed.items() if key in run.kept and not request.refresh}
    missed = {key: each for key, each in missed.items() if key not in settled}

    def part(key: str, request: Request, work: Work) -> Plan:
        logger.warning("%s: runs uncached: %s", where(run, request), error)
        executed = yield from execute(run, request, work)
        settled[key] = executed.result
        run.ahead.pop(key, None)
        if is_kept(request, executed.result):
            run.kept[key] = executed.result
        return executed.result

    if any(request.policy.on_cache_down == "run" for request, _ in missed.values()):
        yield Together([part(key, *each) for key, each in missed.items()], limit)
        return settled
    for key, (request, _) in missed.items():
        logger.error("%s: was not run: %s", where(run, request), error)
        if run.listening:
            yield step_event(run, request, "step_error", ok=False, error=error)
        settled[key] = Err(error, error.__cause__, FailedStep(request.label, key))
    return settled


class _Flight:
    """The keys of one step or one map, on their way to a result."""

    def __init__(self, run: RunContext, missed: Mapping[str, Missed], limit: int | None) -> None:
        self.run = run
        self.settled: dict[str, Result[Any]] = {}
        self._missed = missed
        self._limit = limit
        self._open = dict.fromkeys(missed)
        self._failed = False
        #: ``None`` is the right to run without a lease.
        self._leases: dict[str, Lease | None] = {}
        #: What ran here under a lease that was lost.
        self._late: dict[str, Executed] = {}
        #: Since when a key is waited for (monotonic), and the keys that the log has complained about.
        self._waits: dict[str, float] = {}
        self._complained: set[str] = set()

    def held(self) -> list[Lease]:
        return [lease for lease in self._leases.values() if lease and not lease.passed_on]

    def fly(self) -> Part:
        pauses = _pauses()
        while self._open and not self._has_failed():
            progress = False
            for keys in _batches(list(self._open)):
                yield from self._claim(keys)
                progress = progress or bool(self._leases)
                yield from self._run()
                if self._has_failed():
                    return
            if progress:
                pauses = _pauses()
            elif self._open:
                yield Pause(next(pauses))

    def _has_failed(self) -> bool:
        return self._failed

    def _settle(self, key: str, result: Result[Any]) -> None:
        self._open.pop(key, None)
        self.settled[key] = result
        self._failed = self._failed or not result.ok

    def _claim(self, keys: Sequence[str]) -> Part:
        request = self._missed[keys[0]].request
        if not request.policy.single_flight or (request.policy.ttl == 0 and not request.refresh):
            # Nobody would get anything of it.
            self._leases.update(dict.fromkeys(keys))
            return
        try:
            claimed: list[Claimed] = yield Claim(keys, request.policy.lease, request.refresh)
        except CacheUnavailable as error:
            yield from self._unreachable(keys, error)
            return
        answers = dict(zip(keys, claimed, strict=True))
        self._leases.update({key: answer for key, answer in answers.items() if isinstance(answer, Lease)})
        for key, answer in answers.items():
            if isinstance(answer, Busy):
                yield from self._busy(key, answer)
            elif isinstance(answer, Ok | Err):
                yield from self._found(key, answer)

    def _found(self, key: str, found: Result[Any]) -> Part:
        request = self._missed[key].request
        if self.run.listening:
            yield hit_event(self.run, request, found)
        self._late.pop(key, None)
        self._settle(key, replayed(self.run, request, found))

    def _busy(self, key: str, busy: Busy) -> Part:
        request = self._missed[key].request
        mine = holding()
        if (busy.token, key) in mine:
            raise InvalidUse(
                f"{where(self.run, request)}: the step waits for itself, because it is asked for inside its own "
                "function. Give the inner step a key of its own."
            )
        if any(token == busy.token for token, _ in mine):
            # Of the same map as an enclosing step: it may have its turn only after that one.
            self._leases[key] = None
        elif is_deferred(busy, key):
            result: Result[Any] | None = yield Deferred(busy, key)
            if result is not None and request.refresh:
                self._leases[key] = None
            elif result is not None:
                yield from self._found(key, result)
        if key in self._open and key not in self._leases:
            yield from self._wait(key, request)

    def _wait(self, key: str, request: Request) -> Part:
        now = time.monotonic()
        if key not in self._waits:
            self._waits[key] = now
            if self.run.listening:
                yield step_event(self.run, request, "step_wait")
        elif now - self._waits[key] > request.policy.lease and key not in self._complained:
            self._complained.add(key)
            if self.run.deferred or is_any_here():
                yield from self._give_up(key, request)
                return
            logger.warning(
                "%s: has waited for %.0f s for somebody else who is running it and renews the lease",
                where(self.run, request),
                now - self._waits[key],
            )

    def _give_up(self, key: str, request: Request) -> Part:
        error = StepDeadlock(
            f"{where(self.run, request)}: has been waited for during a transaction for {request.policy.lease:g} s. "
            "Whoever runs it may be waiting for the steps whose results this transaction keeps from being stored. Ask "
            "for steps in the same order everywhere, or commit before; after a rollback the run may be tried again."
        )
        if self.run.listening:
            yield step_event(self.run, request, "step_error", ok=False, error=error)
        self._settle(key, Err(error, step=FailedStep(request.label, key)))

    def _unreachable(self, keys: Iterable[str], error: CacheUnavailable) -> Part:
        for key in [key for key in keys if key in self._late]:
            result = self.run.kept[key] = self._late.pop(key).result
            self.run.ahead.pop(key, None)
            self._settle(key, result)
        missed = {key: self._missed[key] for key in keys if key in self._open}
        settled = yield from unreachable(self.run, missed, error, self._limit)
        for key, result in settled.items():
            self._settle(key, result)

    def _run(self) -> Part:
        """Execute what there are leases for."""
        if self._has_failed():
            yield from self._let_go()
        late = [self._late.pop(key)._replace(lease=self._leases[key]) for key in self._leases if key in self._late]
        fresh = [key for key in self._leases if key not in {each.request.key for each in late}]
        yield from self._keep(late)
        if len(fresh) == 1:
            yield from self._keep([(yield from self._execute(fresh[0]))])
        elif fresh:
            yield from self._together(fresh)

    def _together(self, keys: Sequence[str]) -> Part:
        executed: dict[str, Executed] = {}

        def part(key: str) -> Plan:
            executed[key] = yield from self._execute(key)
            return executed[key].result

        def then(positions: Sequence[int]) -> Plan:
            yield from self._keep([executed[keys[position]] for position in positions])
            return Ok(None)

        yield Together([part(key) for key in keys], self._limit, then)
        # What was not begun after a failure.
        yield from self._let_go()

    def _execute(self, key: str) -> Generator[Operation, Any, Executed]:
        request, work = self._missed[key]
        if key in self.run.kept and not request.refresh:
            # An enclosing map's item that a step inside another one has run meanwhile.
            return Executed(request, self.run.kept[key], 0.0, (), self._leases[key])
        lease = self._leases[key]
        late = partial(_finish, self.run, request, lease, time.perf_counter())
        return (yield from execute(self.run, request, work, lease, late))

    def _keep(self, executed: Sequence[Executed]) -> Part:
        kept = yield from keep(self.run, executed)
        for each, result in zip(executed, kept, strict=True):
            key = str(each.request.key)
            lease = self._leases.pop(key, None)
            if isinstance(result, Lost):
                self._late[key] = each
                continue
            self._settle(key, result)
            if lease is None and each.request.policy.single_flight:
                self.run.kept.setdefault(key, result)

    def _let_go(self) -> Part:
        leases = self.held()
        self._leases.clear()
        yield from let_go(leases)


def _finish(run: RunContext, request: Request, lease: Lease | None, started: float, outcome: Outcome) -> Plan:
    """Store what a function has come to for which nobody waits any more: it ran."""
    ended = isinstance(outcome, Raised) and not is_failure(outcome.error)
    result: Result[Any] = Ok(None) if ended else judge(outcome)
    if ended or (request.policy.retry and not result.ok):
        # Nothing that counts has come of it.
        yield from let_go([lease] if lease else [])
        return result
    transactions = [outcome.transaction] if outcome.transaction else []
    yield from keep(run, [Executed(request, result, time.perf_counter() - started, transactions, lease)])
    return result


def _pauses() -> Iterator[float]:
    pause = _FIRST
    while True:
        # Those who began together do not come back together.
        yield pause * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
        pause = min(pause * 1.5, _LONGEST)


def _batches(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH))
