"""The documentation is run by its tests, all of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.claims import unfinished
from tests.docs.stage import Stage


@pytest.fixture(autouse=True)
def _all_were_run(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test has claimed it runs."""
    blocks = request.getfixturevalue("blocks") if "blocks" in request.fixturenames else []
    for block in blocks:
        block.ran = False
    yield
    assert unfinished(blocks) == []


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """An empty stage for examples."""
    return Stage(monkeypatch)
