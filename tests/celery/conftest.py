"""What all tests of this folder ask for."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest


@pytest.fixture
def name(valkey) -> str:
    """Of this test's runs, steps, gate and queue: nothing that another test has left over touches them."""
    return f"test-{uuid4().hex[:12]}"


@pytest.fixture
def folder(_folder: Path) -> Path:
    """Of this test process."""
    return _folder
