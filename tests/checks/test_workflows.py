"""How bodies are read, and that nothing is said of good ones."""

from __future__ import annotations

import ast
import functools
import importlib
import logging
import subprocess
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from stepflows import workflow
from stepflows.checks import check_workflows
from stepflows.checks.sources import FUNCTIONS, Source
from stepflows.checks.workflows import check_body
from stepflows.registry import registry
from tests.checks.bodies import ids, said_of, written
from tests.docs.documents import PAGES, page

ROOT = Path(__file__).resolve().parent.parent.parent
FLOWS = [workflow for workflow in registry.all() if workflow.name.startswith("flows.")]
#: Modules that are long, old, asynchronous, or full of what is rare.
MODULES = [
    *("argparse", "asyncio.tasks", "contextlib", "dataclasses", "functools", "logging", "random", "statistics"),
    *("subprocess", "uuid"),
]

BAD = """
{decorator}
def body(step, deps, order_id):
    return step("charge", lambda: 1, key=str(uuid4()))
"""


@pytest.fixture
def bad(tmp_path):
    """A body of which something is said."""
    return written(tmp_path, BAD.format(decorator=""))


def outer(function):
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def test_decorated_bodies_are_read(bad):
    """Below what is around them."""
    assert ids(said_of(outer(outer(bad)))) == ["stepflows.W009"]


def test_decorators_in_the_text_are_a_part_of_it(tmp_path):
    """Several of them as well."""
    body = written(tmp_path, BAD.format(decorator="@functools.lru_cache\n@functools.lru_cache"))
    assert ids(said_of(body)) == ["stepflows.W009"]


def test_a_nested_function_is_a_part_of_the_body(tmp_path):
    """Unless it has a step of its own."""
    body = """
    def body(step, deps):
        def inner():
            step("a", lambda: 1, key=str(uuid4()))
        other = lambda step: step("b", lambda: 1, key=str(uuid4()))
        return other(step), inner()
    """
    (found,) = said_of(written(tmp_path, body))
    assert "step 'a'" in found.msg


def test_the_place_is_named_as_seen_from_here(tmp_path, monkeypatch, bad):
    """Below this folder without it, elsewhere in full."""
    monkeypatch.chdir(tmp_path)
    (found,) = said_of(bad)
    assert "(workflows.py:12)" in found.msg
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (found,) = check_workflows()
    assert f"({tmp_path}/workflows.py:12)" in found.msg


@pytest.mark.parametrize(
    "body",
    [
        len,
        functools.partial(lambda step, deps, more: None, more=1),
        type("Body", (), {"__module__": "x", "__call__": lambda self, step, deps: None})(),
        lambda *args: args[0]("a", lambda: 1, key=str(id(args))),
        lambda **kwargs: 1,
        eval("lambda step, deps: step('a', 1, key=str(id(step)))"),
    ],
)
def test_a_body_that_cannot_be_read_is_left_alone(body):
    """One without a source, without a parameter for the step, or of another kind."""

    class Body:
        __module__, __doc__, __qualname__ = "x", "", "Body"

        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    stand_in = Body()
    registered = workflow("shop", cache={})(stand_in)
    registered.body = body
    assert check_workflows() == []


def test_a_file_that_has_changed_is_left_alone(tmp_path, bad):
    """What stands in it is not what runs; it may not even be Python."""
    for text in ("\n" * 20, "def (:\n" * 20, "x\0\n" * 20, BAD.format(decorator="").replace("order_id", "n")):
        (tmp_path / "workflows.py").write_text(text)
        assert said_of(bad) == []
    (tmp_path / "workflows.py").unlink()
    assert said_of(bad) == []


def test_two_lambdas_in_one_line_are_left_alone():
    """Which of them it is cannot be told."""
    first, _ = lambda step, deps: step("a", 1, key=str(id(1))), lambda step, deps: 2  # fmt: skip
    assert said_of(first) == []


def test_a_name_that_is_not_bound_yet_is_left_alone():
    """As a function that is defined after the body."""

    def body(step, deps):
        return step("a", later(1), key="a")

    assert said_of(body) == []

    def later(user):
        return {"user": user}

    assert ids(check_workflows()) == ["stepflows.W010"]


def test_what_nobody_has_thought_of_is_no_failure(monkeypatch, caplog, bad):
    """It is in the log for whoever wants to know."""

    def fail(*_: Any) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr("stepflows.checks.workflows.check_keys", fail)
    with caplog.at_level(logging.DEBUG, "stepflows"):
        assert said_of(bad) == []
    assert "'shop' could not be checked" in caplog.text


def test_nothing_is_said_of_the_workflows_of_these_tests():
    """But of the one that is made to conflict."""
    for each in FLOWS:
        registry.add(each)
    (found,) = check_workflows()
    assert found.id == "stepflows.W011"
    assert "'flows.conflict'" in found.msg


def test_nothing_is_said_of_the_example_site():
    """Not even a hint."""
    command = [sys.executable, "manage.py", "check", "--tag", "stepflows", "--fail-level", "DEBUG"]
    command += ["--settings", "project.settings"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_is_said_of_the_examples_in_the_documentation():
    """Each function in them whose first parameter is the step."""
    read = 0
    for block in [block for path in PAGES for block in page(path).blocks() if block.language == "python"]:
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, FUNCTIONS) and node.args.args and node.args.args[0].arg == "step":
                read += 1
                assert list(check_body(str(block), Source(said_of, node))) == []
    assert read > 10


@pytest.mark.parametrize("name", MODULES)
def test_any_function_can_be_read(name):
    """Those of the standard library, as they are found and as bodies of nothing but steps."""
    module = importlib.import_module(name)
    for function in filter(lambda each: isinstance(each, FunctionType), vars(module).values()):
        source = Source.of(function)
        assert source is None or list(check_body("library", source)) == []
    tree = _Stepping().visit(ast.parse(Path(module.__file__ or "").read_text()))
    for node in ast.walk(ast.fix_missing_locations(tree)):
        if isinstance(node, FUNCTIONS) and node.args.args:
            node.args.args[0].arg = "step"
            list(check_body("library", Source(said_of, node)))


class _Stepping(ast.NodeTransformer):
    """Makes a step of every call, with a key of one of its arguments."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        if not arguments:
            return node
        form = ("run", "all", "map")[len(arguments) % 3]
        keyword = ast.keyword("key", arguments[-1])
        function = ast.Attribute(ast.Name("step", ast.Load()), form, ast.Load())
        return ast.copy_location(ast.Call(function, [ast.Constant("label"), node, *node.args], [keyword]), node)
