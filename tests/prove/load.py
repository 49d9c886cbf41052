"""``python -m tests.prove.load NAME KIND SEED TTL``: a process of the soak, with several lanes.

It lives until its standard input is closed, and then prints what came of it as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import django
from django.utils.module_loading import import_string

from tests.workers import ROOT

__all__ = ["Came", "Load"]

LANES: Final = 3


class Came(NamedTuple):
    """What came of a process."""

    done: Counter[str]
    compared: int
    wrong: list[str]


class Load:
    """The process, seen from outside."""

    def __init__(self, name: str, kind: str, seed: int, ttl: float, folder: Path, environment: Mapping[str, str]):
        self.name = name
        self._log = folder / f"{name}.log"
        command = [sys.executable, "-m", "tests.prove.load", name, kind, str(seed), str(ttl)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env={**os.environ, **environment},
            )

    def end(self, patience: float) -> Came:
        """Let it come to its end, and tell what came of it."""
        try:
            output, _ = self.process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            self.kill()
            return Came(Counter(), 0, [f"{self.name} has not come to its end within {patience:g} s.", self._told()])
        if self.process.returncode:
            return Came(Counter(), 0, [f"{self.name} ended with {self.process.returncode}.", self._told()])
        came = json.loads(output.splitlines()[-1])
        return Came(Counter(came["done"]), came["compared"], came["wrong"])

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _told(self) -> str:
        return self._log.read_text()[-2000:]


def main(name: str, kind: str, seed: str, ttl: str) -> None:
    ended = threading.Event()
    threading.Thread(target=_await_end, args=(ended,), daemon=True).start()
    lanes: list[Any] = [import_string(kind)(f"{name}.{number}", seed, float(ttl)) for number in range(LANES)]
    if asyncio.iscoroutinefunction(lanes[0].live):
        asyncio.run(_together(lanes, ended))
    else:
        threads = [threading.Thread(target=lane.live, args=(lambda: not ended.is_set(),)) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    done: Counter[str] = sum((lane.done for lane in lanes), Counter())
    wrong = [each for lane in lanes for each in lane.wrong]
    sys.stdout.write(
        json.dumps({"done": done, "compared": sum(lane.compared for lane in lanes), "wrong": wrong}) + "\n"
    )


def _await_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


async def _together(lanes: Sequence[Any], ended: threading.Event) -> None:
    await asyncio.gather(*(lane.live(lambda: not ended.is_set()) for lane in lanes))


if __name__ == "__main__":
    django.setup()
    main(*sys.argv[1:])
