"""Results to bytes and back, without pickle: see :mod:`stepflows.caches.codec.entry` for what lies where."""

from __future__ import annotations

from stepflows.caches.codec.codec import Codec, current_codec, dumps, loads
from stepflows.caches.codec.entry import Head, Signer, Truncated

__all__ = ["Codec", "Head", "Signer", "Truncated", "current_codec", "dumps", "loads"]
