"""A real Celery worker for the tests, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent
#: Seconds; a slow machine under load has to start it in that time.
PATIENCE = 60


class Worker:
    """A worker that was just started, and all its processes."""

    def __init__(
        self,
        folder: Path,
        *queues: str,
        processes: int = 2,
        pool: str = "prefork",
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.log = folder / f"worker-{uuid4().hex[:8]}.log"
        command = [sys.executable, "-m", "celery", "-A", "tests.celery_app", "worker", f"--concurrency={processes}"]
        command += [f"--pool={pool}", f"--queues={','.join(queues or ['celery'])}", "--loglevel=INFO"]
        command += [f"--logfile={self.log}", "--without-mingle", *options]
        # Held open by all its processes: it ends when the last one has.
        self._life, theirs = os.pipe()
        with self.log.with_suffix(".out").open("wb") as output:
            # A session of its own, so that all its processes can be ended together.
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
                pass_fds=(theirs,),
            )
        os.close(theirs)

    @property
    def is_ready(self) -> bool:
        """Whether it takes messages. Raises :exc:`RuntimeError` if it has ended by itself."""
        if self.process.poll() is not None:
            raise RuntimeError(f"The worker did not start:\n{self.log.with_suffix('.out').read_text()}")
        return self.log.exists() and " ready." in self.log.read_text()

    def await_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.is_ready:
            if time.monotonic() > deadline:
                raise RuntimeError(f"The worker is not ready:\n{self.log.with_suffix('.out').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """As a deployment does it: ask, and end what does not go."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.kill()

    def kill(self) -> None:
        """End all its processes where they are; none of them does anything after this."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self._life >= 0:
            os.read(self._life, 1)
            os.close(self._life)
            self._life = -1


@contextmanager
def running_worker(
    folder: Path,
    *queues: str,
    processes: int = 2,
    pool: str = "prefork",
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is ready, and stopped at the end with all its processes."""
    worker = Worker(folder, *queues, processes=processes, pool=pool, environment=environment, options=options)
    try:
        worker.await_ready()
        yield worker.process
    finally:
        worker.stop()
