"""A caller: the plan of one run, driven one operation at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepflows.engine.cache import Busy
from stepflows.engine.operations import (
    Claim,
    Defer,
    Gathering,
    Operation,
    Pause,
    Plan,
    Together,
)
from stepflows.engine.policy import Policy
from stepflows.results import Err, Ok, Result


@dataclass(frozen=True)
class Asks:
    """What a caller wants: one step, or with several keys a map."""

    name: str
    keys: Sequence[str] = ("k",)
    refresh: bool = False
    policy: Policy = field(default_factory=Policy)
    #: What the function makes of a value that is unique to its run.
    outcome: Callable[[str], Any] = lambda value: value
    #: Whether the function uses an open transaction of its caller's.
    transaction: bool = False


class OpenTransaction:
    """Ended by the world, and not by itself."""

    def on_commit(self, action: Callable[[], None], otherwise: Callable[[], None]) -> None:
        raise AssertionError("Nobody but the world asks.")

    def is_here(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "open"


class Caller:
    """One plan on its way."""

    def __init__(self, asks: Asks, steps: Plan) -> None:
        self.asks = asks
        self.name = asks.name
        self.result: Result[Any] | None = None
        #: What it left with instead of a result.
        self.left = ""
        #: Every answer that it was given: with them, all that its plan knows.
        self.history: tuple[str, ...] = ()
        #: How often it called the function, by key.
        self.runs: Counter[str] = Counter()
        #: Whether something has changed since it was told that somebody else is at it.
        self.woken = True
        self.waits = False
        self.deferred: list[Defer] = []
        self._plan: Generator[Operation, Any, Result[Any]] | None = sequential(steps)
        self.operation: Operation | None = None
        self._advance(None)

    @property
    def is_alive(self) -> bool:
        return self._plan is not None

    def answer(self, answer: Any, shown: str) -> None:
        self.history += (shown,)
        self._advance(answer)

    def crash(self) -> None:
        if self._plan:
            self._plan.close()
        self.history += ("crash",)
        self._leave("crash")

    def take_up(self, steps: Plan) -> None:
        """Go on with this plan."""
        self._plan = sequential(steps)
        self._advance(None)

    def state(self) -> Hashable:
        return self.history, self.woken or not self.waits, len(self.deferred)

    def _advance(self, answer: Any) -> None:
        before, self.operation = self.operation, None
        if self._plan is None:
            return
        try:
            throws = isinstance(answer, BaseException)
            self.operation = self._plan.throw(answer) if throws else self._plan.send(answer)
        except StopIteration as stop:
            if self.result is None:
                self.result = stop.value
            self._plan = None
        except asyncio.CancelledError:
            self._leave("cancelled")
        finally:
            # An exception that refers to itself by way of this frame would keep alive what the plan had.
            del answer
        self.waits = isinstance(self.operation, Pause) and isinstance(before, Claim)

    def _leave(self, how: str) -> None:
        # What a dead process held is gone with it: that drops its leases where only references keep them.
        self._plan = self.operation = None
        self.deferred.clear()
        self.left = how


def sequential(steps: Plan) -> Plan:
    """The same plan with what it wants done together done one after the other."""
    answer: Any = None
    throws = False
    while True:
        try:
            operation = steps.throw(answer) if throws else steps.send(answer)
        except StopIteration as stop:
            return stop.value
        finally:
            answer = None
        try:
            answer, throws = (yield from _in_turn(operation)), False
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:
            answer, throws = error, True


def _in_turn(operation: Operation) -> Generator[Operation, Any, Any]:
    if not isinstance(operation, Together):
        return (yield operation)
    gathering = Gathering(len(operation.plans))
    for index, part in enumerate(operation.plans):
        if not gathering.open:
            break
        gathering.take(index, (yield from sequential(part)))
        if operation.then:
            yield from sequential(operation.then([index]))
    return gathering


def shown(found: Any) -> str:
    """A result, or what else there is, so that equal ones are shown alike, wherever they come from."""
    if isinstance(found, Ok):
        return f"Ok({found.value!r})"
    return f"Err({found.error!r})" if isinstance(found, Err) else repr(found)


def shown_answer(operation: Operation | None, answer: Any) -> str:
    if isinstance(answer, list):
        return " ".join("busy" if isinstance(each, Busy) else shown(each) for each in answer)
    return f"{type(operation).__name__}: {shown(answer)}"
