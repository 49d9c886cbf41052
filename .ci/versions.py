"""Run the tests on every supported pair of Python and Django, each in an environment of its own (.venv-*).

One of them runs on PostgreSQL, the others on SQLite. All tests run on the oldest and on the newest of everything, and
on the pairs between those two what the pair may have a part in.
A missing interpreter is named and left out, except where CI is set: there it is a failure.
Names of cells as arguments run only these.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from environments import ROOT, find, in_ci, normalized, pins

#: What belongs to a version of Celery or of the redis client, so that an old one brings its own.
FAMILY = {
    "amqp", "async-timeout", "billiard", "click", "click-didyoumean", "click-plugins", "click-repl", "hiredis", "kombu",
    "packaging", "python-dateutil", "redis", "tzlocal", "vine",
}  # fmt: skip

#: What knows little of Django; tests/contract goes through all of it.
APART = ("caches", "engine", "outages", "security")
#: What runs on this Django and on this Python, but not on the two together.
EITHER = ("celery", "contract", "testing")


@dataclass(frozen=True)
class Cell:
    """One environment: the lock, with these requirements in the place of its own, and these packages unpinned."""

    name: str
    python: str
    requirements: tuple[str, ...]
    unpinned: frozenset[str] = frozenset()
    database: str = "sqlite"
    left_out: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return ROOT / f".venv-{self.name}"

    @property
    def interpreter(self) -> Path:
        return self.folder / "bin" / "python"

    def lock(self) -> str:
        """The text of the requirements file of this cell."""
        replaced = {normalized(line) for line in self.requirements} | self.unpinned
        return "\n".join([*self.requirements, *pins(without=replaced), ""])


def _oldest() -> tuple[str, ...]:
    """The lower bounds that pyproject.toml promises, taken by their word."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return tuple(requirement.replace(">=", "==") for requirement in declared)


CELLS = [
    Cell("oldest", "3.11", (*_oldest(), "redis>=5,<6"), frozenset(FAMILY)),
    Cell("py312-django6", "3.12", ("django>=6",), left_out=APART),
    Cell("py313-django52", "3.13", ("django==5.2.*",), left_out=APART + EITHER),
    Cell("py313-django6-postgresql", "3.13", ("django>=6",), database="postgresql"),
]


def main(names: list[str]) -> int:
    """Run the cells; 0 when all that had to run have passed."""
    unknown = set(names) - {cell.name for cell in CELLS}
    if unknown:
        print(f"No such cell: {', '.join(sorted(unknown))}. Known are {', '.join(cell.name for cell in CELLS)}.")
        return 2
    outcomes = {cell.name: _run(cell) for cell in CELLS if not names or cell.name in names}
    for name, outcome in outcomes.items():
        print(f"{name:24} {outcome}")
    return int("failed" in outcomes.values() or (in_ci() and "no interpreter" in outcomes.values()))


def _run(cell: Cell) -> str:
    python = find(cell.python)
    if python is None:
        print(f"\n{cell.name}: Python {cell.python} is neither on the path nor under pyenv; left out.", flush=True)
        return "no interpreter"
    print(f"\n{cell.name}: Python {cell.python}, {', '.join(cell.requirements)}, {cell.database}", flush=True)
    if not _prepare(cell, python):
        return "failed"
    chosen = ["-m", "not browser and not once", *(f"--ignore=tests/{folder}" for folder in cell.left_out)]
    command = [str(cell.interpreter), "-m", "pytest", "-n", "2", "-q", *chosen, "-p", "no:cacheprovider"]
    environment = {**os.environ, "TEST_DATABASE": cell.database}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    return "passed" if done.returncode == 0 else "failed"


def _prepare(cell: Cell, python: str) -> bool:
    """Make the environment, unless it stands already with just these packages."""
    wanted = cell.lock()
    mark = cell.folder / hashlib.sha256(f"{python} {wanted}".encode()).hexdigest()[:16]
    if mark.exists():
        return True
    subprocess.run([python, "-m", "venv", "--clear", cell.folder], check=True)
    requirements = cell.folder / "requirements.txt"
    requirements.write_text(wanted)
    pip = [str(cell.interpreter), "-m", "pip", "-qq", "--disable-pip-version-check", "--no-input", "install"]
    ready = not any(
        subprocess.run([*pip, *arguments], cwd=ROOT, check=False).returncode
        for arguments in (["-r", str(requirements)], ["--no-deps", "--no-build-isolation", "-e", "."])
    )
    if ready:
        mark.touch()
    return ready


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
