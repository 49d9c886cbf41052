"""What Django's database connections ask of the threads that run steps."""

from __future__ import annotations

from django.db import connections

from stepflows import conf
from stepflows.engine.threads import Threads

__all__ = ["DjangoThreads"]


class DjangoThreads(Threads):
    """Stay in the thread of an open transaction; leave no connection behind in other threads."""

    def max_workers(self) -> int:
        return conf.settings().MAX_WORKERS

    def pinned(self) -> bool:
        if not conf.is_configured():
            return False
        return any(connection.in_atomic_block for connection in connections.all(initialized_only=True))

    def finished(self) -> None:
        if conf.is_configured():
            connections.close_all()
