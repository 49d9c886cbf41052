"""Plans played by hand: requests, answers, and what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepflows.engine.cache import Claimed, Lease
from stepflows.engine.execution import Request, Work, single
from stepflows.engine.operations import Emit, Gathering, Plan, Release, Together
from stepflows.engine.policy import Policy
from stepflows.results import Ok, Stamp


def request(key: str | None = "k", **options: Any) -> Request:
    policy = options.pop("policy", Policy())
    return Request("label", key, policy, **options)


def echo(value: Any) -> Work:
    return single(lambda: value)


def lease(key: str = "k", token: str = "ours") -> Lease:
    return Lease(key, token)


def granted(*keys: str) -> list[Claimed]:
    return [lease(key) for key in keys]


def stored(value: Any, label: str = "label") -> Ok[Any]:
    """A result as it comes out of a cache."""
    return Ok(value, stamp=Stamp(label))


def play(steps: Plan, *answers: Any) -> tuple[list[Any], Any]:
    """What a plan asks for when it is given these answers, and what it returns. Exceptions are thrown into it."""
    asked: list[Any] = []
    given = iter(answers)
    try:
        asked.append(next(steps))
        while True:
            answer = next(given)
            asked.append(steps.throw(answer) if isinstance(answer, BaseException) else steps.send(answer))
    except StopIteration as stop:
        return asked, stop.value


def begin(steps: Plan, *answers: Any) -> list[Any]:
    """What a plan asks for, up to the operation that is still to be answered."""
    asked: list[Any] = [next(steps)]
    asked += [steps.throw(answer) if isinstance(answer, BaseException) else steps.send(answer) for answer in answers]
    return asked


def end(steps: Plan, answer: Any = None) -> Any:
    """What a plan returns when its last operation is answered so."""
    try:
        operation = steps.throw(answer) if isinstance(answer, BaseException) else steps.send(answer)
    except StopIteration as stop:
        return stop.value
    raise AssertionError(f"It is not at its end, but asks for {operation!r}.")


def gathered(operation: Together, *answers: Sequence[Any]) -> Gathering:
    """Its plans played one after the other with these answers to each."""
    gathering = Gathering(len(operation.plans))
    for index, (steps, given) in enumerate(zip(operation.plans, answers, strict=False)):
        gathering.take(index, play(steps, *given)[1])
    return gathering


def kinds(asked: Sequence[Any]) -> list[type]:
    return [type(operation) for operation in asked]


def told(asked: Sequence[Any]) -> list[str]:
    """The types of the events among what was asked."""
    return [operation.event.type for operation in asked if isinstance(operation, Emit)]


def released(asked: Sequence[Any]) -> list[Lease]:
    return [each for operation in asked if isinstance(operation, Release) for each in operation.leases]
