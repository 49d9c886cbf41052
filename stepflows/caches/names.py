"""What an entry is called: its scope and its key, and what the cache server calls it."""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

__all__ = ["PREFIX", "Name", "backend_key", "is_version_of", "lease_key", "namespace_of", "reserved_key", "scope_of"]

#: Every key that stepflows gives to a Django cache begins so.
PREFIX: Final = "stepflows:"

# Memcached takes 250 bytes; the rest is left to the alias's KEY_PREFIX and VERSION.
_MAX_LENGTH = 200
# What memcached accepts, without the sign that marks quoting.
_PLAIN = re.compile("[!-$&-~]+")
_PLAIN_SIGNS = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"


class Name(NamedTuple):
    """One entry among all of a cache. Names sort as they are listed: by scope, then by key."""

    scope: str
    key: str


def scope_of(namespace: str, version: int | str | None = None) -> str:
    """The scope of a namespace (a workflow's name, as a rule) and a version.

    The namespace is quoted, so that no namespace can imitate another one's version or key.
    """
    scope = _quoted(namespace, safe="/")
    return scope if version is None else f"{scope}@{_quoted(str(version), safe='')}"


def namespace_of(scope: str) -> tuple[str, str | None]:
    """The namespace and the version (as text) that a scope was made of."""
    namespace, sign, version = scope.partition("@")
    return unquote(namespace, errors="surrogatepass"), unquote(version, errors="surrogatepass") if sign else None


def is_version_of(scope: str, plain: str) -> bool:
    """Whether a scope is of the same namespace as one without a version."""
    return scope == plain or scope.startswith(f"{plain}@")


def backend_key(name: Name) -> str:
    """The key under which a Django cache keeps the entry, before its own ``make_key``.

    It obeys memcached's rules: printable ASCII, no white space, and short enough, for which a long one is hashed.
    """
    scope, key = name
    if not _PLAIN.fullmatch(key):
        key = _quoted(key, safe=_PLAIN_SIGNS)
    made = f"{PREFIX}{scope}:{key}"
    return made if len(made) <= _MAX_LENGTH else _hashed(name)


def reserved_key(purpose: str) -> str:
    """A key for something that is no entry, such as an index. No entry can have it: quoting never makes such a sign."""
    return f"{PREFIX}%.{purpose}"


def lease_key(name: Name) -> str:
    """The key of the entry's lease, before the cache's own ``make_key``. Sixteen bytes of a hash tell names apart."""
    digest = hashlib.blake2b("\0".join(name).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return reserved_key(f"lease:{digest}")


def _hashed(name: Name) -> str:
    digest = hashlib.sha256("\0".join(name).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{PREFIX}%%{digest}"


def _quoted(text: str, safe: str) -> str:
    return quote(text, safe=safe, errors="surrogatepass")
