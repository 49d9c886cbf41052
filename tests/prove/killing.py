"""The kill test (``tests/kills``): workers are killed in the middle of their work, and the broker is emptied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.test import override_settings

from tests.kills.experiment import perform
from tests.kills.findings import Findings
from tests.kills.plan import Plan
from tests.kills.verdict import Figure, figures
from tests.prove.trial import Row, Terms

__all__ = ["FULL", "kills"]

#: Seconds that the whole plan takes, roughly.
FULL: Final = 480.0
HEARTBEAT: Final = 10.0
LEASE: Final = 30.0


def kills(terms: Terms) -> Iterator[Row]:
    """As many runs and kills as there is time for; ``python -m tests.kills`` has all its figures."""
    plan = planned(terms)
    settings = {"HEARTBEAT": HEARTBEAT, "LEASE": LEASE, "MAX_ATTEMPTS": plan.kills + 5, "CACHE": "django_redis"}
    with override_settings(STEPFLOWS=settings):
        findings = Findings.of(perform(plan, terms.folder, patience=90 * HEARTBEAT + 60))
        found = list(figures(plan, findings, within=6 * HEARTBEAT))
    yield Row("workers killed in their work", f"{plan.runs:,} runs, {plan.kills} kills, {plan.flushes} broker flushes")
    yield from map(row_of, (figure for figure in found if figure.bound))


def planned(terms: Terms) -> Plan:
    share = min(terms.seconds / FULL, 1)
    runs, kills, flushes = (max(least, round(share * most)) for least, most in ((8, 200), (2, 50), (1, 2)))
    return Plan(runs=runs, kills=kills, flushes=flushes, seed=terms.seed)


def row_of(figure: Figure) -> Row:
    return Row(f"  {figure.name.strip()}", figure.value, int(not figure.holds), f"has to be {figure.bound}")
