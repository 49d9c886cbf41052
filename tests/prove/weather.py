"""What a server can suffer, and for how long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.outages.single import Single
from tests.proxies import Proxy

__all__ = ["Trouble", "cache_troubles", "queue_troubles"]


@dataclass(frozen=True)
class Trouble:
    """Something that happens to a server."""

    name: str
    strike: Callable[[], object]
    #: The longest time until it is over, in seconds; 0 for what is over at once.
    lasts: float = 0.0
    #: Whether the server loses what it held.
    forgets: bool = False

    def suffer(self, chance: random.Random, mend: Callable[[], None]) -> None:
        self.strike()
        time.sleep(chance.uniform(0, self.lasts))
        mend()


def cache_troubles(single: Single, proxy: Proxy) -> list[Trouble]:
    """Those of a server whose clients come through a proxy; they last about as long as a client waits, or longer."""
    return [
        Trouble("server stopped, back with its data", lambda: _stop_keeping(single), 2.0),
        Trouble("server stopped, back empty", single.stop, 2.0, forgets=True),
        Trouble("server paused", single.pause, 4.0),
        Trouble("server full", single.fill, 2.0),
        Trouble("server read-only", single.demote, 2.0),
        Trouble("connections closed by the server", single.kill_clients),
        Trouble("FLUSHALL", single.client.flushall, forgets=True),
        Trouble("SCRIPT FLUSH", lambda: single.client.script_flush("SYNC")),
        Trouble("connections refused", proxy.refuse, 2.0),
        Trouble("connections reset", proxy.cut),
        Trouble("requests lost", lambda: proxy.swallow(replies=False), 4.0),
        Trouble("replies lost", lambda: proxy.swallow(requests=False), 4.0),
    ]


def queue_troubles(single: Single) -> list[Trouble]:
    """Those of a broker."""
    return [
        Trouble("broker stopped, back with its data", lambda: _stop_keeping(single), 3.0),
        Trouble("broker stopped, back empty", single.stop, 3.0, forgets=True),
        Trouble("broker paused", single.pause, 4.0),
        Trouble("broker emptied", single.client.flushall, forgets=True),
        Trouble("connections closed by the broker", single.kill_clients),
    ]


def _stop_keeping(single: Single) -> None:
    """Nothing is written between the last look at the data and the end, or it would be lost."""
    single.client.client_pause(60_000, all=False)
    single.stop(keep=True)
