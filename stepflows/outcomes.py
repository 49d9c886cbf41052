"""What runs come to, as their rows keep it."""

from __future__ import annotations

from reprlib import Repr
from typing import Any, Final

from stepflows.caches import dumps
from stepflows.engine.context import logger
from stepflows.errors import NotCacheable
from stepflows.results import Err, Result

__all__ = ["kept"]

#: Characters of a part of a result that the log shows.
_TOLD: Final = 200


def kept(result: Result[Any], run_id: Any, workflow: str) -> tuple[Result[Any], bytes]:
    """The result of a run and what its row keeps; where it cannot be kept, a failure that says so is, in its place."""
    try:
        return result, dumps(result)
    except NotCacheable as error:
        refused = error.of(f"workflow {workflow!r}")
        told = _told(result.error if isinstance(result, Err) else result.value)
        logger.error("Run %s: its result could not be kept: %s It was: %s", run_id, refused, told)
        failure = Err(refused, result.error if isinstance(result, Err) else None)
        return failure, dumps(failure)


def _told(value: Any) -> str:
    """It in short: what cannot be kept may be as large, or as deep, as it likes."""
    short = Repr()
    short.maxstring = short.maxother = short.maxlong = _TOLD
    return short.repr(value)
