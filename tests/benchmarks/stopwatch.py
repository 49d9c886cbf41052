"""How long something takes: the fastest of several rounds, in which the contenders take turns.

Machines are noisy, and noise only ever adds.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Mapping

__all__ = ["Repeat", "arepeated", "fastest", "once", "repeated"]

#: Does the thing that many times.
Repeat = Callable[[int], None]


def repeated(call: Callable[[], object]) -> Repeat:
    def repeat(times: int) -> None:
        for _ in range(times):
            call()

    return repeat


def arepeated(runner: asyncio.Runner, call: Callable[[], Awaitable[object]]) -> Repeat:
    """The same on the runner's loop, one call after the other."""

    async def all_of_them(times: int) -> None:
        for _ in range(times):
            await call()

    return lambda times: runner.run(all_of_them(times))


def fastest(contenders: Mapping[str, Repeat], *, times: int, rounds: int = 7) -> dict[str, float]:
    """Seconds for one call of each."""
    for repeat in contenders.values():
        repeat(1)  # connects, loads scripts
    # Garbage is collected as ever, but not looked for among what was there before.
    gc.collect()
    gc.freeze()
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, repeat in contenders.items():
            began = time.perf_counter()
            repeat(times)
            best[name] = min(best[name], (time.perf_counter() - began) / times)
    return best


def once(call: Callable[[], object]) -> float:
    """Seconds for what cannot be done twice, or takes too long to."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
