"""Without Django's settings, in a plain Python process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.docs.documents import page

ROOT = Path(__file__).parent.parent


def run(program: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def test_the_first_example_of_the_readme_runs_as_it_stands():
    """Pasted into a file, before there is any project."""
    (example,) = [block.text for block in page("README.md").blocks() if 'deps = {\n    "fetch_user"' in block.text]
    done = run(example)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Ok(value='receipt for order 7')") == 2


def test_groups_and_async_bodies_run_too():
    """Threads have no connections to look after."""
    program = """
import asyncio
from stepflows import create_workflow
flow = create_workflow("w", cache={})
print(flow.run(lambda step, deps: step.map("a", [1, 2, 3], lambda item: item + 1, key=str)).unwrap())
async def body(step, deps):
    return await step.all("b", {"x": lambda: 1, "y": lambda: 2})
print(asyncio.run(flow.arun(body)).unwrap())
"""
    done = run(program)
    assert done.stdout == "[2, 3, 4]\n{'x': 1, 'y': 2}\n", done.stderr
