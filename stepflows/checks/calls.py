"""The calls of steps in a body, and where in it they stand."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from stepflows.checks.sources import FUNCTIONS, Node, bindings

__all__ = ["Block", "Loop", "Place", "StepCall", "step_calls"]

Loop: TypeAlias = ast.For | ast.AsyncFor | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp

_LOOPS: Final = (ast.For, ast.AsyncFor, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
#: The parts of a loop that are gone through for each item.
_REPEATED: Final = {"body", "elt", "key", "value"}
#: Parts that may not be reached though the statement is.
_CONDITIONAL: Final[dict[type[ast.AST], tuple[str, ...]]] = {
    ast.If: ("body", "orelse"),
    ast.IfExp: ("body", "orelse"),
    ast.BoolOp: ("values",),
    ast.Try: ("handlers", "orelse"),
    ast.TryStar: ("handlers", "orelse"),
    ast.Match: ("cases",),
}
#: Where the arguments stand of each way to call a step.
_FUNCTION_AT: Final = {"run": 1, "all": 1, "map": 2}


class Block(NamedTuple):
    """A part of a statement that may not be reached."""

    owner: ast.AST
    part: str
    #: Whether a condition says so; else it is the body of a loop, or what is returned.
    conditional: bool
    #: Whether what follows the statement is not reached from here.
    ends: bool


class Place(NamedTuple):
    """What a call stands in, from the outside to the inside."""

    scope: Node
    blocks: tuple[Block, ...] = ()
    loops: tuple[Loop, ...] = ()


@dataclass(frozen=True, slots=True)
class StepCall:
    """``step(label, function, key=key)``, or one of its other forms."""

    node: ast.Call
    #: ``run``, ``all`` or ``map``.
    form: str
    label: ast.expr
    function: ast.expr
    key: ast.expr | None
    #: The names of what else is given; ``None`` for ``**options``.
    options: frozenset[str | None]
    place: Place

    @property
    def shown_label(self) -> str:
        """The label as it is written."""
        return ast.unparse(self.label)


def step_calls(body: Node, step: str) -> Iterator[StepCall]:
    """Every call of the name that the step has in this body, in the order in which they are written."""
    return _within(body, step, Place(body))


def _within(node: ast.AST, step: str, place: Place) -> Iterator[StepCall]:
    if isinstance(node, ast.Call):
        yield from _step_call(node, step, place)
    for part, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if isinstance(child, FUNCTIONS):
                # Where a function is called from is not known.
                if step not in bindings(child.args):
                    yield from _within(child, step, Place(child))
            elif isinstance(child, ast.AST):
                yield from _within(child, step, _inside(place, node, part, index, children))


def _inside(place: Place, node: ast.AST, part: str, index: int, children: Sequence[ast.AST]) -> Place:
    block = _block(node, part, index, children)
    blocks = place.blocks if block is None else (*place.blocks, block)
    loops = (*place.loops, node) if isinstance(node, _LOOPS) and part in _REPEATED else place.loops
    return Place(place.scope, blocks, loops)


def _block(node: ast.AST, part: str, index: int, children: Sequence[ast.AST]) -> Block | None:
    if isinstance(node, ast.Return):
        return Block(node, part, conditional=False, ends=True)
    if isinstance(node, ast.For | ast.AsyncFor | ast.While) and part in {"body", "orelse"}:
        return Block(node, part, conditional=False, ends=_ends(children))
    # Of "a and b", a is always looked at.
    if part not in _CONDITIONAL.get(type(node), ()) or (isinstance(node, ast.BoolOp) and index == 0):
        return None
    if part in {"handlers", "cases", "values"}:
        return Block(node, f"{part} {index}", conditional=True, ends=_ends(getattr(children[index], "body", [])))
    return Block(node, part, conditional=True, ends=_ends(children))


def _ends(statements: Sequence[ast.AST]) -> bool:
    """Whether nothing that follows these statements is reached from them."""
    match statements[-1] if statements else None:
        case ast.Return() | ast.Raise() | ast.Continue() | ast.Break():
            return True
        case ast.If(body=body, orelse=orelse):
            return _ends(body) and _ends(orelse)
        case ast.With(body=body) | ast.AsyncWith(body=body):
            return _ends(body)
    return False


def _step_call(node: ast.Call, step: str, place: Place) -> Iterator[StepCall]:
    match node.func:
        case ast.Name(id=name) if name == step:
            form = "run"
        case ast.Attribute(value=ast.Name(id=name), attr=form) if name == step and form in _FUNCTION_AT:
            pass
        case _:
            return
    given = {each.arg: each.value for each in node.keywords}
    function = _argument(node, _FUNCTION_AT[form]) or given.get("function") or given.get("functions")
    label = _argument(node, 0) or given.get("label")
    if function is None or label is None:
        return
    key = given.get("key")
    if isinstance(key, ast.Constant) and key.value is None:
        key = None
    yield StepCall(node, form, label, function, key, frozenset(given) - {"label", "key"}, place)


def _argument(node: ast.Call, index: int) -> ast.expr | None:
    """The argument at a position, unless that depends on how long a list in front of it is."""
    before = node.args[: index + 1]
    return before[index] if len(before) > index and not any(isinstance(each, ast.Starred) for each in before) else None
