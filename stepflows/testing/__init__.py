"""What a project needs for tests of its workflows, and of caches of its own."""

from stepflows.testing.conformance import CacheConformance, DamageConformance
from stepflows.testing.crashes import Crash, CrashingCache
from stepflows.testing.runs import QueuedRuns, runs_in_place
from stepflows.testing.steps import assert_steps
from stepflows.testing.voice import Voice, stamp

__all__ = [
    "CacheConformance",
    "Crash",
    "CrashingCache",
    "DamageConformance",
    "QueuedRuns",
    "Voice",
    "assert_steps",
    "runs_in_place",
    "stamp",
]
