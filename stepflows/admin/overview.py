"""What stands above the list of cached steps: each workflow's keys, and what its latest runs made of them.

Only so many runs and steps are looked at that it costs a few milliseconds, however many there are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import accumulate
from math import ceil, floor
from typing import Any, Final, TypeAlias

from django.utils import timezone
from django.utils.translation import gettext

from stepflows.admin import display
from stepflows.cachedsteps import printable
from stepflows.models import Run
from stepflows.steplog import EXECUTED, REPLAYED

__all__ = ["Figures", "Overview", "latest_runs", "overview"]

_SPAN: Final = timedelta(days=1)
_RUNS: Final = 500
_STEPS: Final = 3000
#: More rows than that are told to be there, and not shown.
_WORKFLOWS: Final = 20
_LABELS: Final = 10
#: More rows than that are folded.
_ROWS_UNFOLDED: Final = 6
_ERRORS: Final = ("error", "replayed_error")

#: Workflow, state, how many steps were executed and how many were cached; and the steps of the latest runs, or none.
RunFigures: TypeAlias = tuple[str, str, int, int, Sequence[Mapping[str, Any]]]


@dataclass
class Figures:
    """What came of steps: of one label, or of all of a workflow."""

    name: str
    keys: int = 0
    runs: int = 0
    failed: int = 0
    executed: int = 0
    cached: int = 0
    errors: int = 0
    #: Seconds that each execution took, sorted.
    durations: list[float] = field(default_factory=list)
    labels: list[Figures] = field(default_factory=list)
    #: How many labels there are beside those.
    more: int = 0
    #: What the longest bar stands for, in seconds.
    scale: float = 0.0
    #: Where its cached steps are listed.
    url: str = ""

    @property
    def hits(self) -> int | None:
        """How many of 100 steps were not executed; ``None`` where there were no steps."""
        steps = self.executed + self.cached
        # All is not said unless it is all.
        return floor(100 * self.cached / steps) if steps else None

    @property
    def half(self) -> float | None:
        """The seconds that half of the executions took at the most."""
        return self._within(0.5)

    @property
    def most(self) -> float | None:
        """The seconds that 95 of 100 executions took at the most."""
        return self._within(0.95)

    @property
    def bars(self) -> tuple[int, int]:
        """How long to draw those two, of 100."""
        half, most = (round(100 * (each or 0) / self.scale) if self.scale else 0 for each in (self.half, self.most))
        return half, most

    @property
    def shown(self) -> dict[str, str]:
        """The same as people read it."""
        counts = ("keys", "runs", "failed", "executed", "cached", "errors")
        shown = {name: display.number(getattr(self, name)) for name in counts}
        percent = display.EMPTY if self.hits is None else gettext("%(count)s %%") % {"count": display.number(self.hits)}
        spans = {"half": display.span(self.half), "most": display.span(self.most)}
        return {**shown, **spans, "name": display.isolated(self.name), "hits": percent}

    def _within(self, part: float) -> float | None:
        return self.durations[ceil(part * len(self.durations)) - 1] if self.durations else None


@dataclass(frozen=True)
class Overview:
    """The figures of each workflow, those with the most runs and keys if there are too many."""

    workflows: list[Figures]
    total: Figures
    #: How many workflows there are beside those.
    more: int
    #: Whether runs are told of at all; and whether they are fewer than there were.
    has_runs: bool
    is_sample: bool

    @property
    def is_folded(self) -> bool:
        """Whether it would push the list too far down."""
        return sum(1 + len(each.labels) for each in self.workflows) > _ROWS_UNFOLDED


def overview(sizes: Mapping[str, int], runs: Sequence[RunFigures] | None) -> Overview:
    """What to tell of workflows that have so many keys, and of runs; ``None`` for those who may not see any."""
    figures = defaultdict[str, list[RunFigures]](list)
    for run in runs or ():
        figures[printable(run[0])].append(run)
    all_of_them = [_workflow(name, sizes.get(name, 0), figures[name]) for name in sorted({*sizes, *figures})]
    shown = sorted(all_of_them, key=lambda each: (-each.runs, -each.keys))[:_WORKFLOWS]
    return Overview(
        workflows=sorted(shown, key=lambda each: each.name),
        total=_total(all_of_them),
        more=len(all_of_them) - len(shown),
        has_runs=runs is not None,
        is_sample=runs is not None and len(runs) == _RUNS,
    )


def latest_runs(workflow: str | None = None) -> list[RunFigures]:
    """Of the last day's runs (of one workflow) the latest, with the steps of as many of them as is quick to read."""
    runs = Run.objects.filter(created_at__gte=timezone.now() - _SPAN).order_by("-created_at")
    if workflow is not None:
        runs = runs.for_workflow(workflow)
    found = list(runs.values_list("pk", "workflow", "state", "executed", "cached")[:_RUNS])
    lengths = accumulate(executed + cached for *_, executed, cached in found)
    few = [run[0] for run, length in zip(found, lengths, strict=True) if length <= _STEPS]
    steps = dict(Run.objects.filter(pk__in=few).values_list("pk", "steps"))
    return [(name, state, executed, cached, steps.get(pk, ())) for pk, name, state, executed, cached in found]


def _workflow(name: str, keys: int, runs: Sequence[RunFigures]) -> Figures:
    labels = _labels(step for run in runs for step in run[4])
    shown = sorted(labels, key=lambda label: -sum(label.durations))[:_LABELS]
    scale = max((label.most or 0.0 for label in shown), default=0.0)
    for label in shown:
        label.scale = scale
    return Figures(
        name=name,
        keys=keys,
        runs=len(runs),
        failed=sum(state == Run.State.FAILED for _, state, *_ in runs),
        executed=sum(executed for _, _, executed, *_ in runs),
        cached=sum(cached for *_, cached, _ in runs),
        errors=sum(label.errors for label in labels),
        labels=sorted(shown, key=lambda label: label.name),
        more=len(labels) - len(shown),
    )


def _labels(steps: Iterable[Mapping[str, Any]]) -> list[Figures]:
    outcomes = defaultdict[str, Counter[str]](Counter)
    durations = defaultdict[str, list[float]](list)
    for step in steps:
        label, outcome = str(step["label"]), step["outcome"]
        outcomes[label][outcome] += 1
        if outcome in EXECUTED:
            durations[label].append(step["duration"])
    return [
        Figures(
            name=printable(label),
            executed=sum(counts[outcome] for outcome in EXECUTED),
            cached=sum(counts[outcome] for outcome in REPLAYED),
            errors=sum(counts[outcome] for outcome in _ERRORS),
            durations=sorted(durations[label]),
        )
        for label, counts in outcomes.items()
    ]


def _total(figures: Sequence[Figures]) -> Figures:
    summed = {
        name: sum(getattr(each, name) for each in figures)
        for name in ("keys", "runs", "failed", "executed", "cached", "errors")
    }
    return Figures("", **summed)
