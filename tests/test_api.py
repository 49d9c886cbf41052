"""The public interface, held still."""

import subprocess
import sys
from pathlib import Path

import stepflows
from tests.api import SNAPSHOT, described


def test_nothing_public_changes_unnoticed():
    """Names, signatures, bases, members and fields are those of tests/api.txt; ``python -m tests.api`` renews it."""
    assert described() == SNAPSHOT.read_text()


def test_a_change_would_be_noticed(monkeypatch):
    """An argument more, a name less."""
    monkeypatch.setattr(stepflows.StepCache, "keys", lambda self, prefix="", reverse=False: [])
    changed = described()
    assert changed != SNAPSHOT.read_text()
    assert "def keys(self, prefix='', reverse=False)" in changed


def test_the_package_is_typed(tmp_path: Path):
    """A project that checks its own code strictly learns what it gets, and where it is wrong."""
    script = tmp_path / "use.py"
    script.write_text(
        "from stepflows import Err, Ok, Result, StepCache, create_workflow, workflow\n"
        "from stepflows.models import Run\n"
        "@workflow('checkout')\n"
        "def checkout(step: object, deps: object, order_id: int) -> str:\n"
        "    return str(order_id)\n"
        "reveal_type(checkout.run(order_id=7))\n"
        "reveal_type(checkout.delay(7))\n"
        "reveal_type(StepCache('default').get('a'))\n"
        "checkout.run(order='7')\n"
        "checkout.delay()\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = [line.split("use.py:")[-1] for line in done.stdout.splitlines()]
    assert [line for line in told if "note: Revealed" in line] == [
        '6: note: Revealed type is "stepflows.results.Ok[Any] | stepflows.results.Err"',
        '7: note: Revealed type is "stepflows.models.run.Run"',
        '8: note: Revealed type is "stepflows.results.Ok[Any] | stepflows.results.Err | None"',
    ]
    assert [line.split(":")[0] for line in told if "error" in line and line[0].isdigit()] == ["9", "10"]
