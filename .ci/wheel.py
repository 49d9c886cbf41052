"""Build sdist and wheel, look inside both, and install the wheel offline, away from the sources, in a new project."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import textwrap
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from environments import LOCK, ROOT, Environment, run

__all__ = ["build", "try_in_memory"]

#: Which holds nothing but itself; its newest version knows best what an index refuses.
TWINE = "twine>=6,<8"

#: What a project would miss without an error.
NEEDED = (
    "stepflows/locale/de/LC_MESSAGES/django.mo",
    "stepflows/migrations/0001_initial.py",
    "stepflows/py.typed",
    "stepflows/static/stepflows/admin.css",
    "stepflows/templates/admin/stepflows/run/change_form.html",
)

#: In a project as startproject makes it, whose cache is this process's memory: the same workflow twice, the second time
#: nothing runs; and a run without a broker.
SCRIPT = """
import os
import sys

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "site_.settings"
django.setup()

import stepflows
from stepflows import workflow
from stepflows.testing import assert_steps, runs_in_place

assert stepflows.__file__.startswith(sys.prefix), stepflows.__file__
calls = []


@workflow("doubling")
def doubling(step, deps, number):
    return step("double", lambda: calls.append(number) or 2 * number, key=f"double:{number}")


first, second = doubling.run(number=21), doubling.run(number=21)
assert first.unwrap() == second.unwrap() == 42, (first, second)
assert calls == [21], calls
with runs_in_place() as runs:
    doubling.delay(number=4)
assert runs[0].result.unwrap() == 8, runs[0].result
assert_steps(runs[0], executed=[("double", "double:4")])
"""


def main() -> None:
    """Raises where something does not hold."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor() as threads:
        folder = Path(name).resolve()
        sdist, wheel = build(folder)
        described = threads.submit(_check_metadata, [sdist, wheel], folder)
        _inspect(sdist, _files_of_sdist(sdist))
        _inspect(wheel, _files_of_wheel(wheel))
        environment = _offline(wheel, folder)
        try_in_memory(environment, folder / "empty")
        described.result()
    print(f"{sdist.name}, {wheel.name}: complete, described as an index wants it, and installed offline")


def build(folder: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that was built from what the sdist holds."""
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT], cwd=ROOT)
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return sdist, wheel


def try_in_memory(environment: Environment, folder: Path) -> None:
    """A new project with the settings that it has from startproject, and a second look at what Django thinks of it."""
    folder.mkdir()
    run([environment.python, "-m", "django", "startproject", "site_", "."], cwd=folder)
    with (folder / "site_" / "settings.py").open("a") as settings:
        settings.write('INSTALLED_APPS += ["stepflows"]\n')
    (folder / "twice.py").write_text(textwrap.dedent(SCRIPT))
    run([environment.python, "-W", "error", "manage.py", "migrate"], cwd=folder)
    run([environment.python, "-W", "error", "twice.py"], cwd=folder)
    for command in (["check"], ["makemigrations", "--check", "--dry-run"], ["clear_step_cache", "--help"]):
        run([environment.python, "-W", "error", "manage.py", *command], cwd=folder)


def _files_of_wheel(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def _files_of_sdist(sdist: Path) -> set[str]:
    """Those of the package, by their path in it. What else there is, is what the wheel is built with."""
    with tarfile.open(sdist) as archive:
        paths = [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]
    lacking = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} - set(paths)
    _none(f"{sdist.name} lacks", lacking)
    return {path for path in paths if path.startswith("stepflows/")}


def _inspect(archive: Path, held: set[str]) -> None:
    """It holds every file of ``stepflows/`` that git knows of, and no other."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "stepflows"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    _none(f"{archive.name} lacks", expected - held)
    _none(f"{archive.name} should not hold", held - expected)
    _none("The sources lack", set(NEEDED) - held)


def _none(complaint: str, names: set[str]) -> None:
    if names:
        raise SystemExit(f"{complaint}: {', '.join(sorted(names))}")


def _check_metadata(archives: list[Path], folder: Path) -> None:
    """Whether an index would take them, and can show the README."""
    tools = Environment(sys.executable, folder / "tools")
    tools.pip("install", TWINE)
    run([tools.python, "-m", "twine", "check", "--strict", *archives], cwd=folder)


def _offline(wheel: Path, folder: Path) -> Environment:
    """What the lock says is fetched into a folder, and installed from there alone."""
    house = folder / "house"
    environment = Environment(sys.executable, folder / "venv")
    environment.pip("download", "--dest", house, "--constraint", LOCK, wheel)
    environment.pip("install", "--no-index", "--find-links", house, "--constraint", LOCK, "stepflows")
    return environment


if __name__ == "__main__":
    main()
