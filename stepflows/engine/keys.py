"""Which keys and labels can be used, and what is made of them."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from stepflows.errors import InvalidOption, InvalidStepKey

__all__ = ["MAX_LENGTH", "check_key", "check_label", "check_name", "token"]

MAX_LENGTH = 200

# Control characters would break the index's separator; lone surrogates cannot be written as UTF-8.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_key(key: Any, where: str) -> str:
    """Return the key, or raise :exc:`~stepflows.errors.InvalidStepKey` naming ``where`` it was given, and why."""
    return _check(key, "key", where)


def check_label(label: Any, where: str) -> str:
    """Return the label, or raise :exc:`~stepflows.errors.InvalidStepKey`."""
    return _check(label, "label", where)


def check_name(name: Any) -> str:
    """Return the name of a workflow or a namespace, or raise :exc:`~stepflows.errors.InvalidOption`."""
    try:
        return _check(name, "name", "workflow")
    except InvalidStepKey as error:
        raise InvalidOption(str(error)) from None


def token(*parts: str) -> str:
    """A short stable name for these parts: 32 hexadecimal digits, fit for an ``Idempotency-Key`` header."""
    joined = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(joined).hexdigest()[:32]


def _check(text: Any, noun: str, where: str) -> str:
    if isinstance(text, str) and 0 < len(text) <= MAX_LENGTH and text == text.strip() and not _FORBIDDEN.search(text):
        return text
    raise InvalidStepKey(f"{where}: the {noun} {_shown(text)} {_problem(text)}")


def _shown(text: Any) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _problem(text: Any) -> str:
    if not isinstance(text, str):
        return f"is of type {type(text).__name__}; it must be a str, such as f'user:{{user_id}}'."
    if not text:
        return "is empty; name the thing that the step is about, such as 'user:1'."
    if len(text) > MAX_LENGTH:
        return f"has {len(text)} characters; at most {MAX_LENGTH} are allowed. Use an identifier or a hash of the rest."
    if _FORBIDDEN.search(text):
        return "contains a control character or a lone surrogate; remove or quote it."
    return "begins or ends with white space; strip it."
