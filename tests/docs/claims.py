"""Which blocks of the documentation a test runs. Each has to be run by one."""

from __future__ import annotations

from typing import Final

import pytest

from tests.docs.documents import Block, page

__all__ = ["CLAIMED", "runs"]

#: Page and line of the blocks that tests have claimed so far.
CLAIMED: Final[set[str]] = set()


def runs(path: str, heading: str = "", *, language: str = "", containing: str = "") -> pytest.MarkDecorator:
    """The test is given the ``blocks`` below that heading, of that language, and fails unless it runs them all."""
    blocks = [
        block
        for block in page(path).blocks()
        if heading in ("", *block.headings) and language in ("", block.language) and containing in block.text
    ]
    if not blocks:
        raise LookupError(f"{path} has no block {language} below {heading!r} with {containing!r} in it.")
    CLAIMED.update(map(str, blocks))
    return pytest.mark.parametrize("blocks", [pytest.param(blocks, id=str(blocks[0]))])


def unfinished(blocks: list[Block]) -> list[str]:
    """Those that were claimed and not run."""
    return [str(block) for block in blocks if not block.ran]
