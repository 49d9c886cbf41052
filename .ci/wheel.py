"""Build the wheel, look inside, and use it in a new project, in a new environment, away from the sources."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Appended to the settings of a project that ``startproject`` made.
SETTINGS = """
INSTALLED_APPS += ["stepflows"]
"""

#: What a project would miss without an error.
NEEDED = (
    "stepflows/locale/de/LC_MESSAGES/django.mo",
    "stepflows/migrations/0001_initial.py",
    "stepflows/py.typed",
    "stepflows/static/stepflows/admin.css",
)

#: The same workflow twice: the second time nothing runs.
SCRIPT = """
import os
import sys

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "site_.settings"
django.setup()

import stepflows
from stepflows import create_workflow

assert stepflows.__file__.startswith(sys.prefix), stepflows.__file__
calls = []


def double(number):
    calls.append(number)
    return 2 * number


def body(step, deps, number):
    return step("double", lambda: deps["double"](number), key=f"double:{number}")


flow = create_workflow("doubling", {"double": double}, cache="default")
first, second = flow.run(body, number=21), flow.run(body, number=21)
assert first.unwrap() == second.unwrap() == 42, (first, second)
assert calls == [21], calls
"""


def main() -> None:
    """Raises where something does not hold."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = _build(folder / "dist")
        _inspect(wheel)
        _use(wheel, folder)
    print(f"{wheel.name}: holds stepflows/ and nothing else, and works away from its sources")


def _build(folder: Path) -> Path:
    _run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT], cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _inspect(wheel: Path) -> None:
    """The wheel holds every file of ``stepflows/`` and its own metadata."""
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "stepflows"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    _same("The wheel lacks", expected - held)
    _same("The wheel should not hold", held - expected)
    _same("The sources lack", set(NEEDED) - held)


def _same(complaint: str, names: set[str]) -> None:
    if names:
        raise SystemExit(f"{complaint}: {', '.join(sorted(names))}")


def _use(wheel: Path, folder: Path) -> None:
    _run([sys.executable, "-m", "venv", folder / "venv"], cwd=folder)
    python = folder / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "-qq", "--disable-pip-version-check", "--no-input"]
    _run([*pip, "install", "--constraint", ROOT / "requirements-dev.txt", wheel], cwd=folder)
    site = folder / "empty"
    site.mkdir()
    _run([python, "-m", "django", "startproject", "site_", "."], cwd=site)
    with (site / "site_" / "settings.py").open("a") as settings:
        settings.write(SETTINGS)
    (site / "twice.py").write_text(textwrap.dedent(SCRIPT))
    _run([python, "twice.py"], cwd=site)
    for command in (["check"], ["makemigrations", "--check", "--dry-run"], ["migrate"], ["clear_step_cache", "--help"]):
        _run([python, "-W", "error", "manage.py", *command], cwd=site)


def _run(command: list[str | Path], cwd: Path) -> None:
    """Run it without what would let the sources be found; its output is shown when it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DJANGO"))}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed with exit code {done.returncode}:\n{done.stdout}")


if __name__ == "__main__":
    main()
