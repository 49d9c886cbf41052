"""What a step does when it is executed: its function or functions, attempt by attempt."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from stepflows.engine.cache import Lease
from stepflows.engine.context import RunContext, judge
from stepflows.engine.operations import Call, Gathering, Operation, Outcome, Pause, Plan, StepInfo, Together
from stepflows.engine.policy import Policy
from stepflows.engine.transactions import Transaction
from stepflows.results import Err, FailedStep, Ok, Result

__all__ = ["Executed", "Late", "Request", "Work", "execute", "gather", "outcome_of", "single", "step_event", "where"]


class Request(NamedTuple):
    """One step, as the body asked for it."""

    label: str
    key: str | None
    policy: Policy
    refresh: bool = False
    #: Seconds for one attempt.
    timeout: float | None = None


class Executed(NamedTuple):
    """A step that ran here, and what came of it."""

    request: Request
    result: Result[Any]
    seconds: float
    #: The open transactions in which it used a database.
    transactions: Sequence[Transaction] = ()
    lease: Lease | None = None


class Done(NamedTuple):
    """What came of a step's work."""

    result: Result[Any]
    #: The number of the last attempt.
    attempt: int
    transactions: Sequence[Transaction]


Working: TypeAlias = Generator[Operation, Any, Done]
#: What a step does when it is executed.
Work: TypeAlias = Callable[[RunContext, Request, Lease | None, "Late | None"], Working]
#: What is done with the outcome of a function that ends after its run.
Late: TypeAlias = Callable[[Outcome], Plan]


def single(function: Callable[[], Any]) -> Work:
    """The work of a step that has one function."""
    return partial(_attempts, function, "")


def gather(
    functions: Sequence[tuple[str, Callable[[], Any]]], collect: Callable[[list[Any]], Any], limit: int | None
) -> Work:
    """The work of a step that has several named functions, and of what ``collect`` makes of their values."""

    def work(run: RunContext, request: Request, lease: Lease | None, late: Late | None) -> Working:
        transactions: list[Transaction] = []

        def part(name: str, function: Callable[[], Any]) -> Plan:
            done = yield from _attempts(function, name, run, request, lease, None)
            transactions.extend(done.transactions)
            return done.result

        gathering: Gathering = yield Together([part(name, function) for name, function in functions], limit)
        if gathering.failed:
            return Done(gathering.failed, 1, transactions)
        return Done(Ok(collect([result.unwrap() for result in gathering.complete()])), 1, transactions)

    return work


def execute(
    run: RunContext, request: Request, work: Work, lease: Lease | None = None, late: Late | None = None
) -> Generator[Operation, Any, Executed]:
    """Run the step."""
    started = time.perf_counter()
    try:
        if run.listening:
            yield step_event(run, request, "step_start")
        result, attempt, transactions = yield from work(run, request, lease, late)
    except BaseException as error:
        # Not a failure but an end all the same, which whoever was told of the start is told of. GeneratorExit may be
        # the plan's own end, after which it may not yield.
        if run.listening and not isinstance(error, GeneratorExit):
            elapsed = time.perf_counter() - started
            yield step_event(run, request, "step_error", duration=elapsed, ok=False, error=error)
        raise
    seconds = time.perf_counter() - started
    if isinstance(result, Err):
        result = replace(result, step=FailedStep(request.label, request.key))
    if run.listening:
        kind = "step_success" if result.ok else "step_error"
        yield step_event(run, request, kind, duration=seconds, attempt=attempt, **outcome_of(result))
    return Executed(request, result, seconds, transactions, lease)


def _attempts(
    function: Callable[[], Any], part: str, run: RunContext, request: Request, lease: Lease | None, late: Late | None
) -> Working:
    token = run.token(request.key, part)
    retry = request.policy.retry
    transactions: list[Transaction] = []
    attempt = 1
    while True:
        info = StepInfo(request.label, request.key, attempt, token)
        outcome: Outcome = yield Call(function, info, request.timeout, lease, late)
        if outcome.transaction is not None:
            transactions.append(outcome.transaction)
        result = judge(outcome)
        if isinstance(result, Ok) or retry is None or not retry.wants(result, attempt):
            return Done(result, attempt, transactions)
        if run.listening:
            yield step_event(run, request, "step_retry", attempt=attempt, **outcome_of(result))
        yield Pause(retry.pause(attempt))
        attempt += 1


def outcome_of(result: Result[Any]) -> dict[str, Any]:
    """A result as events tell it."""
    return {"ok": result.ok, "error": result.error if isinstance(result, Err) else None}


def step_event(run: RunContext, request: Request, kind: str, **more: Any) -> Operation:
    return run.event(kind, request.label, request.key, **more)


def where(run: RunContext, request: Request) -> str:
    return run.where(request.label, request.key)
