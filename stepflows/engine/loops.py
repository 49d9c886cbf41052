"""The event loop that the current code belongs to, also where it runs in a thread of that loop."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Final

__all__ = ["running_loop"]

#: Set by the asynchronous driver before it hands work to a thread.
running_loop: Final[ContextVar[asyncio.AbstractEventLoop | None]] = ContextVar("stepflows_running_loop", default=None)
