"""Signatures, so that nobody who can only write to the cache server can forge an entry."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

__all__ = ["Signer"]

_SALT: Final = b"stepflows.caches.entry"

Key = str | bytes


class Signer:
    """Signs with one key (Django's ``SECRET_KEY``) and accepts what that key or one of the fallbacks signed."""

    #: Bytes of a signature.
    SIZE: Final = 32

    def __init__(self, key: Key, fallbacks: Iterable[Key] = ()) -> None:
        # Salted, so that a signature made for another purpose with the same key is none here.
        self._keys = [hmac.digest(_SALT, _bytes(each), sha256) for each in (key, *fallbacks)]

    def sign(self, data: bytes | memoryview) -> bytes:
        """The signature of the data."""
        return hmac.digest(self._keys[0], data, sha256)

    def verifies(self, data: bytes | memoryview, signature: bytes | memoryview) -> bool:
        """Whether the signature is one of ours for the data."""
        return any(hmac.compare_digest(hmac.digest(key, data, sha256), signature) for key in self._keys)


def _bytes(key: Key) -> bytes:
    return key.encode() if isinstance(key, str) else key
