"""The ``STEPFLOWS`` setting, read in this one place, lazily, and again whenever a test changes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import lru_cache
from typing import Any

from django.conf import ENVIRONMENT_VARIABLE
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from stepflows.errors import hint

__all__ = ["Settings", "is_configured", "problems", "settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting with its default. Times are seconds."""

    CACHE: str = "default"
    TTL: float | timedelta | None = None
    CACHE_ERRORS: bool | tuple[type[BaseException], ...] = True
    LEASE: float = 30.0
    ON_CACHE_DOWN: str = "fail"
    MAX_VALUE_BYTES: int = 16 * 1024 * 1024
    SIGN: bool = False
    HEARTBEAT: float = 10.0
    MAX_ATTEMPTS: int = 5
    MAX_WORKERS: int = 8
    RUN_RETENTION: float | timedelta | None = timedelta(days=30)


_configured = False


def settings() -> Settings:
    """The settings in force.

    Raises :exc:`~django.core.exceptions.ImproperlyConfigured` for an unknown name or an impossible value.
    """
    # Not remembered while there are none, because they may come.
    return _settings() if is_configured() else Settings()


def is_configured() -> bool:
    """Whether Django has settings, or knows where they are. A workflow on a ``dict`` works without."""
    global _configured  # noqa: PLW0603 - once it is, it stays so, and this is asked at every hit
    _configured = _configured or django_settings.configured or ENVIRONMENT_VARIABLE in os.environ
    return _configured


@lru_cache(maxsize=1)
def _settings() -> Settings:
    given = _given()
    for problem in problems(given):
        raise ImproperlyConfigured(problem)
    values = dict(given)
    if "CACHE_ERRORS" in values:
        values["CACHE_ERRORS"] = _error_classes(values["CACHE_ERRORS"])
    return Settings(**values)


def problems(given: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Whatever is wrong with the setting, a sentence each; ``manage.py check`` reports them all at once."""
    given = _given() if given is None else given
    names = [field.name for field in fields(Settings)]
    for name, value in given.items():
        if name not in names:
            yield f"STEPFLOWS has no setting {name!r}. {hint(name, names)}"
        elif not _accepts(name, value):
            yield f"STEPFLOWS[{name!r}] is {value!r}, but must be {_RULES[name][0]}."


def _given() -> Mapping[str, Any]:
    given = getattr(django_settings, "STEPFLOWS", {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"STEPFLOWS must be a dict, not {type(given).__name__}.")
    return given


def _accepts(name: str, value: Any) -> bool:
    try:
        return bool(_RULES[name][1](value))
    except (TypeError, ValueError, ImportError):
        return False


def _positive(value: Any) -> bool:
    return _number(value) and 0 < value < float("inf")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _span(value: Any) -> bool:
    if isinstance(value, timedelta):
        return value > timedelta(0)
    return value is None or _positive(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and _positive(value)


def _error_classes(value: Any) -> bool | tuple[type[BaseException], ...]:
    """Accepts classes and dotted paths, because settings cannot import much."""
    if isinstance(value, bool):
        return value
    items = [value] if isinstance(value, str | type) else list(value)
    classes = tuple(import_string(item) if isinstance(item, str) else item for item in items)
    if not all(isinstance(item, type) and issubclass(item, BaseException) for item in classes):
        raise ValueError(value)
    return classes


def _is_error_classes(value: Any) -> bool:
    _error_classes(value)
    return True


_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "CACHE": ("an alias of CACHES", lambda value: isinstance(value, str) and value != ""),
    "TTL": ("a positive number of seconds, a timedelta, or None for ever", _span),
    "CACHE_ERRORS": ("True, False, or exception classes (or their dotted paths)", _is_error_classes),
    "LEASE": ("a positive number of seconds", _positive),
    "ON_CACHE_DOWN": ("'fail' or 'run'", lambda value: value in ("fail", "run")),
    "MAX_VALUE_BYTES": ("a positive number of bytes", _count),
    "SIGN": ("True or False", lambda value: isinstance(value, bool)),
    "HEARTBEAT": ("a positive number of seconds", _positive),
    "MAX_ATTEMPTS": ("a positive whole number", _count),
    "MAX_WORKERS": ("a positive whole number", _count),
    "RUN_RETENTION": ("a positive number of seconds, a timedelta, or None for ever", _span),
}


def _reset(*, setting: str, **_: Any) -> None:
    if setting == "STEPFLOWS":
        _settings.cache_clear()


setting_changed.connect(_reset)
