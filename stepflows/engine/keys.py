"""Which keys and labels can be used, and what is made of them."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from stepflows.errors import InvalidOption, InvalidStepKey, InvalidUse

__all__ = [
    "MAX_LENGTH",
    "Prefetch",
    "check_key",
    "check_label",
    "check_name",
    "check_prefetch",
    "check_version",
    "is_plain",
    "new_token",
    "token",
]

MAX_LENGTH = 200

#: Keys, or a prefix of keys.
Prefetch: TypeAlias = str | Sequence[str]

# Control characters would break the index's separator; lone surrogates cannot be written as UTF-8.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def is_plain(text: Any) -> bool:
    """Whether this is, at first sight, a key or label as nearly all are; others may be good as well."""
    plain = type(text) is str and 0 < len(text) <= MAX_LENGTH and text.isascii() and text.isprintable()
    # Of these characters only the space is white.
    return plain and text[0] != " " != text[-1]


def check_key(key: Any, where: str) -> str:
    """Return the key, or raise :exc:`~stepflows.errors.InvalidStepKey` naming ``where`` it was given, and why."""
    return _check(key, "key", where)


def check_label(label: Any, where: str) -> str:
    """Return the label, or raise :exc:`~stepflows.errors.InvalidStepKey`."""
    return _check(label, "label", where)


def check_name(name: Any, where: str = "workflow") -> str:
    """Return the name of a workflow or a namespace, or raise :exc:`~stepflows.errors.InvalidOption`."""
    try:
        return _check(name, "name", where)
    except InvalidStepKey as error:
        raise InvalidOption(str(error)) from None


def check_version(version: Any, where: str) -> None:
    """Raise :exc:`~stepflows.errors.InvalidUse` unless this can be a version: a whole number or a usable text."""
    if isinstance(version, bool) or not isinstance(version, int | str):
        raise InvalidUse(f"{where}: version is {version!r}; give a str or an int.")
    if isinstance(version, str) and _FORBIDDEN.search(version):
        raise InvalidOption(f"{where}: version {version!r} contains a control character or a lone surrogate.")


def check_prefetch(prefetch: Any, where: str) -> Prefetch:
    """Return the keys, each once, or the prefix."""
    if isinstance(prefetch, str):
        return prefetch
    if not isinstance(prefetch, Iterable):
        raise InvalidUse(f"{where}: prefetch is {prefetch!r}; give a list of keys, or a prefix of them.")
    where = f"{where}, prefetch"
    return [*dict.fromkeys(key if is_plain(key) else check_key(key, where) for key in prefetch)]


def token(*parts: str) -> str:
    """A short stable name for these parts: 32 hexadecimal digits, fit for an ``Idempotency-Key`` header."""
    joined = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(joined).hexdigest()[:32]


def new_token() -> str:
    """A random name for a lease, such as nobody else has."""
    return secrets.token_hex(16)


def _check(text: Any, noun: str, where: str) -> str:
    if isinstance(text, str) and 0 < len(text) <= MAX_LENGTH and text == text.strip() and not _FORBIDDEN.search(text):
        # A member of a StrEnum would be another key once it is formatted.
        return text if type(text) is str else str.__str__(text)
    raise InvalidStepKey(f"{where}: the {noun} {_shown(text)} {_problem(text, noun)}")


def _shown(text: Any) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


_EXAMPLES = {"key": "'user:1'", "label": "'fetch user'", "name": "'checkout'"}


def _problem(text: Any, noun: str) -> str:
    if not isinstance(text, str):
        return f"is of type {type(text).__name__}; it must be a str, such as {_EXAMPLES[noun]}."
    if not text:
        return f"is empty; give one, such as {_EXAMPLES[noun]}."
    if len(text) > MAX_LENGTH:
        return f"has {len(text)} characters; at most {MAX_LENGTH} are allowed. Use an identifier or a hash of the rest."
    if _FORBIDDEN.search(text):
        return "contains a control character or a lone surrogate; remove or quote it."
    return "begins or ends with white space; strip it."
