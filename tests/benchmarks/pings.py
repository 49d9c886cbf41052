"""Another client of the same server, a process of its own: how long it has to wait for a PING."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

from redis import Redis

__all__ = ["Pings", "pinged"]

PAUSE: Final = 0.0005


class Pings(NamedTuple):
    """Seconds. Where the machine is busy, the longest one tells of the machine as much as of the server."""

    #: 99 % took no longer.
    most: float
    longest: float


def pinged(url: str, call: Callable[[], object]) -> Pings:
    """How long another client's PINGs took during the call."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=ping, args=(theirs, url), daemon=True)
    process.start()
    try:
        pipe.recv()
        call()
        pipe.send("enough")
        pings: Pings = pipe.recv()
    finally:
        process.join()
    return pings


def ping(pipe: Connection, url: str) -> None:
    """Ask again and again until told to stop."""
    with Redis.from_url(url) as client:
        client.ping()
        pipe.send("ready")
        taken = []
        while not taken or not pipe.poll():
            began = time.perf_counter()
            client.ping()
            taken.append(time.perf_counter() - began)
            time.sleep(PAUSE)
        taken.sort()
        pipe.send(Pings(taken[int(len(taken) * 0.99)], taken[-1]))
