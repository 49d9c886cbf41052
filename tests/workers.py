"""A real Celery worker for the tests, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent
#: Seconds; a slow machine under load has to start it in that time.
PATIENCE = 60


@contextmanager
def running_worker(folder: Path, *queues: str, processes: int = 2) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is ready, and stopped at the end with all its processes."""
    log = folder / f"worker-{uuid4().hex[:8]}.log"
    command = [sys.executable, "-m", "celery", "-A", "tests.celery_app", "worker", f"--concurrency={processes}"]
    command += [f"--queues={','.join(queues or ['celery'])}", "--loglevel=INFO", f"--logfile={log}", "--without-mingle"]
    with log.with_suffix(".out").open("wb") as output:
        # A session of its own, so that all its processes can be ended together.
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=os.environ.copy()
        )
    try:
        _await_ready(process, log)
        yield process
    finally:
        _stop(process)


def _await_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (log.exists() and " ready." in log.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The worker did not start:\n{log.with_suffix('.out').read_text()}")
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """As a deployment does it: ask, and end what does not go."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
