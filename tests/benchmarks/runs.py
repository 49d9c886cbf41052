"""Runs of one step, which is in the cache, on a worker with two processes; beside Celery tasks without stepflows."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from django.db import connection
from redis import Redis

from stepflows.caches import dumps
from stepflows.messages import TASK
from stepflows.models import Run
from stepflows.models.run import from_now
from stepflows.results import Ok
from tests import settings as site
from tests.benchmarks import tasks
from tests.benchmarks.server import Server
from tests.benchmarks.table import Row, Table, Value
from tests.celery_app import app
from tests.databases import running_database
from tests.workers import running_worker

__all__ = ["tables"]

MESSAGES: Final = 500
#: So that the worker has imported and connected everything.
WARM: Final = 50
# Short ones and many of them: what else the machine does strikes all contenders of a round alike.
ROUNDS: Final = 10
QUEUE: Final = "bench"
BASE: Final = "insert and update of one row"
RUN: Final = "a run of one step, a hit"
NOTHING: Final = "return 1"
#: The tasks.
CONTENDERS: Final = {BASE: "bench.one_row", RUN: TASK, NOTHING: "bench.return_one"}
#: Seconds without a single task after which something is wrong.
PATIENCE: Final = 60


class Taken(NamedTuple):
    """Seconds for one message."""

    seconds: float
    #: Processor time of the worker with its processes, if the system tells.
    processor: float | None


def tables(server: Server) -> Iterator[Table]:
    server.flush()
    taken: dict[str, list[Taken]] = {name: [] for name in CONTENDERS}
    with _worker() as group, Redis.from_url(site.BROKER_URL) as broker:
        tasks.one_step.run().unwrap()
        for task in CONTENDERS.values():
            _taken(broker, group, task, WARM)
        for _ in range(ROUNDS):
            for name, task in CONTENDERS.items():
                taken[name].append(_taken(broker, group, task, MESSAGES))
        title = f"{ROUNDS} times {MESSAGES} messages, a worker with two processes, {connection.vendor}"
    yield Table(title, [_row(name, taken[name], taken[BASE]) for name in CONTENDERS])


def _row(name: str, taken: list[Taken], base: list[Taken]) -> Row:
    """The ratio is that of the median round, the rest that of the best."""
    fastest = min(each.seconds for each in taken)
    values: dict[str, Value] = {"per second": 1 / fastest, "ms": fastest * 1000}
    values["ratio"] = median(mine.seconds / its.seconds for mine, its in zip(taken, base, strict=True))
    used = [each.processor * 1000 for each in taken if each.processor is not None]
    values["ms of processor"] = min(used, default=None)
    # Four fifths of what the other one does in the same time.
    return Row(name, values, {"ratio": 1.25} if name == RUN else {})


@contextmanager
def _worker() -> Iterator[int]:
    """The process group of a worker that has nothing to do yet; and a database."""
    site.FOLDER.mkdir(parents=True)
    try:
        with (
            running_database(),
            running_worker(site.FOLDER, "nothing", processes=2, options=["--include=tests.benchmarks.tasks"]) as worker,
        ):
            yield worker.pid
    finally:
        shutil.rmtree(site.FOLDER, ignore_errors=True)


def _taken(broker: Redis, group: int, task: str, times: int) -> Taken:
    """From the first message that the worker takes to the last one that it acknowledges."""
    arguments = _written(times) if task == TASK else list(map(str, range(times)))
    with app.producer_pool.acquire(block=True) as producer:
        for argument in arguments:
            app.send_task(task, (argument,), queue=QUEUE, producer=producer)
    used = _processor(group)
    app.control.add_consumer(QUEUE)
    _await(lambda: broker.llen(QUEUE) < times)
    began = time.perf_counter()
    _await(lambda: not (broker.llen(QUEUE) or broker.hlen("unacked")))
    seconds, used = time.perf_counter() - began, _processor(group) - used
    app.control.cancel_consumer(QUEUE, reply=True, timeout=PATIENCE, limit=1)
    _check_and_remove(task, times)
    return Taken(seconds / times, used / times if used else None)


def _processor(group: int) -> float:
    """Seconds that the processes of a group have used so far; 0 where the system does not tell."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # What is between brackets is the name, and may hold anything.
            _, _, fields = file.read_text().rpartition(")")
            process_group, *others = map(int, fields.split()[2:13])
            ticks += sum(others[-2:]) if process_group == group else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def _written(times: int) -> list[str]:
    """The rows of as many runs, as ``delay`` writes them."""
    arguments = dumps(Ok(((), {})))
    # Nobody sends them again meanwhile.
    runs = [Run(workflow=tasks.RUN, arguments=arguments, due_at=from_now(3600)) for _ in range(times)]
    return [str(run.pk) for run in Run.objects.bulk_create(runs, batch_size=500)]


def _check_and_remove(task: str, times: int) -> None:
    done = Run.objects.filter(state=Run.State.SUCCEEDED, executed=0).count()
    if task != CONTENDERS[NOTHING] and done != times:
        raise RuntimeError(f"{done} of {times} messages for {task} were worked off.")
    Run.objects.all().delete()


def _await(reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"The worker does not work its queue off in {PATIENCE} s.")
        time.sleep(0.005)
