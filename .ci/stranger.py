"""A stranger's first hour: the tutorial, to the letter, in new projects, with the wheel and without the sources.

On each supported Python, on the oldest Django or the newest, on SQLite and on PostgreSQL, with Redis and with none at
all. What the tutorial says to click in the admin is clicked. A missing interpreter is named and left out, except where
CI is set: there it is a failure. Names of tours as arguments run only these.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import psycopg
from environments import ROOT, Environment, find, in_ci, pins
from visit import Visit
from wheel import build, try_in_memory

sys.path.insert(0, str(ROOT))
from tests.docs.documents import page
from tests.docs.walk import Reader, typed
from tests.postgres import running_postgres
from tests.servers import running_server
from tests.settings import _free_port

TUTORIAL = "docs/tutorial.md"
_INSTALL = "python -m pip install "
#: The machine has two cores, and much of it is waiting for servers.
AT_ONCE = 3


@dataclass(frozen=True)
class Tour:
    """One way through the tutorial."""

    python: str
    django: str
    database: str
    cache: str

    def __str__(self) -> str:
        return f"py{self.python.replace('.', '')}-{self.database}-{self.cache}".lower()

    @property
    def variants(self) -> set[str]:
        """The words of the tutorial for it."""
        return {f"with {self.database}", "without Redis" if self.cache == "none" else "with Redis or Valkey"}


#: Each Python meets each database and each cache, and each database meets each cache.
TOURS = [
    Tour("3.11", "django==5.2.*", "SQLite", "redis"),
    Tour("3.11", "django==5.2.*", "PostgreSQL", "none"),
    Tour("3.12", "django>=6", "SQLite", "none"),
    Tour("3.12", "django>=6", "PostgreSQL", "redis"),
    Tour("3.13", "django>=6", "SQLite", "redis"),
    Tour("3.13", "django>=6", "PostgreSQL", "none"),
]


def main(names: list[str]) -> int:
    """0 when all tours that had to be made came to their end."""
    unknown = set(names) - {str(tour) for tour in TOURS}
    if unknown:
        print(f"No such tour: {', '.join(sorted(unknown))}. Known are {', '.join(map(str, TOURS))}.")
        return 2
    chosen = [tour for tour in TOURS if not names or str(tour) in names]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(AT_ONCE) as threads:
        folder = Path(name).resolve()
        _, wheel = build(folder)
        days = [(python, list(tours)) for python, tours in groupby(chosen, attrgetter("python"))]
        outcomes = [
            outcome for day in threads.map(partial(_day, wheel, folder), *zip(*days, strict=True)) for outcome in day
        ]
    for tour, outcome in outcomes:
        print(f"{tour!s:24} {outcome}")
    allowed = ("done", "no interpreter") if not in_ci() else ("done",)
    return int(not all(outcome.startswith(allowed) for _, outcome in outcomes))


def _day(wheel: Path, folder: Path, version: str, tours: list[Tour]) -> list[tuple[Tour, str]]:
    """The tours on one Python, in an environment made from the wheel, and what came of each."""
    python = find(version)
    if python is None:
        print(f"Python {version} is neither on the path nor under pyenv; left out.", flush=True)
        return [(tour, "no interpreter") for tour in tours]
    try:
        environment = _environment(python, folder / f"venv-{version}", wheel, tours[0].django)
        try_in_memory(environment, folder / f"memory-{version}")
    except SystemExit as error:
        return [(tour, f"FAILED before it began: {error}") for tour in tours]
    return [(tour, _outcome(tour, environment, folder)) for tour in tours]


def _environment(python: str, folder: Path, wheel: Path, django: str) -> Environment:
    """What the tutorial installs, the wheel in the place of its name; and the driver of PostgreSQL."""
    environment = Environment(python, folder)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pins(without=["django"])))
    asked = [wheel if each == "stepflows" else each for each in _installed()]
    assert wheel in asked, f"{TUTORIAL} does not install stepflows"
    environment.pip("install", "--constraint", constraints, django, "psycopg[binary]", *asked)
    return environment


def _installed() -> Iterator[str]:
    for block in page(TUTORIAL).blocks():
        for command, _ in typed(block):
            if command.startswith(_INSTALL):
                yield from shlex.split(command.removeprefix(_INSTALL))


def _outcome(tour: Tour, environment: Environment, folder: Path) -> str:
    began = time.monotonic()
    try:
        _make(tour, environment, folder / str(tour))
    except (AssertionError, SystemExit) as error:
        return f"FAILED: {error}"
    return f"done in {time.monotonic() - began:.0f} s"


def _make(tour: Tour, environment: Environment, folder: Path) -> None:
    """From the first block of the tutorial to its last, and what is to be clicked."""
    folder.mkdir()
    port = _free_port()
    with ExitStack() as stack:
        settings = {"PATH": f"{environment.python.parent}:/usr/bin:/bin"}
        settings.update(pair for pair in _servers(tour, folder, stack))
        reader = stack.enter_context(Reader(folder, tour.variants, port, settings))
        for block in page(TUTORIAL).blocks():
            if "list_step_cache" in block.text:
                reader.wait_for_runs()
            reader.follow(block)
        _look_again(reader, port)


def _servers(tour: Tour, folder: Path, stack: ExitStack) -> Iterator[tuple[str, str]]:
    """Start what the tour needs, and tell where it is in the words of the tutorial."""
    if tour.cache == "redis":
        (folder / "valkey").mkdir()
        server = stack.enter_context(running_server(_free_port(), folder / "valkey"))
        yield "REDIS_URL", f"redis://127.0.0.1:{server.port}"
    if tour.database == "PostgreSQL":
        postgres = stack.enter_context(running_postgres())
        with psycopg.connect(postgres.url, autocommit=True) as session:
            session.execute("CREATE DATABASE bookshop")
        yield from {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGUSER": "postgres"}.items()


def _look_again(reader: Reader, port: int) -> None:
    """The admin in the eyes of its user; a step that is cleared there runs again, and no other."""
    visit = Visit(f"http://127.0.0.1:{port}", "admin", "bookshop")
    visit.sees("/admin/stepflows/cachedstep/", "order:8:charge", "order:13:charge")
    visit.sees("/admin/stepflows/run/", "succeeded", "order_id=10", "order_id=11")
    charges = reader.folder / "charges.log"
    before = charges.read_text().splitlines()
    visit.deletes("order:8:charge")
    for _ in range(2):
        assert "receipt for order 8" in reader.get("/orders/8/pay/", b""), "order 8 was not paid"
    assert charges.read_text().splitlines() == [*before, "order 8"], charges.read_text()
    for command in ("check", "migrate --check", "makemigrations --check --dry-run", "list_step_cache --limit 1"):
        reader.type(f"python -W error manage.py {command}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
