"""Checks look at every workflow there is: here, at those that a test has made."""

from __future__ import annotations

import pytest

from stepflows.registry import registry


@pytest.fixture(autouse=True)
def _no_workflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_workflows", {})
