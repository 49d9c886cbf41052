"""``manage.py run_workflow``: run a registered workflow here, step by step, or have a worker run it."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from stepflows.cachedsteps import legible
from stepflows.definitions import RegisteredWorkflow
from stepflows.engine.events import Event
from stepflows.errors import StepflowsError
from stepflows.models.tables import told
from stepflows.registry import registry
from stepflows.results import Err, FailedStep, Ok

__all__ = ["Command"]

#: As shells report what Ctrl-C has ended.
_INTERRUPTED = 130

#: What a text of several lines is made of.
_LINES = "\n\t"

_WORDS = {
    "step_start": "started",
    "step_success": "done in {seconds:.3f} s",
    "step_error": "failed: {error}",
    "step_retry": "attempt {attempt} failed, trying again: {error}",
    "step_cache_hit": "from the cache",
    "step_wait": "waiting for another run of this step",
    "step_cache_write_failed": "could not be stored: {error}",
    "step_cache_corrupt": "the stored entry counts as missing: {error}",
}


class Command(BaseCommand):
    """Exit code 0 for ``Ok``, 1 for ``Err`` and for whatever keeps the workflow from being run."""

    help = "Run a workflow here, with live step output, or queue it for a Celery worker (--async)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("workflow", metavar="NAME", help="The name under which @workflow registered it.")
        parser.add_argument(
            "--arg",
            action="append",
            default=[],
            dest="args_given",
            metavar="NAME=JSON",
            help="An argument of the workflow, such as --arg order_id=7 or --arg 'city=\"Paris\"'. May be repeated.",
        )
        parser.add_argument("--async", action="store_true", dest="queue", help="Queue it, and print the id of the run.")

    def handle(self, *args: Any, **options: Any) -> None:
        kwargs = _arguments(options["args_given"])
        try:
            workflow = registry.get(options["workflow"])
            if options["queue"]:
                self.stdout.write(_queued(workflow, kwargs))
                return
            result = workflow.execute((), kwargs, run_id=str(uuid4()), listeners=[self._show])
        except StepflowsError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted. Steps that are done stay done.", returncode=_INTERRUPTED) from None
        if isinstance(result, Ok):
            self.stdout.write(f"Ok: {legible(repr(result.value), _LINES)}")
        else:
            raise _failure(result)

    def _show(self, event: Event) -> None:
        text = _line(event)
        if event.label is not None and text is not None:
            self.stdout.write(f"{_step(event.label, event.key)}: {text}")
            # Through a pipe too, what happens shows when it happens.
            self.stdout.flush()


def _queued(workflow: RegisteredWorkflow[...], kwargs: dict[str, Any]) -> str:
    """The id of the run."""
    try:
        return str(workflow.apply_async((), kwargs).pk)
    except DatabaseError as error:
        raise CommandError(f"The run cannot be written: {told(error)}") from error


def _arguments(given: Sequence[str]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (equals and name):
            raise CommandError(f"--arg {text}: give a name and a value, such as --arg order_id=7.")
        if name in arguments:
            raise CommandError(f"--arg {text}: the argument {name!r} is given twice.")
        try:
            arguments[name] = json.loads(value)
        except ValueError as error:
            raise CommandError(
                f"--arg {text}: the value is not JSON ({error}). Text goes into double quotes, and the whole into "
                f"single ones for the shell: --arg '{name}={json.dumps(value)}'"
            ) from None
    return arguments


def _step(label: str, key: str | None) -> str:
    return label if key is None else f"{label} ({key})"


def _line(event: Event) -> str | None:
    """What happened, in a few words; nothing for a miss, which is followed by a start."""
    replayed = event.type == "step_cache_hit" and event.error is not None
    words = "failed earlier, from the cache: {error}" if replayed else _WORDS.get(event.type)
    seconds = event.duration or 0.0
    return words and words.format(seconds=seconds, attempt=event.attempt, error=legible(_shown(event.error)))


def _failure(result: Err) -> CommandError:
    error = CommandError(f"Err: {legible(_shown(result.error), _LINES)}{_where(result.step)}")
    # Shown with --traceback.
    error.__cause__ = result.error if isinstance(result.error, BaseException) else None
    return error


def _where(step: FailedStep | None) -> str:
    if step is None:
        return ""
    replayed = ", replayed from the cache; clear its key to run it again" if step.replayed else ""
    return f"\nin step {_step(step.label, step.key)}{replayed}"


def _shown(error: Any) -> str:
    if isinstance(error, str):
        return error
    if isinstance(error, BaseException):
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    return repr(error)
