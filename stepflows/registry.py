"""The workflows that Celery, the admin and the command line can start by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from stepflows.engine.events import Listener
from stepflows.errors import DuplicateWorkflow, InvalidUse, UnknownWorkflow, hint

if TYPE_CHECKING:
    from stepflows.definitions import RegisteredWorkflow
    from stepflows.models import Run

__all__ = ["Dispatcher", "Registry", "registry"]


class Dispatcher(Protocol):
    """Writes a row for a run of a workflow and has a worker execute it."""

    def __call__(
        self, workflow: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any], /
    ) -> Run: ...


class Registry:
    """Workflows by name. Filled at start-up from the ``workflows.py`` of every installed app."""

    def __init__(self) -> None:
        self._workflows: dict[str, RegisteredWorkflow[...]] = {}
        #: Set by the app once models can be used, so that a workflow can be defined before.
        self.dispatcher: Dispatcher | None = None
        #: Asked at each run for the listener that traces it, which is told in the context of the run itself.
        self.tracer: Callable[[], Listener | None] = lambda: None

    def add(self, workflow: RegisteredWorkflow[...]) -> None:
        """Raises :exc:`~stepflows.errors.DuplicateWorkflow`. The same lines, loaded again, replace their own."""
        other = self._workflows.get(workflow.name)
        if other is not None and other.place != workflow.place:
            raise DuplicateWorkflow(
                f"Two workflows are named {workflow.name!r}: {other.place} and {workflow.place}. "
                "They would share their cached steps and their runs; rename one."
            )
        self._workflows[workflow.name] = workflow

    def remove(self, name: str) -> None:
        """Forget a workflow; for tests that define their own."""
        self._workflows.pop(name, None)

    def get(self, name: str) -> RegisteredWorkflow[...]:
        """Raises :exc:`~stepflows.errors.UnknownWorkflow`, naming what is close."""
        try:
            return self._workflows[name]
        except KeyError:
            raise UnknownWorkflow(
                f"No workflow is named {name!r}. {hint(name, self._workflows)} Workflows live in the workflows.py of "
                "an installed app and are registered by @workflow."
            ) from None

    def all(self) -> list[RegisteredWorkflow[...]]:
        """Every registered workflow, by name."""
        return [self._workflows[name] for name in sorted(self._workflows)]

    def dispatch(
        self, workflow: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Run:
        if self.dispatcher is None:
            raise InvalidUse(
                f"Workflow {workflow!r} cannot be sent to a worker: the app is not loaded. Add 'stepflows' to "
                "INSTALLED_APPS, and run django.setup() first."
            )
        return self.dispatcher(workflow, args, kwargs, options)


registry = Registry()
