"""What users can rely on, as text: ``python -m tests.api`` writes it into ``tests/api.txt`` after a change meant so."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import django
from django.apps import apps
from django.db import models

import stepflows
from stepflows import signals, testing
from stepflows.definitions import RegisteredWorkflow

SNAPSHOT = Path(__file__).with_suffix(".txt")


def public() -> Iterator[tuple[str, Any]]:
    """The public objects by the names that people import them under."""
    for module in (stepflows, testing):
        for name in module.__all__:
            yield f"{module.__name__}.{name}", getattr(module, name)
    yield "stepflows.definitions.RegisteredWorkflow", RegisteredWorkflow
    for model in apps.get_app_config("stepflows").get_models():
        yield f"stepflows.models.{model.__name__}", model
        if _ours(rows := type(model._default_manager.all())):
            yield f"stepflows.models.{model.__name__}.objects", rows
    yield "stepflows.signals.step_event", signals.step_event


def described() -> str:
    """All of them: what each is, with its signature, its bases, its members."""
    return "\n".join(line for name, found in public() for line in _lines(name, found)) + "\n"


def _lines(name: str, found: Any) -> Iterator[str]:
    if inspect.isclass(found):
        bases = ", ".join(base.__name__ for base in found.__bases__ if base is not object)
        yield f"class {name}({bases})"
        yield from (f"    {line}" for line in _members(found))
    elif inspect.isfunction(found):
        yield f"def {name}{_signature(found)}"
    else:
        yield f"{name}: {type(found).__name__}"


def _members(found: type) -> Iterator[str]:
    if "__init__" in vars(found) and not issubclass(found, models.Model):
        yield f"__init__{_signature(found.__init__)}"
    if issubclass(found, models.Model):
        yield from (f"{field.name}: {type(field).__name__}" for field in found._meta.get_fields())
    if issubclass(found, Enum):
        yield from (f"{each.name} = {each.value!r}" for each in found)
    yield from _annotated(found)
    for name in sorted({name for base in _ours(found) for name in vars(base) if not name.startswith(("_", "test_"))}):
        yield from _member(name, inspect.getattr_static(found, name))


def _annotated(found: type) -> Iterator[str]:
    for base in reversed(_ours(found)):
        for name, kind in vars(base).get("__annotations__", {}).items():
            if not name.startswith("_"):
                yield f"{name}: {getattr(kind, '__forward_arg__', kind)}"


def _member(name: str, member: Any) -> Iterator[str]:
    if isinstance(member, property):
        yield f"{name} -> {inspect.signature(member.fget).return_annotation}"  # type: ignore[arg-type]
    elif isinstance(member, classmethod | staticmethod):
        yield f"{type(member).__name__} {name}{_signature(member.__func__)}"
    elif inspect.isfunction(member):
        prefix = "async " if inspect.iscoroutinefunction(member) else ""
        yield f"{prefix}def {name}{_signature(member)}"


def _ours(found: type) -> list[type]:
    return [base for base in found.__mro__ if base.__module__.startswith("stepflows")]


def _signature(function: Any) -> str:
    """Annotations as they are written, and objects by their class, so that each run shows the same."""
    shown = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function)))
    return re.sub(r"<(?:\w+\.)*(\w+) object at 0x\w+>", r"<\1>", shown)


if __name__ == "__main__":
    django.setup()
    SNAPSHOT.write_text(described())
