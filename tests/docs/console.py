"""Commands of a page, typed into this process, where the test's database, caches and workflows are."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from django.core.management import call_command

from tests.docs.documents import Block
from tests.docs.walk import normal, typed

__all__ = ["manage"]


def manage(block: Block) -> Iterator[tuple[str, str]]:
    """Each ``python manage.py`` of the block and what it printed: what the page says, where it says anything."""
    block.ran = True
    for command, output in typed(block):
        python, script, *arguments = shlex.split(command, comments=True)
        assert (python, script) == ("python", "manage.py"), f"{block}: {command}"
        printed = StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            call_command(*arguments)
        if output:
            assert normal(printed.getvalue()) == normal(output), f"{block}: $ {command}"
        yield command, printed.getvalue()
