"""What steps did, in a file that all processes share: a line is written in one piece."""

from __future__ import annotations

from pathlib import Path

from tests import settings as site


def _file() -> Path:
    return site.FOLDER / "notes.txt"


def note(text: str) -> str:
    """Write a line down, and return it."""
    with _file().open("a") as file:
        file.write(f"{text}\n")
    return text


def notes() -> list[str]:
    """Every line, in the order written."""
    return _file().read_text().splitlines() if _file().exists() else []


def forget() -> None:
    _file().unlink(missing_ok=True)
