"""How workflows are found at start-up, in a project of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = """
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "stepflows", "shop"]
SECRET_KEY = "x"
"""
SHOP = """
from stepflows import workflow

@workflow("{name}", cache={{}})
def {function}(step, deps):
    return step("a", lambda: 5, key="a")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "site_settings.py").write_text(SETTINGS)
    return tmp_path


def run(project: Path, *program: str) -> subprocess.CompletedProcess[str]:
    environment = {"DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": f"{project}:{Path(__file__).parent.parent}"}
    return subprocess.run(
        [sys.executable, *program], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def test_workflows_of_installed_apps_are_found(project: Path):
    """Without anybody importing them."""
    (project / "shop" / "workflows.py").write_text(SHOP.format(name="checkout", function="checkout"))
    done = run(
        project,
        "-c",
        "import django; django.setup(); from stepflows.registry import registry;"
        "print(registry.get('checkout').run().unwrap())",
    )
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr


def test_an_app_needs_no_workflows(project: Path):
    """As it needs no admin."""
    assert run(project, "-m", "django", "check").returncode == 0


def test_a_module_that_fails_to_import_says_so_itself(project: Path):
    """With its own traceback, and not by its workflows being missing."""
    (project / "shop" / "workflows.py").write_text("import no_such_library\n")
    done = run(project, "-m", "django", "check")
    assert done.returncode != 0
    assert "ModuleNotFoundError: No module named 'no_such_library'" in done.stderr
    assert "workflows.py" in done.stderr


def test_two_workflows_of_one_name_stop_the_start(project: Path):
    """Naming both places."""
    source = SHOP.format(name="checkout", function="one") + SHOP.format(name="checkout", function="two")
    (project / "shop" / "workflows.py").write_text(source)
    done = run(project, "-m", "django", "check")
    assert done.returncode != 0
    assert "DuplicateWorkflow" in done.stderr
    assert "shop.workflows.one" in done.stderr
    assert "shop.workflows.two" in done.stderr
