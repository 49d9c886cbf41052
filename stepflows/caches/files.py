"""Django's file cache, read from its files."""

# ruff: noqa: SLF001 - Django's cache has no public way to its files

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

from django.core.files import locks

from stepflows.caches.enumerable import HEAD_BYTES, EnumerableBackend
from stepflows.caches.pickled import expiry, plain_start
from stepflows.conf import settings

__all__ = ["FileBackend"]

# The file's own head, and the pickle around the bytes.
_MARGIN: Final = 64
_LOCK: Final = "stepflows.lock"


class FileBackend(EnumerableBackend):
    """Leases are as good as the locks of the file system, and end when they should.

    On one machine they hold between threads and processes; a network file system may not keep them between machines.
    """

    _counts_whole_seconds: ClassVar[bool] = False

    def _raw(self, cache: Any, keys: list[str]) -> dict[str, bytes]:
        # A bomb would unpack to more than any entry may be.
        most = settings().MAX_VALUE_BYTES + HEAD_BYTES + _MARGIN
        return {key: raw for key in keys if (raw := _unpacked(Path(cache._key_to_file(key)), most)) is not None}

    def _contents(self, cache: Any) -> Iterable[tuple[str, bytes]]:
        for path in cache._list_cache_files():
            raw = _unpacked(Path(path), HEAD_BYTES + _MARGIN, start=True)
            if raw is not None:
                yield path, plain_start(raw) or b""

    def _place(self, cache: Any, key: str) -> str:
        return str(cache._key_to_file(key))

    def _add(self, cache: Any, key: str, data: bytes, timeout: float | None) -> bool:
        # The cache's own add() unpickles the time of expiry of the file that is there, and looks before it writes.
        with _locked(cache):
            if _unpacked(Path(cache._key_to_file(key)), _MARGIN, start=True) is not None:
                return False
            cache.set(key, data, timeout)
            return True

    def _set(self, cache: Any, key: str, data: bytes, timeout: float | None) -> None:
        with _locked(cache):
            cache.set(key, data, timeout)

    def _extend(self, cache: Any, lease: str, own: bytes, timeout: float) -> bool:
        with _locked(cache):
            if self._read(cache, lease) != own:
                return False
            # Written anew, because touch() unpickles what is there.
            cache.set(lease, own, timeout)
            return True

    def _end(self, cache: Any, lease: str, own: bytes) -> None:
        with _locked(cache):
            super()._end(cache, lease, own)


@contextmanager
def _locked(cache: Any) -> Iterator[None]:
    """Keep out all others that look at a file of this cache and then write it."""
    # As the cache itself does: its folder can be deleted at any time.
    cache._createdir()
    with Path(cache._dir, _LOCK).open("ab") as file:
        locks.lock(file, locks.LOCK_EX)
        # Closing the file ends the lock.
        yield


def _unpacked(path: Path, most: int, *, start: bool = False) -> bytes | None:
    """The first ``most`` bytes of the pickle in the file; none for what is no such file, ``None`` if absent or expired.

    With ``start``, no more of the file is read than that takes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most) if start else file.read()
    except FileNotFoundError:
        return None
    expires = expiry(content)
    if expires is None:
        return b""
    if expires.at is not None and expires.at < time.time():
        return None
    try:
        return zlib.decompressobj().decompress(content[expires.size :], most)
    except zlib.error:
        return b""
