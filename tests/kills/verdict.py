"""What came of it, figure by figure, and whether that is as it has to be."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean, median
from typing import NamedTuple

from rich.table import Table

from stepflows.models import Run
from tests.flows.kills import STEPS
from tests.kills.findings import Findings, Waiting
from tests.kills.plan import Plan

__all__ = ["Figure", "figures", "printed"]


class Figure(NamedTuple):
    name: str
    value: str
    #: What it has to be, in words; and whether it is.
    bound: str = ""
    holds: bool = True


def figures(plan: Plan, findings: Findings, within: float) -> Iterator[Figure]:
    """An orphan has to be at work again within that many seconds, unless its message was lost as well."""
    yield from _runs(plan)
    yield from _steps(plan, findings)
    orphans = [each for each in findings.waitings if each.kind == "orphan"]
    yield _waited("orphans at work again", [each for each in orphans if not each.struck], within)
    yield _waited("  those struck again meanwhile", [each for each in orphans if each.struck])
    yield _waited("queued runs that lost their message", [each for each in findings.waitings if each.kind == "lost"])


def printed(figures: list[Figure], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("", "measured", "has to be", ""):
        table.add_column(column, no_wrap=True)
    for figure in figures:
        verdict = "" if not figure.bound else "[green]✓[/]" if figure.holds else "[red]✗[/]"
        table.add_row(figure.name, figure.value, figure.bound, verdict)
    return table


def _runs(plan: Plan) -> Iterator[Figure]:
    runs = list(Run.objects.all())
    good = sum(run.state == Run.State.SUCCEEDED and run.result.unwrap() == [*range(STEPS)] for run in runs)
    yield Figure("runs succeeded", f"{good} of {len(runs)}", str(plan.runs), good == len(runs) == plan.runs)
    attempts = [run.attempts for run in runs]
    yield Figure("attempts of a run", f"{mean(attempts):.2f} in the mean, {max(attempts)} at most")


def _steps(plan: Plan, findings: Findings) -> Iterator[Figure]:
    kills, executions = len(findings.interrupted), findings.starts.total()
    yield Figure("workers killed", str(kills), str(plan.kills), kills == plan.kills)
    yield Figure("broker emptied", str(findings.flushes), str(plan.flushes), findings.flushes == plan.flushes)
    again, together = len(findings.again), len(findings.together)
    yield Figure("finished steps executed again", str(again), "0", not again)
    yield Figure("steps executed twice at a time", str(together), "0", not together)
    numbers = [len(steps) for steps in findings.interrupted.values()]
    total, most, bound = sum(numbers), max(numbers, default=0), kills * plan.concurrency
    yield Figure("steps interrupted", str(total), f"≤ {bound}", total <= bound)
    yield Figure("  by one kill", f"{most} at most", f"≤ {plan.concurrency}", most <= plan.concurrency)
    yield Figure("  between their end and the cache", str(findings.unstored))
    expected = plan.steps + total
    yield Figure("executions of steps", str(executions), f"{plan.steps} + {total} interrupted", executions == expected)


def _waited(name: str, waitings: list[Waiting], within: float | None = None) -> Figure:
    seconds = [each.seconds for each in waitings if each.seconds is not None]
    value = f"{len(seconds)}"
    if seconds:
        value += f": after {median(seconds):.1f} s in the median, {max(seconds):.1f} s at most"
    if last := [each.seconds_since_last for each in waitings if each.struck and each.seconds_since_last]:
        value += f", {max(last):.1f} s after the last strike"
    if len(seconds) < len(waitings):
        value += f"; {len(waitings) - len(seconds)} never"
    holds = len(seconds) == len(waitings) and (within is None or max(seconds, default=0) <= within)
    return Figure(name, value, f"≤ {within:g} s" if within else "all", holds)
