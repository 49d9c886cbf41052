"""Every block runs in a test, and every link leads somewhere."""

import importlib
import re
from pathlib import Path

import pytest

from tests.docs.claims import CLAIMED
from tests.docs.documents import PAGES, ROOT, page


def test_every_block_is_run_by_a_test():
    """Whatever its language."""
    for file in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(f"tests.docs.{file.stem}")
    assert {str(block) for path in PAGES for block in page(path).blocks()} - CLAIMED == set()


@pytest.mark.parametrize("path", [*PAGES, "CHANGELOG.md", "SECURITY.md"])
def test_every_link_leads_somewhere(path):
    """To a file of the repository, and to a heading of its page."""
    broken = []
    for link in page(path).links:
        target, _, anchor = link.partition("#")
        file = ((ROOT / path).parent / target).resolve() if target else ROOT / path
        if link.startswith("https://"):
            continue
        if not file.exists() or (anchor and anchor not in page(str(file.relative_to(ROOT))).anchors):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_linked_to_from_the_readme(path):
    """So that it is found."""
    assert path == "README.md" or path in page("README.md").links


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_plain(path):
    """One heading of the first level, no heading twice, no line that ends in white space, tables of even rows."""
    lines = page(path).lines
    headings = page(path).headings
    assert len(re.findall(r"^# ", page(path).prose, re.MULTILINE)) == 1
    assert len(headings) == len(set(headings))
    assert [line for line in lines if line != line.rstrip()] == []
    for table in re.findall(r"(?:^\|.*\|\n)+", page(path).prose, re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1, table
