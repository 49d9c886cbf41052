"""Cached, resumable workflow steps for Django."""

from stepflows.caches import StepCache, dumps, loads
from stepflows.definitions import Workflow, create_workflow, workflow
from stepflows.engine.calls import current_step
from stepflows.engine.events import Event
from stepflows.engine.policy import Retry
from stepflows.engine.steps import AsyncStep, Step
from stepflows.errors import (
    CachedStepError,
    CacheUnavailable,
    CannotList,
    ClassNotLoaded,
    DamagedEntry,
    DuplicateWorkflow,
    InvalidOption,
    InvalidStepKey,
    InvalidUse,
    NotCacheable,
    RunLost,
    StepDeadlock,
    StepFailed,
    StepflowsError,
    StepKeyConflict,
    StepNotDeferred,
    UnknownWorkflow,
)
from stepflows.results import Err, FailedStep, Ok, Result

__all__ = [
    "AsyncStep",
    "CacheUnavailable",
    "CachedStepError",
    "CannotList",
    "ClassNotLoaded",
    "DamagedEntry",
    "DuplicateWorkflow",
    "Err",
    "Event",
    "FailedStep",
    "InvalidOption",
    "InvalidStepKey",
    "InvalidUse",
    "NotCacheable",
    "Ok",
    "Result",
    "Retry",
    "RunLost",
    "Step",
    "StepCache",
    "StepDeadlock",
    "StepFailed",
    "StepKeyConflict",
    "StepNotDeferred",
    "StepflowsError",
    "UnknownWorkflow",
    "Workflow",
    "create_workflow",
    "current_step",
    "dumps",
    "loads",
    "workflow",
]

__version__ = "0.1.0"
