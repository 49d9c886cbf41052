"""``python -m tests.kills``: workers are killed in the middle of their work, and nothing is lost or done twice.

It starts a Valkey server (the cache and the broker), a database and Celery workers of its own, asks for runs of eight
steps, and again and again kills all processes of a worker (SIGKILL to its process group) and starts another one; now
and then it empties the broker. When which worker is killed follows from the seed, counted in steps, so that the kills
are spread over the whole work. Then it reads what the steps noted in a file (see ``findings.py``) and prints what came
of it; the exit code is 1 if anything is not as it has to be.

``MAX_ATTEMPTS`` is more than the kills: it is there for runs that kill their worker, and here one run may well be hit
more often than five times without any fault of its own.

A run whose worker is killed is taken for lost after 2.5 heartbeats, and found by a worker's look, one every 3
heartbeats: with a heartbeat of 10 s that is 55 s at most. A message that a worker had taken beforehand is sent again
after 30 s, or a minute or two if that has happened to it before; so this takes some minutes.
"""

from __future__ import annotations

import argparse
import shutil
import time
from typing import Any

from django.test import override_settings
from redis import Redis
from rich.console import Console

from tests import settings as site
from tests.databases import running_database
from tests.kills.experiment import perform
from tests.kills.findings import Findings
from tests.kills.plan import Plan
from tests.kills.verdict import figures, printed
from tests.servers import running_server


def main() -> int:
    options = vars(_options())
    heartbeat, lease = options.pop("heartbeat"), options.pop("lease")
    plan = Plan(**options)
    settings = {"HEARTBEAT": heartbeat, "LEASE": lease, "MAX_ATTEMPTS": plan.kills + 5, "CACHE": "django_redis"}
    console = Console()
    if not console.is_terminal:
        console.width = 170
    console.print(f"{plan}\nHeartbeat {heartbeat:g} s. {_estimate(plan, heartbeat)}")
    began = time.monotonic()
    site.FOLDER.mkdir(parents=True)
    try:
        with _servers(), running_database(), override_settings(STEPFLOWS=settings):
            notes = perform(plan, site.FOLDER, patience=90 * heartbeat + 60)
            found = list(figures(plan, Findings.of(notes), within=6 * heartbeat))
    finally:
        shutil.rmtree(site.FOLDER, ignore_errors=True)
    console.print(printed(found, f"seed {plan.seed}, {time.monotonic() - began:.0f} s in all"))
    return 0 if all(figure.holds for figure in found) else 1


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    numbers = {"runs": 200, "kills": 50, "flushes": 2, "seed": 1, "concurrency": 2, "workers": 2, "prefetch": 4}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"instead of {default}")
    parser.add_argument("--backlog", type=int, default=4, help="messages that wait at the broker, instead of 4")
    parser.add_argument("--heartbeat", type=float, default=10.0, help="seconds, instead of 10")
    parser.add_argument("--lease", type=float, default=30.0, help="seconds, instead of 30")
    return parser.parse_args()


def _estimate(plan: Plan, heartbeat: float) -> str:
    work = plan.steps * sum(plan.span) / 2 / (plan.workers * plan.concurrency)
    # A worker is away for some four seconds, and its last orphans for up to six heartbeats.
    most = work + 4 * plan.kills + 12 * heartbeat
    return f"The steps alone take {work:.0f} s if nobody is killed; this will take some {most / 60:.0f} minutes."


def _servers() -> Any:
    port = Redis.from_url(site.CACHE_URL).connection_pool.connection_kwargs["port"]
    return running_server(port, site.FOLDER / "valkey")
