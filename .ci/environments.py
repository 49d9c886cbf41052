"""Interpreters, and environments of their own that hold nothing of the sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

__all__ = ["LOCK", "ROOT", "Environment", "find", "in_ci", "normalized", "pins", "run"]

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements-dev.txt"


class Environment:
    """A folder with an interpreter and what pip has installed for it."""

    def __init__(self, python: str, folder: Path) -> None:
        """Make it, empty."""
        self.folder = folder
        self.python = folder / "bin" / "python"
        run([python, "-m", "venv", folder], cwd=folder.parent)

    def pip(self, *arguments: str | Path) -> None:
        run([self.python, "-m", "pip", "-qq", "--disable-pip-version-check", "--no-input", *arguments], cwd=self.folder)


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """What it printed. Nothing of what would let the sources be found is handed on; what fails ends all with it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DJANGO"))}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed with exit code {done.returncode}:\n{done.stdout}")
    return done.stdout


def find(version: str) -> str | None:
    """An interpreter of that version that really runs (a pyenv shim may stand for none): pyenv's, or on the path."""
    folders = [Path.home() / ".pyenv" / "versions", Path(sys.base_prefix).parent]
    pyenv = [str(python) for folder in folders for python in folder.glob(f"{version}.*/bin/python")]
    candidates = [*sorted(pyenv, reverse=True), f"python{version}"]
    return next(filter(_works, filter(None, map(shutil.which, candidates))), None)


def _works(python: str) -> bool:
    return subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode == 0


def pins(without: Collection[str] = ()) -> list[str]:
    """The lines of the lock, but for these packages."""
    return [line for line in LOCK.read_text().splitlines() if "==" in line and normalized(line) not in without]


def normalized(requirement: str) -> str:
    """The name of the package that a requirement is about."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def in_ci() -> bool:
    """Whether what is missing here is a failure."""
    return bool(os.environ.get("CI"))
