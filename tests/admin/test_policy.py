"""A Content-Security-Policy that allows nothing inline."""

from __future__ import annotations

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from tests.everypage import Read, every_page

pytestmark = pytest.mark.django_db


def test_no_page_has_scripts_or_styles_of_its_own(
    boss: Client, locmem: str, monkeypatch: pytest.MonkeyPatch, settings: Settings
):
    """All of them are files: there is no script without an address, no style, and no attribute that is either."""
    inline = {}
    for name, ask in every_page(boss, locmem, monkeypatch, settings).items():
        elements = Read(ask().content.decode()).elements
        assert elements, name
        inline[name] = [
            (tag, attributes)
            for tag, attributes in elements
            if tag == "style"
            or (tag == "script" and not attributes.get("src"))
            or any(each == "style" or each.startswith("on") for each in attributes)
            or (attributes.get("href") or "").lower().startswith("javascript:")
        ]
    assert {name: found for name, found in inline.items() if found} == {}
