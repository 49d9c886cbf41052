"""Processes that end, fork, or are interrupted while they use workflows: nothing hangs and nothing is left."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from stepflows import Ok, Result, create_workflow
from tests.calls import Calls
from tests.outages.forker import notes
from tests.outages.programs import started
from tests.outages.single import PATIENCE, await_until
from tests.servers import Valkey

#: Seconds that a process may take to end, on a busy machine too; what it must not wait for takes longer.
SOON = 20


@pytest.fixture
def book(valkey: Valkey) -> Iterator[Redis]:
    """What the processes noted."""
    with notes() as book:
        book.flushdb()
        yield book


@pytest.fixture
def held(redis_alias: str) -> Iterator[str]:
    """A key whose step this process runs until the test has ended."""
    begun, released = threading.Event(), threading.Event()

    def charge():
        begun.set()
        return released.wait(PATIENCE)

    flow = create_workflow("shop", cache=redis_alias)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(flow.run, lambda step, deps: step("charge", charge, key="order:7"))
        assert begun.wait(PATIENCE)
        yield "order:7"
        released.set()
        assert running.result(PATIENCE) == Ok(True)


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that it says, or all its complaints if it has come to an end."""
    return process.stdout.readline() or process.stderr.read()


def ended(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    """What it still said on both streams, and its exit code."""
    out, err = process.communicate(timeout=SOON)
    return out, err, process.returncode


@pytest.mark.parametrize("program", ["waiting_thread", "waiting_task"])
def test_the_end_does_not_wait_for_a_lease(redis_alias: str, held: str, book: Redis, program: str):
    """A process whose thread or task waits for somebody else's step ends at once, and without a word."""
    with started(program, redis_alias, held) as process:
        assert line_of(process) == "waiting\n"
        assert ended(process) == ("", "", 0)
    assert book.keys() == []


def test_waiting_can_be_interrupted(redis_alias: str, held: str, book: Redis):
    """Control-C reaches whoever waits."""
    with started("interrupted", redis_alias, held) as process:
        assert line_of(process) == "waiting\n"
        process.send_signal(signal.SIGINT)
        assert ended(process) == ("interrupted\n", "", 0)
    assert book.keys() == []


@pytest.mark.parametrize("program", ["holding_thread", "holding_task"])
def test_the_end_of_a_holder(redis_alias: str, program: str):
    """It is not kept from ending by the thread that renews its lease, and the key is free within the lease."""
    with started(program, redis_alias, "order:7") as process:
        assert line_of(process) == "holding\n"
        assert ended(process) == ("", "", 0)
    begun = time.monotonic()
    flow = create_workflow("shop", cache=redis_alias, lease=1)
    assert flow.run(lambda step, deps: step("charge", lambda: "charged", key="order:7")) == Ok("charged")
    assert time.monotonic() - begun < 1 + 1


def test_an_ordinary_end(redis_alias: str, book: Redis):
    """No warning of an open connection, a thread or a loop."""
    with started("ordinary", redis_alias, "order:7") as process:
        assert ended(process) == ("done\n", "", 0)


def test_a_fork_in_the_middle_of_a_step(redis_alias: str, book: Redis):
    """Parent and child renew the leases that are their own: others wait for both, and each step runs once."""
    keys = ["order:7", "order:7:child"]
    work = Calls("by somebody else")
    flow = create_workflow("shop", cache=redis_alias, lease=1.2)

    def call(key: str) -> Result:
        await_until(lambda: book.exists(f"begun:{key}"))
        return flow.run(lambda step, deps: step("charge", work, key=key))

    # In this order, so that nobody waits for a process that hangs.
    with ThreadPoolExecutor(2) as pool, started("forking", redis_alias, keys[0]) as process:
        values = [result.unwrap() for result in pool.map(call, keys)]
        assert ended(process) == (f"by {process.pid}\n", "", 0)

    assert values[0] == f"by {process.pid}"
    assert values[1] not in (values[0], "by somebody else")
    assert work.count == 0
    assert [book.get(f"begun:{key}") for key in keys] == ["1", "1"]


def test_forks_after_use(redis_alias: str, book: Redis):
    """Children of a process that has used the cache get along with each other: one execution, one value."""
    with started("forked", redis_alias, "order:7") as process:
        out, err, code = ended(process)
    assert (err, code) == ("", 0)
    assert book.get("begun:order:7") == "1"
    assert book.lrange("answers:order:7", 0, -1) == [out.strip()] * 4
