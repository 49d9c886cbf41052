"""Bodies for the checks to read, and what they say of them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.checks import CheckMessage

from stepflows import workflow
from stepflows.checks import check_workflows

#: What the bodies that are written in tests can use.
IMPORTS = """\
import asyncio, datetime as dt, functools, hashlib, os, random, secrets, time, uuid
from datetime import date, datetime, timedelta
from functools import partial
from operator import methodcaller
from uuid import uuid4
from django.utils import timezone
from django.utils.crypto import get_random_string

"""


def written(folder: Path, text: str) -> Callable[..., Any]:
    """The function ``body`` of this text, in a file of its own as all functions are."""
    file = folder / "workflows.py"
    file.write_text(IMPORTS + textwrap.dedent(text))
    names: dict[str, Any] = {"__name__": "written"}
    exec(compile(file.read_text(), file, "exec"), names)
    body: Callable[..., Any] = names["body"]
    return body


def said_of(body: Callable[..., Any], deps: Any = None) -> list[CheckMessage]:
    """What the checks say of this body."""
    workflow("shop", deps=deps, cache={})(body)
    return check_workflows()


def ids(messages: list[CheckMessage]) -> list[str | None]:
    return [message.id for message in messages]


def says(message: CheckMessage, pattern: str) -> bool:
    return re.search(pattern, f"{message.msg} {message.hint}") is not None
