"""Keys that two steps of one run share."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Final

from django.core.checks import CheckMessage, Warning

from stepflows.checks.calls import Place, StepCall
from stepflows.checks.sources import Source

__all__ = ["check_sharing"]

#: What a key may consist of that is the same wherever it is written alike.
_LITERAL: Final = (
    ast.Constant,
    ast.JoinedStr,
    ast.FormattedValue,
    ast.Name,
    ast.Attribute,
    ast.BinOp,
    ast.operator,
    ast.expr_context,
)


def check_sharing(where: str, source: Source, calls: Sequence[StepCall]) -> Iterator[CheckMessage]:
    """Two labels under one key that is written alike, where both steps are reached in one run."""
    keyed = [(call, key) for call in calls if (key := _literal(source, call.key))]
    for (first, key), (second, other) in combinations(keyed, 2):
        labels = (first.label, second.label)
        if key == other and _differ(*labels) and not _exclude(first.place, second.place):
            yield Warning(
                f"{where}: the steps {first.shown_label} ({source.place(first.node)}) and {second.shown_label} "
                f"({source.place(second.node)}) have the same key, {key}: a run that comes to "
                "both is stopped by StepKeyConflict.",
                hint="Give each its own key, such as f'order:{order_id}:charge' and f'order:{order_id}:mail'.",
                id="stepflows.W011",
            )


def _literal(source: Source, key: ast.expr | None) -> str:
    """The key as it is written, if it is always the same where it is written so; or empty."""
    if isinstance(key, ast.Name):
        key = source.assigned.get(key.id)
    if not isinstance(key, ast.Constant | ast.JoinedStr | ast.BinOp):
        return ""
    steady = all(isinstance(node, _LITERAL) for node in ast.walk(key))
    names = {node.id for node in ast.walk(key) if isinstance(node, ast.Name)}
    return ast.unparse(key) if steady and all(source.bound[name] <= 1 for name in names) else ""


def _differ(first: ast.expr, second: ast.expr) -> bool:
    return isinstance(first, ast.Constant) and isinstance(second, ast.Constant) and first.value != second.value


def _exclude(first: Place, second: Place) -> bool:
    """Whether it may be that no run comes to both; the first is written before the second."""
    if first.scope is not second.scope:
        return True
    shared = 0
    while shared < min(len(first.blocks), len(second.blocks)) and first.blocks[shared] == second.blocks[shared]:
        shared += 1
    ours, theirs = first.blocks[shared:], second.blocks[shared:]
    # Conditions of two statements may be each other's opposite.
    both = any(block.conditional for block in ours) and any(block.conditional for block in theirs)
    branches = bool(ours and theirs and ours[0].owner is theirs[0].owner)
    return both or branches or any(block.ends for block in ours)
