"""The admin on a site that differs from the usual one in all that it may."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _manage(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "django", *arguments, "--settings", "tests.elsewhere.settings"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_it_works_with_other_users_times_and_languages():
    """People with a key that is no number, local times without zones, German, an admin site at another address."""
    done = _manage("test", "tests.elsewhere", "--pattern", "cases.py")
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stderr


def test_commands_speak_english_everywhere():
    """As Django's own do, so that scripts can read them."""
    done = _manage("list_step_cache", "--workflow", "Lieferung")
    assert done.stderr.endswith("\n0 cached steps (workflow “Lieferung”, cache “locmem”).\n")
