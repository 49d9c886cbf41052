"""Steps that are given what a function returned in place of the function."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final

from django.core.checks import CheckMessage, Warning

from stepflows.checks.calls import StepCall
from stepflows.checks.sources import FUNCTIONS, UNKNOWN, Source

__all__ = ["check_deferral"]

#: Words in the names of functions that may well return something to call, and in those of methods that do.
_FACTORIES: Final = {
    *("bind", "build", "callback", "curry", "decorate", "defer", "deferred", "factory", "func", "function"),
    *("handler", "lazy", "make", "partial", "wrap"),
}
_GETTERS: Final = _FACTORIES | {"choice", "get", "next", "pop", "setdefault", "s", "si", "signature"}
_PLAIN_BUILTINS: Final = {"len", "sum", "sorted", "print", "round", "abs", "repr", "isinstance", "any", "all", "open"}
_PLAIN_TYPES: Final = (str, int, float, bool, bytes, dict, list, tuple, set, frozenset)
_VALUES: Final = (
    ast.Constant,
    ast.JoinedStr,
    ast.Dict,
    ast.List,
    ast.Set,
    ast.Tuple,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
    ast.Compare,
)
#: Functions that are followed from one to the next.
_HOPS: Final = 3


def check_deferral(where: str, source: Source, call: StepCall) -> Iterator[CheckMessage]:
    """A call where a function belongs, of something that surely returns neither a function nor an awaitable."""
    awaits = isinstance(source.node, ast.AsyncFunctionDef)
    given = call.function.values if call.form == "all" and isinstance(call.function, ast.Dict) else [call.function]
    for each in given:
        if isinstance(each, ast.Call) and _Judge(awaits).is_value(source, each, certain=True):
            text = ast.unparse(each)
            yield Warning(
                f"{where}: step {call.shown_label} is given {text}, which is called before the step begins, in every "
                "run: nothing is stored.",
                hint=f"Pass a function: lambda: {text}.",
                id="stepflows.W010",
            )


class _Judge:
    """Says whether something is surely a value, in a body that ``awaits`` or in one that does not."""

    def __init__(self, awaits: bool) -> None:  # noqa: FBT001 - asked in one place
        self._awaits = awaits

    def is_value(self, source: Source, expression: ast.expr, hops: int = _HOPS, *, certain: bool = False) -> bool:
        """Whether the expression is. With ``certain``, what is called has to be known."""
        match expression:
            case ast.Call(func=function):
                return self._returns_value(source, function, hops, certain=certain)
            case ast.Name(id=name) if hops and name in source.assigned:
                return self.is_value(source, source.assigned[name], hops - 1)
        return isinstance(expression, _VALUES)

    def _returns_value(self, source: Source, callee: ast.expr, hops: int, *, certain: bool) -> bool:
        found = source.resolve(callee)
        if isinstance(found, FunctionType):
            return hops > 0 and not _words(found.__name__) & _FACTORIES and self._function(found, hops - 1)
        if isinstance(found, BuiltinFunctionType):
            return found.__name__ in _PLAIN_BUILTINS
        if isinstance(found, type):
            return found in _PLAIN_TYPES or _is_plain_class(found)
        if certain or self._awaits or found is not UNKNOWN:
            return False
        # What a method of something returns inside of a function is next to never a function.
        return isinstance(callee, ast.Attribute) and not _words(callee.attr) & _GETTERS

    def _function(self, function: FunctionType, hops: int) -> bool:
        if inspect.iscoroutinefunction(function):
            return not self._awaits
        source = None if "__wrapped__" in vars(function) else Source.of(function)
        if source is None:
            return False
        if isinstance(source.node, ast.Lambda):
            return self.is_value(source, source.node.body, hops)
        if source.node.returns is not None:
            return _is_plain_annotation(source, source.node.returns)
        if inspect.isgeneratorfunction(function):
            return not function.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE
        returned = [each.value or ast.Constant(None) for each in _returns(source.node)]
        return all(self.is_value(source, value, hops) for value in returned)


def _words(name: str) -> set[str]:
    return set(name.lower().split("_"))


def _returns(function: ast.AST) -> Iterator[ast.Return]:
    """Those of the function itself, and not of others in it."""
    for node in ast.iter_child_nodes(function):
        if isinstance(node, ast.Return):
            yield node
        elif not isinstance(node, FUNCTIONS):
            yield from _returns(node)


def _is_plain_annotation(source: Source, annotation: ast.expr) -> bool:
    if isinstance(annotation, ast.Constant):
        return annotation.value is None
    if isinstance(annotation, ast.Subscript):
        return source.resolve(annotation.value) in _PLAIN_TYPES
    found = source.resolve(annotation)
    return isinstance(found, type) and (found in _PLAIN_TYPES or _is_plain_class(found))


def _is_plain_class(cls: Any) -> bool:
    """Whether its instances can neither be called nor awaited, and it gives an instance when it is called itself."""
    defined = {name for base in cls.__mro__ if base is not object for name in vars(base)}
    abstract = cls is object or cls.__module__ in {"typing", "typing_extensions", "collections.abc"}
    return type(cls) is type and not abstract and not defined & {"__call__", "__await__", "__new__", "_is_protocol"}
