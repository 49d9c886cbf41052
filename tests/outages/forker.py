"""A process that forks children to be killed: each runs one workflow of one step.

``python -m tests.outages.forker`` reads orders as lines of JSON and answers each with the child's process id.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import django
from redis import Redis

from tests.settings import BROKER_URL
from tests.voices import Async, Sync
from tests.workers import ROOT

__all__ = ["Forker", "Order", "notes", "running_forker"]


class Order(NamedTuple):
    """What a child is to do."""

    alias: str
    key: str
    #: Seconds.
    lease: float
    #: Seconds that the step takes.
    takes: float
    is_async: bool


def notes() -> Redis:
    """Where children note what they did: ``born:KEY``, ``begun:KEY`` (how often) and ``answers:KEY`` (a list)."""
    return Redis.from_url(BROKER_URL, decode_responses=True)


class Forker:
    """The process, seen from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._living: set[int] = set()

    def fork(self, order: Order) -> int:
        """Start a child and return its process id. It lives until it is killed."""
        assert self._process.stdin
        assert self._process.stdout
        with self._lock:
            print(json.dumps(order), file=self._process.stdin, flush=True)
            pid = int(self._process.stdout.readline())
            self._living.add(pid)
        return pid

    def kill(self, pid: int) -> None:
        """End the child where it is."""
        self._living.discard(pid)
        os.kill(pid, signal.SIGKILL)

    def kill_all(self) -> None:
        for pid in list(self._living):
            self.kill(pid)


@contextmanager
def running_forker() -> Iterator[Forker]:
    """It ends, and its children with it."""
    command = [sys.executable, "-m", "tests.outages.forker"]
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            yield Forker(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    django.setup()
    # Nobody has to wait for the dead.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _live(Order(*json.loads(line)))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _live(order: Order) -> Any:
    from stepflows import create_workflow

    book = notes()

    def charge() -> str:
        book.incr(f"begun:{order.key}")
        time.sleep(order.takes)
        return f"by {os.getpid()}"

    def body(step: Any, deps: Any) -> Any:
        return (yield step("charge", charge, key=order.key))

    book.set(f"born:{order.key}", os.getpid())
    flow = create_workflow("shop", cache=order.alias, lease=order.lease)
    voice = Async() if order.is_async else Sync()
    book.rpush(f"answers:{order.key}", voice.run(flow, body).unwrap())
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
