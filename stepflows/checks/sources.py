"""Functions as they are written. Nothing is imported or run, and no attribute is asked of an object that could tell."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final, TypeAlias

__all__ = ["FUNCTIONS", "UNKNOWN", "Node", "Source", "bindings", "forget", "parameters"]

Node: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
#: What a name stands for when that shows only at run time.
UNKNOWN: Final = object()
#: How many names are followed from one to the next.
_HOPS: Final = 4


class Source:
    """The text of a function, and what the names in it stand for."""

    def __init__(self, function: FunctionType, node: Node, known: Mapping[str, Any] | None = None) -> None:
        self.function = function
        self.node = node
        #: What parameters are given, as far as that is certain.
        self.known: Mapping[str, Any] = known or {}
        #: How often each local name is bound.
        self.bound = Counter(bindings(node))
        #: Local names that are bound once, to the value of an expression.
        self.assigned = {name: value for name, value in _assignments(node) if self.bound[name] == 1}
        self._imported = {name: path for name, path in _imports(node) if self.bound[name] == 1}

    @classmethod
    def of(cls, function: Any) -> Source | None:
        """The source of a function below its decorators; ``None`` where it cannot be had."""
        function = inspect.unwrap(function)
        if not isinstance(function, FunctionType):
            return None
        try:
            lines, _ = inspect.findsource(function)
            tree = _tree("".join(lines))
        except (OSError, SyntaxError, ValueError, RecursionError):
            # A module without its source, or whose file has changed since.
            return None
        found = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS) and _is_of(node, function.__code__)]
        return cls(function, found[0]) if len(found) == 1 else None

    def knowing(self, known: Mapping[str, Any]) -> Source:
        """The same, given these parameters."""
        return Source(self.function, self.node, known)

    def place(self, node: ast.expr) -> str:
        """File and line, the file as seen from here where it lies below."""
        path = Path(self.function.__code__.co_filename)
        here = Path.cwd()
        return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{node.lineno}"

    def resolve(self, expression: ast.expr, hops: int = _HOPS) -> Any:
        """The object that a name, or an attribute of one, stands for; or ``UNKNOWN``."""
        if isinstance(expression, ast.Attribute) and hops:
            return _attribute(self.resolve(expression.value, hops), expression.attr)
        if not isinstance(expression, ast.Name) or not hops:
            return UNKNOWN
        name = expression.id
        if name in self.bound:
            return self._local(name, hops)
        return next((scope[name] for scope in self._scopes() if name in scope), UNKNOWN)

    def _local(self, name: str, hops: int) -> Any:
        if name in self._imported:
            module, attribute = self._imported[name]
            found = sys.modules.get(module, UNKNOWN)
            return _attribute(found, attribute) if attribute else found
        if name in self.assigned:
            return self.resolve(self.assigned[name], hops - 1)
        return self.known.get(name, UNKNOWN) if self.bound[name] == 1 else UNKNOWN

    def _scopes(self) -> Iterator[Mapping[str, Any]]:
        cells = zip(self.function.__code__.co_freevars, self.function.__closure__ or (), strict=True)
        yield {name: _content(cell) for name, cell in cells}
        yield self.function.__globals__
        yield vars(builtins)

    def name(self, expression: ast.expr) -> str:
        """Module and name of the function that an expression stands for, ``time.time``; or empty."""
        if isinstance(expression, ast.Attribute):
            owner = self.resolve(expression.value)
            if isinstance(owner, type):
                return f"{owner.__module__}.{owner.__qualname__}.{expression.attr}"
        return _name(self.resolve(expression))


def bindings(node: ast.AST) -> Iterator[str]:
    """Every name that is bound in a node or in a function within, as often as it is."""
    for each in ast.walk(node):
        if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load):
            yield each.id
        elif isinstance(each, ast.arg):
            yield each.arg
        elif isinstance(each, ast.alias):
            yield (each.asname or each.name).partition(".")[0]
        elif isinstance(each, ast.Global | ast.Nonlocal):
            yield from each.names
        elif isinstance(each, ast.MatchMapping):
            yield from filter(None, [each.rest])
        elif isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and each is not node:
            yield each.name
        elif isinstance(each, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
            yield from filter(None, [each.name])


def parameters(node: Node) -> list[ast.arg]:
    """Those that have a name to be given, the ones by position first."""
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]


def forget() -> None:
    """Give the memory back that reading took."""
    _tree.cache_clear()


@lru_cache(maxsize=32)
def _tree(text: str) -> ast.Module:
    return ast.parse(text)


def _is_of(node: Node, code: CodeType) -> bool:
    """Whether this is where a function comes from, and not what has taken its place in the file since."""
    first = min(each.lineno for each in (node, *getattr(node, "decorator_list", ())))
    names = tuple(each.arg for each in parameters(node))
    return (
        first == code.co_firstlineno
        and getattr(node, "name", "<lambda>") == code.co_name
        and names == code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    )


def _assignments(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    for each in ast.walk(node):
        match each:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                yield name, value


def _imports(node: ast.AST) -> Iterator[tuple[str, tuple[str, str]]]:
    for each in ast.walk(node):
        if isinstance(each, ast.Import):
            for alias in each.names:
                root = alias.name.partition(".")[0]
                yield (alias.asname, (alias.name, "")) if alias.asname else (root, (root, ""))
        elif isinstance(each, ast.ImportFrom) and each.module and not each.level:
            yield from ((alias.asname or alias.name, (each.module, alias.name)) for alias in each.names)


def _attribute(owner: Any, name: str) -> Any:
    """Without asking the object itself, which may compute its attributes."""
    if owner is UNKNOWN:
        return UNKNOWN
    found = inspect.getattr_static(owner, name, UNKNOWN)
    return found.__func__ if isinstance(found, staticmethod | classmethod) else found


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return UNKNOWN


def _name(found: Any) -> str:
    if isinstance(found, MethodType):
        found = found.__func__
    if isinstance(found, BuiltinFunctionType) and not isinstance(found.__self__, ModuleType | None):
        return f"{type(found.__self__).__module__}.{found.__qualname__}"
    if isinstance(found, FunctionType | BuiltinFunctionType | type):
        return f"{found.__module__}.{found.__qualname__}"
    return ""
