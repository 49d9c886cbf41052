"""Imports point down."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_contracts_on_imports_hold():
    """Every module of stepflows belongs to a layer and imports only from its own or a lower one."""
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
