"""Several callers of one cache, and what can happen to them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from stepflows.engine import plan
from stepflows.engine.cache import Busy, Claimed, Entry, Lease, Lookup, Standing
from stepflows.engine.calls import attempt
from stepflows.engine.context import RunContext
from stepflows.engine.execution import Request, single
from stepflows.engine.operations import (
    Call,
    Claim,
    Defer,
    Deferred,
    Load,
    LoadMany,
    Operation,
    Outcome,
    Pause,
    Plan,
    Raised,
    Release,
    Store,
)
from stepflows.errors import CacheUnavailable
from stepflows.results import Err, Ok
from tests.engine.callers import Asks, Caller, OpenTransaction, shown, shown_answer


class Ground(Protocol):
    """What the callers ask of a cache, and tests beside it."""

    def load(self, key: str, /) -> Lookup: ...

    def load_many(self, keys: Sequence[str], /) -> list[Lookup]: ...

    def claim(self, keys: Sequence[str], seconds: float, /, *, refresh: bool = False) -> list[Claimed]: ...

    def store(self, entries: Sequence[Entry], /) -> list[Standing]: ...

    def release(self, leases: Sequence[Lease], /) -> None: ...

    def abandon(self, leases: Sequence[Lease], /) -> None: ...

    def standing(self, key: str, /) -> Lookup:
        """What is stored, whoever asks."""

    def holders(self) -> dict[str, str]:
        """The tokens of the leases that are held, by key."""

    def expire(self, key: str, /) -> object:
        """End whatever lease there is on the key."""


class Choice(NamedTuple):
    #: One of ``go``, ``crash``, ``cancel``, ``cancel late``, ``cut off``, ``cut off late``, ``commit``, ``roll back``,
    #: each of a caller, and ``expire``, of a key.
    what: str
    who: str


class Violation(AssertionError):
    """A rule is broken; the schedule is part of the message."""


class World:
    """Some callers on one cache, and the faults that are still to come."""

    def __init__(self, ground: Ground, callers: Sequence[Asks], faults: Mapping[str, int] | None = None) -> None:
        self.ground = ground
        self.keys = list(dict.fromkeys(key for asks in callers for key in asks.keys))
        self.faults = Counter(faults or {})
        self.happened: Counter[str] = Counter()
        #: Leases that ended although nobody gave them back, and runs whose results were rolled back.
        self.lost = 0
        self.rolled_back = 0
        #: Leases that ended by themselves, because whoever had them was gone.
        self.orphans = 0
        #: Leases of which their holder was never told.
        self.adrift = 0
        #: Whatever was stored at some time.
        self.stood: frozenset[str] = frozenset()
        self.schedule: list[Choice] = []
        self._owners: dict[str, str] = {}
        self.callers = {asks.name: Caller(asks, self._plan(asks)) for asks in callers}
        self._seen: Any = None
        self._look()

    # What can happen next.

    def choices(self) -> list[Choice]:
        callers = self.callers.values()
        if not any(caller.is_alive or caller.deferred for caller in callers):
            return []
        choices = [Choice("go", caller.name) for caller in callers if self._may_go(caller)]
        for caller in callers:
            choices += self._ends_of_transactions(caller)
        for caller in callers:
            if caller.is_alive:
                choices += [Choice(what, caller.name) for what in self._strokes(caller)]
        for key, token in self.ground.holders().items():
            if self.faults["expire"] or self._is_orphan(token):
                choices.append(Choice("expire", key))
        return choices

    def take(self, choice: Choice) -> None:
        self.schedule.append(choice)
        what, who = choice
        if what == "expire":
            self._expire(who)
        elif what == "crash":
            self._spend("crash")
            held = len(self.ground.holders())
            self.callers[who].crash()
            # Some leases end with whoever refers to them.
            self.lost += held - len(self.ground.holders())
        elif what in {"commit", "roll back"}:
            self._end_transaction(self.callers[who], what)
        else:
            self._perform(self.callers[who], what)
        if self._look():
            for caller in self.callers.values():
                caller.woken = True

    def state(self) -> Hashable:
        leases = {key: self._nth(token) for key, token in self.ground.holders().items()}
        return (
            tuple(caller.state() for caller in self.callers.values()),
            tuple((key, shown(self.ground.standing(key)), leases.get(key)) for key in self.keys),
            tuple(self.faults.items()),
            self.lost,
            self.rolled_back,
            self.orphans,
            self.stood,
        )

    # What has come of it.

    def runs(self, key: str = "k") -> int:
        return sum(caller.runs[key] for caller in self.callers.values())

    def finished(self) -> list[Caller]:
        return [caller for caller in self.callers.values() if caller.result is not None]

    def require(self, holds: object, rule: str) -> None:
        if not holds:
            results = {name: caller.left or shown(caller.result) for name, caller in self.callers.items()}
            standing = {key: shown(self.ground.standing(key)) for key in self.keys}
            schedule = ", ".join(f"{what} {who}" for what, who in self.schedule)
            raise Violation(f"{rule}\nschedule: {schedule}\nresults: {results}\nin the cache: {standing}")

    def _may_go(self, caller: Caller) -> bool:
        return caller.is_alive and (caller.woken or not caller.waits)

    def _strokes(self, caller: Caller) -> Iterator[str]:
        operation = caller.operation
        reaches = isinstance(operation, Load | LoadMany | Claim | Store | Release)
        if self.faults["crash"]:
            yield "crash"
        # A waiting caller does the same at any time.
        if self.faults["cancel"] and not isinstance(operation, Release):
            yield from ("cancel", "cancel late") if reaches or isinstance(operation, Call) else ("cancel",)
        if self.faults["cut off"] and reaches:
            yield from ("cut off", "cut off late")

    def _ends_of_transactions(self, caller: Caller) -> Iterator[Choice]:
        if caller.deferred and not caller.is_alive:
            yield Choice("commit", caller.name)
            if self.faults["roll back"]:
                yield Choice("roll back", caller.name)

    def _is_orphan(self, token: str) -> bool:
        """Nobody renews it: its holder is gone, or does not know that it was granted."""
        name = self._owners.get(token)
        owner = self.callers[name] if name else None
        return owner is None or not (owner.is_alive or owner.deferred)

    # How it happens.

    def _perform(self, caller: Caller, how: str) -> None:
        """Perform its operation, unless it is struck before that, and tell it what came of it unless after."""
        operation, answer = caller.operation, None
        if how in {"go", "cancel late", "cut off late"}:
            answer = self._performed(caller, operation)
        if how != "go":
            self._spend(how.removesuffix(" late"))
            self.adrift += isinstance(operation, Claim) and how == "cancel late"
            answer = CacheUnavailable("away") if "cut off" in how else asyncio.CancelledError()
        elif isinstance(operation, Claim):
            self._note(caller, operation.keys, answer)
        caller.answer(answer, how if how != "go" else shown_answer(operation, answer))

    def _performed(self, caller: Caller, operation: Operation | None) -> Any:
        match operation:
            case Load(key):
                return self.ground.load(key)
            case LoadMany(keys):
                return self.ground.load_many(keys)
            case Claim(keys, seconds, refresh):
                caller.woken = False
                return self.ground.claim(keys, seconds, refresh=refresh)
            case Store(entries):
                return self.ground.store(entries)
            case Release(leases):
                return self.ground.release(leases)
            case Call():
                return self._called(caller, operation)
            case Defer():
                caller.deferred.append(operation)
            case Deferred() | Pause():
                pass
            case _:
                raise AssertionError(operation)
        return None

    def _called(self, caller: Caller, operation: Call) -> Outcome:
        lease = operation.lease
        current = lease is None or self.ground.holders().get(lease.key) == lease.token
        self.require(current or self.lost, f"{caller.name} runs it, and somebody else may do so as well.")
        outcome = attempt(operation.function)
        if isinstance(outcome, Raised):
            # Its traceback would keep alive the frames of this call, and with them the lease.
            outcome.error.__traceback__ = None
        return outcome._replace(transaction=OpenTransaction() if caller.asks.transaction else None)

    def _note(self, caller: Caller, keys: Sequence[str], claimed: Sequence[Claimed]) -> None:
        for key in keys:
            token = self.ground.holders().get(key)
            if token is not None and token not in self._owners and any(_is_lease(each, token) for each in claimed):
                self._owners[token] = caller.name

    def _expire(self, key: str) -> None:
        if self._is_orphan(self.ground.holders()[key]):
            self.orphans += 1
        else:
            self._spend("expire")
        self.lost += 1
        self.ground.expire(key)

    def _end_transaction(self, caller: Caller, how: str) -> None:
        deferred = caller.deferred.pop(0)
        caller.history += (how,)
        if how == "commit":
            caller.take_up(deferred.committed(deferred.entry))
            return
        self._spend("roll back")
        self.rolled_back += 1
        deferred.forgotten()
        if deferred.entry.lease:
            self.ground.abandon([deferred.entry.lease])

    def _spend(self, fault: str) -> None:
        self.faults[fault] -= 1
        self.happened[fault] += 1

    def _look(self) -> bool:
        """Look at the cache, and say whether it has changed."""
        standing = [shown(self.ground.standing(key)) for key in self.keys]
        self.stood = self.stood.union(standing)
        before, self._seen = self._seen, (standing, self.ground.holders())
        return self._seen != before

    def _nth(self, token: str) -> Hashable:
        """A lease in words that do not depend on how many others there were before."""
        name = self._owners.get(token, "")
        return name, [token for token, owner in self._owners.items() if owner == name].index(token) if name else 0

    def _plan(self, asks: Asks) -> Plan:
        run = RunContext("w")
        steps = [
            (Request("label", key, asks.policy, asks.refresh), single(partial(self._run, asks, key)))
            for key in asks.keys
        ]
        return plan.step(run, *steps[0]) if len(steps) == 1 else plan.each(run, steps, None)

    def _run(self, asks: Asks, key: str) -> Any:
        """What the function does: something that is unique to this run."""
        runs = self.callers[asks.name].runs
        runs[key] += 1
        return asks.outcome(f"{key}:{asks.name}{runs[key]}")


def _is_lease(claimed: Claimed, token: str) -> bool:
    return not isinstance(claimed, Ok | Err | Busy) and claimed.token == token
