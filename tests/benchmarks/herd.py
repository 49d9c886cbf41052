"""Many processes that want one key at the same moment, and the function takes 200 ms."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final
from uuid import uuid4

from cashews import Cache as Cashews
from django.core.cache import caches

from tests.benchmarks import peers
from tests.benchmarks.server import Server
from tests.benchmarks.steps import ALIAS, VALUE, acalled, called, made_workflow
from tests.benchmarks.table import Row, Table

__all__ = ["LAST", "TITLE", "tables"]

PROCESSES: Final = 32
SECONDS: Final = 0.2
ROUNDS: Final = 3
TITLE: Final = f"{PROCESSES} processes on one cold key, {SECONDS * 1000:.0f} ms of work"
LAST: Final = "last answer, s"
#: Until then everybody waits for the start.
AHEAD: Final = 0.25

STEPFLOWS = "stepflows"
ASYNC = "stepflows, async"
CONTENDERS = [STEPFLOWS, ASYNC, "cache.get_or_set", "dogpile.cache, distributed lock", "cashews, with lock"]

Answer = Callable[[str], object]


class Work:
    """The function that should run once: it counts and waits."""

    seconds = 0.0
    ran = 0

    def __call__(self) -> dict[str, Any]:
        self.ran += 1
        time.sleep(self.seconds)
        return VALUE

    async def later(self) -> dict[str, Any]:
        self.ran += 1
        await asyncio.sleep(self.seconds)
        return VALUE


def tables(server: Server) -> Iterator[Table]:
    server.flush()
    last = dict.fromkeys(CONTENDERS, float("inf"))
    ran = dict.fromkeys(CONTENDERS, 0)
    with _processes(server.url) as pipes:
        for _ in range(ROUNDS):
            for name in CONTENDERS:
                answers = _asked(pipes, name)
                last[name] = min(last[name], max(seconds for seconds, _ in answers))
                ran[name] = max(ran[name], sum(times for _, times in answers))
    goals = {"executions": 1, LAST: 0.27}
    yield Table(
        TITLE,
        [
            Row(
                name,
                {"executions": ran[name], LAST: last[name], "ratio": last[name] / last[STEPFLOWS]},
                goals if name in (STEPFLOWS, ASYNC) else {},
            )
            for name in CONTENDERS
        ],
    )


def _asked(pipes: list[Connection], name: str) -> list[tuple[float, int]]:
    """Start all of them at the same moment."""
    order = (name, f"cold:{uuid4().hex}", time.monotonic() + AHEAD)
    for pipe in pipes:
        pipe.send(order)
    return [pipe.recv() for pipe in pipes]


@contextmanager
def _processes(url: str) -> Iterator[list[Connection]]:
    """Processes that have imported everything and are connected."""
    # Forked from one that has imported all this and connected to nothing, as workers of a web server are.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pipes, processes = [], []
    try:
        for _ in range(PROCESSES):
            pipe, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, url), daemon=True)
            process.start()
            theirs.close()
            pipes.append(pipe)
            processes.append(process)
        for pipe in pipes:
            pipe.recv()
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join()


def serve(pipe: Connection, url: str) -> None:
    """One process: answers orders until nobody gives any."""
    work = Work()
    with asyncio.Runner() as runner, peers.made_cashews(runner, url) as cashews:
        contenders = _contenders(url, runner, cashews, work)
        for answer in contenders.values():
            answer(f"warm:{uuid4().hex}")
        work.seconds = SECONDS
        pipe.send("ready")
        while True:
            try:
                name, key, start = pipe.recv()
            except EOFError:
                return
            work.ran = 0
            time.sleep(max(0.0, start - time.monotonic()))
            contenders[name](key)
            pipe.send((time.monotonic() - start, work.ran))


def _contenders(url: str, runner: asyncio.Runner, cashews: Cashews, work: Work) -> dict[str, Answer]:
    flow, region = made_workflow(), peers.dogpile(url)

    @cashews(ttl="1h", key="{key}", lock=True)
    async def locked(key: str) -> dict[str, Any]:
        return await work.later()

    answers: list[Answer] = [
        lambda key: called(flow, lambda step: step("fetch", work, key=key))(1),
        lambda key: acalled(runner, flow, lambda step: step("fetch", work.later, key=key))(1),
        lambda key: caches[ALIAS].get_or_set(key, work, None),
        lambda key: region.get_or_create(key, work),
        lambda key: runner.run(locked(key)),
    ]
    return dict(zip(CONTENDERS, answers, strict=True))
