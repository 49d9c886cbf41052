"""What keys are made from: of which it is certain that they will never be the same again, or that they may not be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from django.core.checks import CheckMessage, Info, Warning

from stepflows.checks.calls import StepCall
from stepflows.checks.sources import Source, parameters

__all__ = ["check_keys"]


class _Kind(Enum):
    CLOCK = "which tells another time at each run"
    CHANCE = "which is another each time"
    ADDRESS = "which is another in each process"
    REPR = "which may hold an address, or another order of things in each process"


class _Ingredient(NamedTuple):
    """A part of a key that does not stay the same."""

    kind: _Kind
    node: ast.expr


_KINDS: Final = [
    (
        _Kind.CLOCK,
        re.compile(
            r"time\.(time|monotonic|perf_counter|process_time)(_ns)?|datetime\.datetime\.(now|utcnow|today)"
            r"|django\.utils\.timezone\.now"
        ),
    ),
    (
        _Kind.CHANCE,
        re.compile(
            r"uuid\.uuid[14678]|random\.(Random|SystemRandom)\.(?!seed)\w+|secrets\.(token_\w+|randbelow|choice)"
            r"|(os|posix|nt)\.urandom|django\.utils\.crypto\.get_random_string|kombu\.utils\.uuid\.uuid"
        ),
    ),
    (_Kind.ADDRESS, re.compile(r"builtins\.(id|hash)")),
    (_Kind.REPR, re.compile(r"builtins\.(repr|ascii)")),
]
#: What keeps all that an instant tells. A key for an hour or a day, of an instant that is rounded, is as it should be.
_KEEPING: Final = re.compile(r"builtins\.(str|int|float|hex)|_?hashlib\.\w+")
_KEEPING_METHODS: Final = {"isoformat", "timestamp", "encode", "hexdigest", "ctime"}
#: Types, and functions, of whose text it is taken for granted that it is always the same.
_PLAIN: Final = {
    *("str", "int", "float", "bool", "bytes", "tuple", "list", "dict", "date", "datetime", "Decimal", "UUID"),
    *("len", "max", "min", "round", "sorted", "sum"),
}
#: How deep an expression is looked into, names that stand for others included.
_HOPS: Final = 12


def check_keys(where: str, source: Source, call: StepCall) -> Iterator[CheckMessage]:
    """Keys that no later run finds again."""
    if call.key is None:
        return
    found = _ingredient(source, call.key.body if isinstance(call.key, ast.Lambda) else call.key)
    if found is None:
        return
    text = f"{where}: the key of step {call.shown_label} is made from {ast.unparse(found.node)}, {found.kind.value}"
    if found.kind is _Kind.REPR:
        yield Info(
            f"{text}: then nothing that is stored is found again.",
            hint="Use what identifies it, such as its primary key, or a hash of its contents in a fixed order.",
            id="stepflows.I002",
        )
    else:
        yield Warning(
            f"{text}: nothing that is stored is found again, so the step runs in every run.",
            hint="Make the key from the arguments of the workflow, such as f'order:{order_id}:charge'; or leave key "
            "away, if nothing is to be stored.",
            id="stepflows.W009",
        )


def _ingredient(source: Source, key: ast.expr, hops: int = _HOPS) -> _Ingredient | None:
    """The first part of the expression that is certain to go into the key and does not stay the same."""
    found = _first(source, _parts(source, key), hops)
    if found is not None or not hops:
        return found
    match key:
        case ast.FormattedValue():
            return _formatted(source, key, hops)
        case ast.Call():
            return _called(source, key, hops)
        case ast.Attribute(value=value) | ast.Subscript(value=value) | ast.BinOp(left=value):
            return _rounded(_first(source, [value], hops))
    return None


def _first(source: Source, parts: list[ast.expr], hops: int) -> _Ingredient | None:
    return next(filter(None, (_ingredient(source, part, hops - 1) for part in parts if hops)), None)


def _parts(source: Source, key: ast.expr) -> list[ast.expr]:
    """What goes into the text of an expression as it is."""
    match key:
        case ast.Name(id=name) if name in source.assigned:
            return [source.assigned[name]]
        case ast.JoinedStr(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts):
            return parts
        case ast.BinOp(left=ast.Constant(value=str()), op=ast.Mod(), right=right):
            return [right]
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            return [left, right]
    return []


def _formatted(source: Source, part: ast.FormattedValue, hops: int) -> _Ingredient | None:
    found = _first(source, [part.value], hops)
    if part.format_spec is not None:
        return _rounded(found)
    if found is None and part.conversion in {ord("r"), ord("a")} and _may_be_any_object(source, part.value):
        return _Ingredient(_Kind.REPR, ast.JoinedStr([part]))
    return found


def _called(source: Source, call: ast.Call, hops: int) -> _Ingredient | None:
    name = source.name(call.func)
    kind = next((kind for kind, names in _KINDS if names.fullmatch(name)), None)
    if kind is _Kind.REPR:
        found = _first(source, call.args, hops)
        objects = any(_may_be_any_object(source, argument) for argument in call.args)
        return _Ingredient(kind, call) if objects and found is None else found
    if kind is not None:
        # Numbers have the same hash everywhere.
        return None if name == "builtins.hash" and _is_number(source, call.args) else _Ingredient(kind, call)
    if _KEEPING.fullmatch(name):
        return _first(source, call.args[:1], hops)
    return _method(source, call.func, call, hops) if isinstance(call.func, ast.Attribute) else None


def _method(source: Source, method: ast.Attribute, call: ast.Call, hops: int) -> _Ingredient | None:
    if isinstance(method.value, ast.Constant) and method.attr in {"format", "join"}:
        found = _first(source, [*call.args, *(keyword.value for keyword in call.keywords)], hops)
        # A text like "{:%Y}" has its own idea of how much is used.
        return _rounded(found) if re.search(r"\{[^}]*[:.]", str(method.value.value)) else found
    found = _first(source, [method.value], hops)
    return found if method.attr in _KEEPING_METHODS else _rounded(found)


def _rounded(found: _Ingredient | None) -> _Ingredient | None:
    """What is left when only a part is used: of an instant, perhaps its day."""
    return found if found is not None and found.kind is not _Kind.CLOCK else None


def _may_be_any_object(source: Source, expression: ast.expr, hops: int = _HOPS) -> bool:
    """Whether nothing says that the text of it is always the same: an argument, or what a function returned."""
    match expression:
        case ast.Name(id=name) if hops and name in source.assigned:
            return _may_be_any_object(source, source.assigned[name], hops - 1)
        case ast.Name(id=name):
            return any(each.arg == name and not _names(each.annotation) <= _PLAIN for each in parameters(source.node))
        case ast.Await(value=value):
            return _may_be_any_object(source, value, hops)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(value=ast.Name(id=name))):
            # A step gives what was stored, which holds no addresses.
            return name not in {*_PLAIN, *(each.arg for each in parameters(source.node)[:1])}
    return isinstance(expression, ast.Call)


def _is_number(source: Source, arguments: list[ast.expr]) -> bool:
    names = {argument.id for argument in arguments if isinstance(argument, ast.Name)}
    return any(each.arg in names and _names(each.annotation) == {"int"} for each in parameters(source.node))


def _names(annotation: ast.expr | None) -> set[str]:
    """The names in an annotation; without one it may be anything."""
    if annotation is None:
        return {"Any"}
    return {each.id for each in ast.walk(annotation) if isinstance(each, ast.Name)}
