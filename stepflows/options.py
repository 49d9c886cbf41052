"""The options of a workflow, checked in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Self, TypedDict

from stepflows import conf
from stepflows.engine.events import Listener
from stepflows.engine.keys import check_version
from stepflows.engine.policy import (
    UNSET,
    CacheErrors,
    Policy,
    Retry,
    Ttl,
    Unset,
    error_classes,
    flag,
    lease_seconds,
    retrying,
    seconds,
)
from stepflows.errors import InvalidOption, InvalidUse, hint

__all__ = ["Options", "WorkflowOptions"]


class WorkflowOptions(TypedDict, total=False):
    """What ``create_workflow``, ``@workflow`` and ``using`` accept."""

    cache: Any
    version: str | int | None
    ttl: Ttl
    cache_errors: CacheErrors
    retry: int | Retry | None
    on_event: Listener | None
    on_cache_down: str
    lease: float | timedelta
    single_flight: bool


@dataclass(frozen=True, slots=True)
class Options:
    """A workflow's options, checked. ``UNSET`` leaves a matter to the settings."""

    cache: Any = None
    version: str | int | None = None
    ttl: Any = UNSET
    cache_errors: Any = UNSET
    retry: Any = None
    on_event: Listener | None = None
    on_cache_down: Any = UNSET
    lease: Any = UNSET
    single_flight: bool = True

    @classmethod
    def of(cls, where: str, base: Self, given: Mapping[str, Any]) -> Self:
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise InvalidUse(f"{where}: unknown option {name!r}. {hint(name, names)}")
        options = replace(base, **given)
        options.check(where)
        return replace(options, retry=retrying(options.retry, where))

    def check(self, where: str) -> None:
        if not isinstance(self.ttl, Unset):
            seconds(self.ttl, where)
        if not isinstance(self.cache_errors, Unset):
            error_classes(self.cache_errors, where)
        if self.on_cache_down not in ("fail", "run", UNSET):
            raise InvalidOption(f"{where}: on_cache_down is {self.on_cache_down!r}; give 'fail' or 'run'.")
        if not isinstance(self.lease, Unset):
            lease_seconds(self.lease, where)
        flag(self.single_flight, where, "single_flight")
        if self.on_event is not None and not callable(self.on_event):
            raise InvalidUse(f"{where}: on_event is {self.on_event!r}; give a function of one event.")
        if self.version is not None:
            check_version(self.version, where)

    def policy(self, where: str) -> Policy:
        settings = conf.settings()
        return Policy(
            ttl=seconds(settings.TTL if isinstance(self.ttl, Unset) else self.ttl, where),
            cache_errors=error_classes(
                settings.CACHE_ERRORS if isinstance(self.cache_errors, Unset) else self.cache_errors, where
            ),
            retry=self.retry,
            on_cache_down=settings.ON_CACHE_DOWN if isinstance(self.on_cache_down, Unset) else self.on_cache_down,
            lease=lease_seconds(settings.LEASE if isinstance(self.lease, Unset) else self.lease, where),
            single_flight=self.single_flight,
        )
