"""What the admin says in another language."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from gettext import GNUTranslations
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import translation
from django.utils.translation.template import templatize
from pytest_django.fixtures import Settings

import stepflows
from tests.everypage import Read, every_page

PACKAGE = Path(stepflows.__file__).parent
LANGUAGES = sorted(folder.name for folder in (PACKAGE / "locale").iterdir())
MARKS = ("_", "gettext", "gettext_lazy", "ngettext", "ngettext_lazy")
LITERAL = r"""u?('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""

Catalog = dict[str | tuple[str, int], str]


def _catalog(language: str) -> Catalog:
    """What the ``.po`` file says, as Python's ``gettext`` keeps it."""
    text = (PACKAGE / "locale" / language / "LC_MESSAGES" / "django.po").read_text()
    catalog: Catalog = {}
    for block in text.split("\n\n"):
        assert "fuzzy" not in block, block
        joined = re.sub(r'"\n"', "", re.sub("(?m)^#.*\n", "", block))
        said = {name: ast.literal_eval(quoted) for name, quoted in re.findall(r'(?m)^(msg\S+) (".*")$', joined)}
        assert all(said[name] for name in said if name != "msgid"), block
        plurals = {(said["msgid"], int(name[7:-1])): said[name] for name in said if name.startswith("msgstr[")}
        catalog |= plurals or {said["msgid"]: said["msgstr"]}
    return catalog


def _marked() -> Iterator[tuple[str, ...]]:
    """What the sources mark for translation: a text, or one and its plural."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MARKS:
                texts = (each.value for each in node.args if isinstance(each, ast.Constant))
                yield tuple(text for text in texts if isinstance(text, str))[: 1 + node.func.id.startswith("n")]
    for file in PACKAGE.rglob("*.html"):
        marked = templatize(file.read_text())
        for found in re.finditer(rf"\b(n?)gettext\({LITERAL}(?:, {LITERAL})?|\b_\({LITERAL}", marked):
            yield tuple(ast.literal_eval(text) for text in found.groups()[1:] if text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_that_is_marked_is_translated(language: str):
    """And nothing that is gone: ``make messages`` was run, no entry is empty, and none is only guessed."""
    catalog = _catalog(language)
    single = {texts[0] for texts in _marked() if len(texts) == 1}
    plural = {texts[0] for texts in _marked() if len(texts) == 2}
    assert {key for key in catalog if isinstance(key, str)} == single | {""}
    assert {key[0] for key in catalog if isinstance(key, tuple)} == plural


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_shipped_is_what_was_translated(language: str):
    """The compiled file says the same as the one that people edit."""
    with (PACKAGE / "locale" / language / "LC_MESSAGES" / "django.mo").open("rb") as file:
        compiled = vars(GNUTranslations(file))["_catalog"]
    # The compiler leaves dates out of the head, which is what is under no text.
    assert compiled | {"": ""} == _catalog(language) | {"": ""}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_names_the_same_things(language: str):
    """Each value that a text takes is in its translation too, and so is each tag."""
    parts = re.compile(r"%\(\w+\)\w|%%|</?\w[^>]*>")
    for key, text in _catalog(language).items():
        original = key[0] if isinstance(key, tuple) else key
        assert sorted(parts.findall(text)) == sorted(parts.findall(original)) or not original


@pytest.fixture
def pages(
    boss: Client, locmem: str, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> dict[str, Callable[[], Any]]:
    return every_page(boss, locmem, monkeypatch, settings)


def _english(language: str) -> Iterator[re.Pattern[str]]:
    """The texts that are others in that language, each as one may meet it on a page."""
    for key, text in _catalog(language).items():
        original = re.sub("</?[^>]*>", "", key[0] if isinstance(key, tuple) else key)
        if original.lower() in (text.lower(), ""):
            continue
        words = [re.escape(part) for part in re.split(r"%\(\w+\)\w", original)]
        yield re.compile(rf"(?<!\w){'.{1,40}?'.join(words)}(?!\w)")


@pytest.mark.django_db
def test_the_admin_speaks_german_throughout(pages: dict[str, Callable[[], Any]], settings: Settings):
    """Not one of our texts is left in English, on any page, for eyes or ears."""
    settings.LANGUAGE_CODE = "de"
    with translation.override("de"):
        patterns = list(_english("de"))
        left = {}
        for name, ask in pages.items():
            response = ask()
            assert response.status_code in (200, 503), name
            # What a cache said is an exception's text, and those are no more translated than Python's own.
            text = Read(response.content.decode()).text.replace(str(response.context.get("error")), "")
            left[name] = [found[0] for pattern in patterns if (found := pattern.search(text))]
    assert {name: texts for name, texts in left.items() if texts} == {}
