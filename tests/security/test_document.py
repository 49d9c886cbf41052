"""SECURITY.md says of each line by which tests it is held, and those are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TEXT = (ROOT / "SECURITY.md").read_text()
#: The lines of its tables that claim something.
CLAIMS = [line for line in TEXT.splitlines() if line.startswith(("| ✓", "| ✗"))]
NAMED = re.compile(r"`(tests/[\w/]+/)?(test_\w+\.py)::(test_\w+)`")


def functions_of(path: Path) -> set[str]:
    """The names of the functions in a file."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim[2:60])
def test_each_claim_names_tests_that_exist(claim: str):
    """A claim that nothing holds, or that names a test which was renamed, fails here."""
    _, _, words, tests, _ = claim.split("|")
    named = NAMED.findall(tests)
    assert words.strip()
    assert len(named) == len(tests.split(", ")) > 0
    for folder, file, name in named:
        assert name in functions_of(ROOT / folder / file if folder else HERE / file), f"{folder}{file}::{name}"


def test_each_attacker_is_written_about():
    """There are claims of what holds and of what does not, under each heading."""
    assert len(CLAIMS) > 40
    assert {claim[2] for claim in CLAIMS} == {"✓", "✗"}
    for part in re.split("^##+ Somebody|^##+ A hostile", TEXT, flags=re.MULTILINE)[1:]:
        assert "| ✓ |" in part


def test_each_test_of_this_folder_is_named():
    """What is tested here is said there, but for tests of this file and what makes sure that tests can fail."""
    named = {name for _, _, name in NAMED.findall(TEXT)}
    unnamed = {name for path in HERE.glob("test_*.py") if path != Path(__file__) for name in functions_of(path)} - named
    controls = {"test_a_signed_entry_is_used", "test_an_honest_unicode_error_comes_back"}
    assert {name for name in unnamed if name.startswith("test_")} == controls
