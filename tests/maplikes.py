"""Map-likes as users write them."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from stepflows import dumps, loads


class SyncMap:
    """The least that a cache of one's own has; it keeps bytes, as a real one would."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def get(self, key: str) -> Any:
        return loads(self.data[key]) if key in self.data else None

    def set(self, key: str, result: Any) -> None:
        self.data[key] = dumps(result)

    def has(self, key: str) -> bool:
        return key in self.data

    def delete(self, key: str) -> bool:
        return self.data.pop(key, None) is not None


class AsyncMap:
    """The same over an async client."""

    def __init__(self) -> None:
        self.inner = SyncMap()

    async def get(self, key: str) -> Any:
        return self.inner.get(key)

    async def set(self, key: str, result: Any) -> None:
        self.inner.set(key, result)

    async def has(self, key: str) -> bool:
        return self.inner.has(key)

    async def delete(self, key: str) -> bool:
        return self.inner.delete(key)


class OwnMapping(MutableMapping[str, Any]):
    """A mapping that is no dict."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.data[key] = value

    def __delitem__(self, key: str) -> None:
        del self.data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


class BrokenMap:
    """A cache whose server is away."""

    def __init__(self, *broken: str) -> None:
        self.broken = broken or ("get", "set", "has", "delete")
        self.inner = SyncMap()

    def _try(self, name: str, *args: Any) -> Any:
        if name in self.broken:
            raise ConnectionError(f"{name}: no route to the cache")
        return getattr(self.inner, name)(*args)

    def get(self, key: str) -> Any:
        return self._try("get", key)

    def set(self, key: str, result: Any) -> None:
        self._try("set", key, result)

    def has(self, key: str) -> bool:
        return bool(self._try("has", key))

    def delete(self, key: str) -> bool:
        return bool(self._try("delete", key))
