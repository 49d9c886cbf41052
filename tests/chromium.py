"""The browser that tests and pictures are made with."""

from __future__ import annotations

import os
import shutil

__all__ = ["ARGUMENTS", "chromium_path"]

_NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
#: What keeps it from looking for servers of its maker, and lets it run as root.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium_path() -> str | None:
    """The browser to drive: ``CHROMIUM``, or the first one on the path."""
    names = [os.environ["CHROMIUM"]] if "CHROMIUM" in os.environ else _NAMES
    return next(filter(None, map(shutil.which, names)), None)
