"""Where the examples of a page are played: the modules that they import, and the names that they share."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest

from stepflows.registry import registry
from tests.docs.documents import Block

__all__ = ["Stage"]


class Stage:
    """Modules and registered workflows that are gone after the test."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        patch.setattr(registry, "_workflows", {})

    def module(self, name: str, **names: Any) -> ModuleType:
        """A module that examples can import, with these names in it, and the packages above it."""
        module = sys.modules.get(name)
        if module is None:
            module = ModuleType(name)
            self._patch.setitem(sys.modules, name, module)
        vars(module).update(names)
        package, _, own = name.rpartition(".")
        if package:
            self._patch.setattr(self.module(package), own, module, raising=False)
        return module

    def play(self, blocks: Iterable[Block], **names: Any) -> dict[str, Any]:
        """Run them in order, the names of one at hand in the next; whose first line names a file is that module too."""
        shared = {"__name__": "example", **names}
        for block in blocks:
            shared["__name__"] = block.file.removesuffix(".py").replace("/", ".") or "example"
            block.run(shared)
            if block.file:
                self.module(shared["__name__"], **{name: each for name, each in shared.items() if name[:2] != "__"})
        return shared
