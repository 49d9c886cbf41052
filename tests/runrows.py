"""Rows of runs, as workers leave them."""

from __future__ import annotations

from typing import Any

from stepflows import Ok, dumps
from stepflows.models import Run


def a_run(workflow: str = "checkout", *, args: Any = (), kwargs: Any = None, **fields: Any) -> Run:
    """A run of a workflow that nobody performs."""
    arguments = dumps(Ok((args, {"order_id": 7} if kwargs is None else kwargs)))
    return Run.objects.create(workflow=workflow, **{"arguments": arguments, **fields})


def a_step(outcome: str = "executed", **more: Any) -> dict[str, Any]:
    """One of the steps of a run."""
    step = {"label": "charge", "key": "order:7", "outcome": outcome, "offset": 1.5, "duration": 0.25, "attempt": 1}
    return {**step, **more}
