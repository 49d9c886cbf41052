"""Keys that are the same for every item of a loop."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from django.core.checks import CheckMessage, Info

from stepflows.checks.calls import Block, Loop, StepCall
from stepflows.checks.sources import Source, bindings, parameters

__all__ = ["check_loops"]

#: What a key may consist of that does not change by itself.
_STEADY: Final = (
    ast.Constant,
    ast.JoinedStr,
    ast.FormattedValue,
    ast.Name,
    ast.Attribute,
    ast.BinOp,
    ast.operator,
    ast.expr_context,
)
#: With these a key is used more than once on purpose.
_ON_PURPOSE: Final = {"refresh", "cache_errors", None}


def check_loops(where: str, source: Source, call: StepCall) -> Iterator[CheckMessage]:
    """A function that is another for each item, under a key that is not."""
    if call.key is None or call.options & _ON_PURPOSE:
        return
    missing = _missing_of_map(call) if isinstance(call.key, ast.Lambda) else _missing(source, call)
    if missing:
        yield Info(
            f"{where}: the key of step {call.shown_label}, {ast.unparse(call.key)}, is the same for every "
            f"{missing!r}, which its function uses: all but the first are given the result of the first.",
            hint=f"Make {missing!r} a part of the key, such as f'...:{{{missing}}}'.",
            id="stepflows.I003",
        )


def _missing_of_map(call: StepCall) -> str:
    """The item, where the key of each does not tell which one it is."""
    key = call.key
    if call.form != "map" or not isinstance(key, ast.Lambda) or not isinstance(call.function, ast.Lambda):
        return ""
    if len(parameters(key)) != 1 or len(parameters(call.function)) != 1 or not _is_steady(key.body):
        return ""
    (item,), (used,) = parameters(key), parameters(call.function)
    return used.arg if used.arg in _names(call.function.body) and item.arg not in _names(key.body) else ""


def _missing(source: Source, call: StepCall) -> str:
    """The variable of a loop that the function uses and the key does not."""
    key = call.key
    if isinstance(key, ast.Name):
        key = source.assigned.get(key.id)
    if key is None or not _is_steady(key):
        return ""
    for loop in call.place.loops:
        if _leaves(call.place.blocks, loop) or _names(call.key, key) & set(bindings(loop)):
            continue
        used = _used(call.function) & _derived(loop)
        if used:
            return min(used & _targets(loop) or used)
    return ""


def _leaves(blocks: tuple[Block, ...], loop: Loop) -> bool:
    """Whether the loop may end with this step, as one does that looks for what succeeds."""
    owners = [block.owner for block in blocks]
    return any(block.ends for block in blocks[owners.index(loop) :]) if loop in owners else False


def _is_steady(key: ast.expr) -> bool:
    return isinstance(key, ast.Constant | ast.JoinedStr | ast.BinOp) and all(
        isinstance(node, _STEADY) for node in ast.walk(key)
    )


def _targets(loop: Loop) -> set[str]:
    targets = [loop.target] if isinstance(loop, ast.For | ast.AsyncFor) else [each.target for each in loop.generators]
    return {name for target in targets for name in bindings(target)}


def _derived(loop: Loop) -> set[str]:
    """The variables of a loop, and those that are made from them in it."""
    made = [
        (_names(node.value), set(bindings(node)))
        for node in ast.walk(loop)
        if isinstance(node, ast.Assign | ast.NamedExpr | ast.AnnAssign)
    ]
    derived, before = _targets(loop), set[str]()
    while before != derived:
        before = derived
        derived = derived.union(*(targets for sources, targets in made if sources & derived))
    return derived


def _used(function: ast.expr) -> set[str]:
    """Names that a function is made with, or uses of those around it."""
    if not isinstance(function, ast.Lambda):
        return _names(function)
    defaults = [*function.args.defaults, *filter(None, function.args.kw_defaults)]
    return _names(*defaults) | (_names(function.body) - set(bindings(function.args)))


def _names(*nodes: ast.AST | None) -> set[str]:
    every = (each for node in nodes if node is not None for each in ast.walk(node))
    return {each.id for each in every if isinstance(each, ast.Name)}
