"""A cache that somebody wrote: it works, and cannot say what it holds."""

from __future__ import annotations

from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache


class OpaqueCache(BaseCache):
    """Keeps values for all objects of the class."""

    kept: dict[str, Any] = {}

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        return self.kept.get(self.make_key(key, version), default)

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        self.kept[self.make_key(key, version)] = value

    def add(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        return self.kept.setdefault(self.make_key(key, version), value) is value

    def delete(self, key: str, version: int | None = None) -> bool:
        return self.kept.pop(self.make_key(key, version), None) is not None

    def clear(self) -> None:
        self.kept.clear()
