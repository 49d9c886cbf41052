"""Small programs that use workflows and come to an end, each in a process of its own.

``python -m tests.outages.programs NAME ALIAS KEY`` starts one; see :func:`started`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import django

from tests.outages.forker import notes
from tests.outages.single import PATIENCE
from tests.workers import ROOT

__all__ = ["started"]

T = TypeVar("T")


@contextmanager
def started(name: str, alias: str, key: str) -> Iterator[subprocess.Popen[str]]:
    """The program, with every warning an error; it and its children are killed if they have not ended by themselves."""
    command = [sys.executable, "-W", "error", "-X", "dev", "-m", "tests.outages.programs", name, alias, key]
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _flow(alias: str, **options: Any) -> Any:
    from stepflows import create_workflow

    return create_workflow("shop", cache=alias, **options)


def _noted(key: str, takes: float = 0) -> Callable[[], str]:
    """A step's function that notes that it began, and by which process."""

    def work() -> str:
        with notes() as book:
            book.incr(f"begun:{key}")
        time.sleep(takes)
        return f"by {os.getpid()}"

    return work


async def _unhurried(task: Coroutine[Any, Any, T]) -> T:
    """On a busy machine a callback may take its time; that is nothing to warn of."""
    asyncio.get_running_loop().slow_callback_duration = 60
    return await task


class _Waiting(threading.Event):
    """A listener that notices when a step waits for somebody else's."""

    def __call__(self, event: Any) -> None:
        if event.type == "step_wait":
            self.set()


def waiting_thread(alias: str, key: str) -> None:
    """The main thread ends while another one waits for somebody else's step."""
    waiting = _Waiting()
    flow = _flow(alias, on_event=waiting)
    work = _noted(key)
    threading.Thread(target=flow.run, args=(lambda step, deps: step("charge", work, key=key),), daemon=True).start()
    assert waiting.wait(PATIENCE)
    _say("waiting")


def waiting_task(alias: str, key: str) -> None:
    """The loop ends while a task waits for somebody else's step."""

    async def main() -> None:
        waiting = asyncio.Event()
        flow = _flow(alias, on_event=lambda event: waiting.set() if event.type == "step_wait" else None)
        work = _noted(key)

        async def body(step: Any, deps: Any) -> Any:
            return await step("charge", work, key=key)

        task = asyncio.ensure_future(flow.arun(body))
        await asyncio.wait_for(waiting.wait(), PATIENCE)
        _say("waiting")
        assert not task.done()

    asyncio.run(_unhurried(main()))


def interrupted(alias: str, key: str) -> None:
    """The main thread itself waits, until somebody presses Control-C."""

    class Saying(_Waiting):
        def set(self) -> None:
            _say("waiting")

    flow = _flow(alias, on_event=Saying())
    work = _noted(key)
    try:
        flow.run(lambda step, deps: step("charge", work, key=key))
    except KeyboardInterrupt:
        _say("interrupted")


def holding_thread(alias: str, key: str) -> None:
    """The main thread ends while another one runs a step."""
    begun = threading.Event()

    def work() -> None:
        begun.set()
        time.sleep(3600)

    flow = _flow(alias, lease=0.5)
    threading.Thread(target=flow.run, args=(lambda step, deps: step("charge", work, key=key),), daemon=True).start()
    assert begun.wait(PATIENCE)
    _say("holding")


def holding_task(alias: str, key: str) -> None:
    """The loop ends while a task runs a step."""

    async def main() -> None:
        begun = asyncio.Event()

        async def work() -> None:
            begun.set()
            await asyncio.sleep(3600)

        async def body(step: Any, deps: Any) -> Any:
            return await step("charge", work, key=key)

        task = asyncio.ensure_future(_flow(alias).arun(body))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        _say("holding")
        assert not task.done()

    asyncio.run(_unhurried(main()))


def ordinary(alias: str, key: str) -> None:
    """Both voices and a map, and then the end."""
    flow = _flow(alias)

    async def body(step: Any, deps: Any) -> Any:
        return await step.map("charge", range(20), str, key=lambda item: f"{key}:{item}")

    for _ in range(2):
        assert flow.run(lambda step, deps: step("charge", _noted(key), key=key)).ok
        assert asyncio.run(_unhurried(flow.arun(body))).ok
    _say("done")


def forking(alias: str, key: str) -> None:
    """Forks in the middle of a step: parent and child each hold a lease, for longer than it lasts by itself."""
    # Newer Pythons warn of what this is about.
    warnings.filterwarnings("ignore", "This process", DeprecationWarning)
    flow = _flow(alias, lease=1.2)
    child_key = f"{key}:child"

    def work() -> str:
        child = os.fork()
        if not child:
            result = flow.run(lambda step, deps: step("charge", _noted(child_key, 3), key=child_key))
            os._exit(0 if result.ok else 1)
        value = _noted(key, 3)()
        assert os.waitpid(child, 0)[1] == 0
        return value

    _say(flow.run(lambda step, deps: step("charge", work, key=key)).unwrap())


def forked(alias: str, key: str) -> None:
    """Forks after use, as a server that preloads does: four children share a cold key, and the parent's connection."""
    warnings.filterwarnings("ignore", "This process", DeprecationWarning)
    flow = _flow(alias)
    assert flow.run(lambda step, deps: step("warm", lambda: 1, key=f"{key}:warm")).ok
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            result = flow.run(lambda step, deps: step("charge", _noted(key, 0.1), key=key))
            with notes() as book:
                book.rpush(f"answers:{key}", result.unwrap())
            os._exit(0)
        children.append(child)
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    _say(flow.run(lambda step, deps: step("charge", _noted(key), key=key)).unwrap())


PROGRAMS = [waiting_thread, waiting_task, interrupted, holding_thread, holding_task, ordinary, forking, forked]


def main() -> None:
    name, alias, key = sys.argv[1:]
    django.setup()
    {program.__name__: program for program in PROGRAMS}[name](alias, key)


if __name__ == "__main__":
    main()
