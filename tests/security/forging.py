"""What somebody who can write to the cache puts there."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from msgpack import ExtType, packb  # type: ignore[import-untyped,unused-ignore]

from stepflows.caches import backend_for
from stepflows.caches.backend import Write
from stepflows.caches.names import Name, scope_of

__all__ = ["CLASS_NAMES", "entry", "exception", "ext", "failure", "packed", "plant", "record", "stored"]

WORKFLOW, KEY = "checkout", "user:1"
#: A loaded class of each kind that has no business in a value.
CLASS_NAMES = ["subprocess:Popen", "os:system", "builtins:eval", "pathlib:Path", "django.http.request:HttpRequest"]

_ENUM, _RECORD, _EXCEPTION = 13, 14, 15


def packed(value: Any) -> bytes:
    """A value as msgpack."""
    return bytes(packb(value, unicode_errors="surrogatepass"))


def ext(code: int, *parts: Any) -> ExtType:
    """A value of one of the codec's kinds, of any parts."""
    return ExtType(code, packed(list(parts)))


def member(path: str, name: Any) -> ExtType:
    """A member of any Enum."""
    return ext(_ENUM, path, name)


def record(path: str, fields: str, held: dict[str, Any]) -> ExtType:
    """An instance of any dataclass or named tuple."""
    return ext(_RECORD, path, fields, held)


def exception(path: str, *args: Any, state: dict[Any, Any] | None = None, message: Any = "forged") -> ExtType:
    """An exception of any class, with any arguments and attributes."""
    held = {name: packed(value) for name, value in (state or {}).items()}
    return ext(_EXCEPTION, path, message, [packed(arg) for arg in args], None, held)


def entry(
    payload: bytes, *, ok: bool = True, stamp: Sequence[Any] = (), place: Sequence[str] = (WORKFLOW, KEY)
) -> bytes:
    """An unsigned entry under its right name, with a right checksum, around any payload."""
    workflow, key = place
    head = packed([*(stamp or ("load", 0.0, 0.0, "", None)), scope_of(workflow), key])
    data = struct.pack(">4sBBHQ", b"\xc1sf\n", 1, int(ok), len(head), len(payload)) + head + payload
    return data + struct.pack(">I", crc32(data))


def failure(error: Any) -> bytes:
    """An entry of a step that failed with this error."""
    return entry(packed([error] if isinstance(error, ExtType) else [error, None]), ok=False)


def plant(alias: str, data: bytes, scope: str = WORKFLOW, key: str = KEY) -> None:
    """Put bytes in the place of an entry."""
    backend_for(alias).write([Write(Name(scope, key), data, replace=True)])


def stored(alias: str, scope: str = WORKFLOW, key: str = KEY) -> bytes:
    """The bytes in the place of an entry."""
    data = backend_for(alias).read(Name(scope, key))
    assert data is not None
    return data
