"""What the calls of ``step`` ask for: checked, and made into plans."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias, TypedDict, TypeVar

from stepflows.engine import plan
from stepflows.engine.context import RunContext
from stepflows.engine.execution import Request, gather, single
from stepflows.engine.keys import check_key, check_label, is_plain
from stepflows.engine.operations import Plan
from stepflows.engine.policy import CacheErrors, Policy, Retry, error_classes, retrying, seconds
from stepflows.errors import InvalidOption, InvalidUse, StepNotDeferred, hint
from stepflows.results import Ok, Result

__all__ = ["ItemKey", "Key", "Requests", "StepOptions"]

Item = TypeVar("Item")
Key: TypeAlias = str | None
ItemKey: TypeAlias = str | Callable[[Item], str] | None


class StepOptions(TypedDict, total=False):
    """What every call accepts beside label, function and key."""

    ttl: float | timedelta | None
    refresh: bool
    cache_errors: CacheErrors
    retry: int | Retry | None
    timeout: float | timedelta | None


class Requests:
    """Makes plans of the calls of one run. How they are driven is up to the voices of ``step``."""

    _awaits: bool

    def __init__(self, run: RunContext) -> None:
        self._run = run
        #: Those that have been checked.
        self._labels: set[str] = set()

    @property
    def run_id(self) -> str:
        """The id of this run."""
        return self._run.run_id

    def _ahead(self, label: str, function: Any, key: Key, options: StepOptions) -> Ok[Any] | None:
        """The value that was read ahead. Where nobody hears of it either, a hit is not worth a plan."""
        run = self._run
        if type(key) is not str:
            return None
        found = run.ahead.get(key)
        if type(found) is not Ok or run.listening or options or not callable(function):
            return None
        if found.stamp is None or not found.stamp.label == label == run.labels.setdefault(key, label):
            return None
        # Once only: the body may change the value.
        del run.ahead[key]
        return found

    def _one(self, label: str, function: Any, key: Key, options: StepOptions) -> Plan:
        request = self._request(label, key, options)
        if callable(function):
            return plan.step(self._run, request, single(function))
        if not inspect.isawaitable(function):
            self._warn_not_deferred(label)
            return plan.computed(function)
        return plan.step(self._run, self._once(request, options), single(self._deferred(label, function)))

    def _all(self, label: str, functions: Any, key: Key, limit: int | None, options: StepOptions) -> Plan:
        if not isinstance(functions, Mapping):
            where, kind = self._run.where(label), type(functions).__name__
            raise InvalidUse(f"{where}: step.all takes a mapping of names to functions, not {kind}.")
        request = self._request(label, key, options)
        if any(map(inspect.isawaitable, functions.values())):
            request = self._once(request, options)
        names = list(functions)
        # By repr, because 1 and "1" are two names.
        parts = [(repr(name), self._deferred(label, function)) for name, function in functions.items()]

        def collect(values: list[Any]) -> dict[Any, Any]:
            return dict(zip(names, values, strict=True))

        return plan.step(self._run, request, gather(parts, collect, self._limit(limit, label)))

    def _map(
        self, label: str, items: Any, function: Any, key: ItemKey[Any], limit: int | None, options: StepOptions
    ) -> Plan:
        where = self._run.where(label)
        if not callable(function):
            raise InvalidUse(f"{where}: step.map takes a function of one item, not {type(function).__name__}.")
        if not isinstance(items, Iterable):
            raise InvalidUse(f"{where}: step.map takes items to go through, not {type(items).__name__}.")
        items = list(items)
        limit = self._limit(limit, label)
        if not callable(key):
            parts = [(str(index), partial(function, item)) for index, item in enumerate(items)]
            return plan.step(self._run, self._request(label, key, options), gather(parts, list, limit))
        requests = [self._request(label, check_key(key(item), where), options) for item in items]
        works = [single(partial(function, item)) for item in items]
        return plan.each(self._run, list(zip(requests, works, strict=True)), limit)

    def _request(self, label: str, key: Any, options: StepOptions) -> Request:
        run = self._run
        if type(label) is not str or label not in self._labels:
            self._labels.add(label := check_label(label, f"workflow {run.workflow!r}"))
        if key is not None:
            if not is_plain(key):
                key = check_key(key, run.where(label))
            if run.labels.setdefault(key, label) != label:
                raise run.conflict(key, label)
        if not options:
            return Request(label, key, run.policy)
        where = run.where(label, key)
        policy = _policy(run.policy, options, where)
        return Request(label, key, policy, bool(options.get("refresh")), self._timeout(options, where))

    def _once(self, request: Request, options: StepOptions) -> Request:
        """The same without another attempt, because an awaitable can be awaited only once."""
        if options.get("retry") is not None:
            where = self._run.where(request.label)
            raise InvalidUse(f"{where}: an awaitable can be awaited only once. With retry, pass a function.")
        return request._replace(policy=replace(request.policy, retry=None))

    def _timeout(self, options: StepOptions, where: str) -> float | None:
        timeout = seconds(options.get("timeout"), where, "timeout")
        if timeout is not None and not self._awaits:
            raise InvalidUse(
                f"{where}: timeout works in async bodies, because a thread cannot be interrupted. "
                "Use arun with an async body, or the timeout of the client that the function calls."
            )
        return timeout

    def _limit(self, limit: Any, label: str) -> int | None:
        if limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit > 0):
            return limit
        raise InvalidOption(f"{self._run.where(label)}: limit is {limit!r}; give a positive whole number, or None.")

    def _deferred(self, label: str, function: Any) -> Callable[[], Any]:
        """The function to call for what was given in its place."""
        if callable(function):
            return function  # type: ignore[no-any-return]
        if not inspect.isawaitable(function):
            self._warn_not_deferred(label)
            return partial(_given, function)
        if self._awaits:
            return partial(_awaited, function)
        raise InvalidUse(
            f"{self._run.where(label)}: an awaitable was given in a sync body. Pass the async function itself, "
            "or run an async body with arun."
        )

    def _warn_not_deferred(self, label: str) -> None:
        """Point at the line that called the step, however many frames of this package are between."""
        level, frame = 1, sys._getframe()  # noqa: SLF001 - the documented way to one's own stack without its cost
        while frame.f_globals.get("__package__") == __package__ and frame.f_back:
            level, frame = level + 1, frame.f_back
        warnings.warn(
            f"{self._run.where(label)} was given a value that is already computed, so nothing is cached. "
            f"Pass a function: step({label!r}, lambda: ..., key=...).",
            StepNotDeferred,
            stacklevel=level,
        )

    def _value(self, result: Result[Any], label: str, key: Any) -> Any:
        if isinstance(result, Ok):
            return result.value
        raise self._run.exception(result, label, key if isinstance(key, str) else None)


def _given(value: Any) -> Any:
    return value


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _policy(policy: Policy, options: StepOptions, where: str) -> Policy:
    """The run's policy with this step's options in place of its own."""
    changes: dict[str, Any] = {}
    for name, value in options.items():
        if name == "ttl":
            changes[name] = seconds(value, where)
        elif name == "cache_errors":
            changes[name] = error_classes(value, where)
        elif name == "retry":
            changes[name] = retrying(value, where)
        elif name not in StepOptions.__annotations__:
            raise InvalidUse(f"{where}: unknown option {name!r}. {hint(name, StepOptions.__annotations__)}")
    return replace(policy, **changes) if changes else policy
