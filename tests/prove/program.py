"""``make prove``: what a sceptic would try, and one table of what was tried, how often, and what was lost.

It starts servers, a database and workers of its own (SQLite, or PostgreSQL with TEST_DATABASE=postgresql), and ends
them. The exit code is 1 when anything was lost, done again, wrong or out of bounds. What happens when follows from the
seed, which is printed; what the machine makes of it does not, so a loss may need several tries to show again.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from redis import Redis
from rich.console import Console

from tests import settings as site
from tests.databases import running_database
from tests.prove.fuzzing import fuzzers
from tests.prove.interleaving import schedules
from tests.prove.killing import kills
from tests.prove.outages import cache_outages
from tests.prove.queues import broker_outages
from tests.prove.report import details, lost, printed
from tests.prove.soak import soak
from tests.prove.trial import Row, Terms, Trial, emptied
from tests.servers import running_server

#: Each with its minutes unless told otherwise.
TRIALS: Final[dict[str, tuple[Trial, float]]] = {
    "kills": (kills, 8),
    "caches": (cache_outages, 8),
    "brokers": (broker_outages, 5),
    "orders": (schedules, 5),
    "fuzzers": (fuzzers, 5),
    "soak": (soak, 30),
}


def main() -> int:
    options = _options()
    console = Console()
    if not console.is_terminal:
        console.width = 190
    for interrupt in (signal.SIGINT, signal.SIGTERM):
        # A shell that starts a program with "&" tells it to ignore the first one.
        signal.signal(interrupt, signal.default_int_handler)
    plan = planned(options.trials, options.minutes)
    console.print(
        f"Seed {options.seed}, database {site.TEST_DATABASE}, {sum(plan.values()):.0f} minutes or a bit more."
    )
    began = time.monotonic()
    rows: dict[str, list[Row]] = {}
    interrupted = False
    try:
        with _servers():
            for name, minutes in plan.items():
                console.print(f"{name}, {minutes:.1f} minutes ...")
                rows[name] = []
                rows[name].extend(tried(TRIALS[name][0], Terms(60 * minutes, options.seed, site.FOLDER)))
    except KeyboardInterrupt:
        interrupted = True
    console.print(printed(rows, f"seed {options.seed}, {(time.monotonic() - began) / 60:.1f} minutes in all"))
    number = lost(rows)
    if number:
        console.print(f"Something was lost. The logs are in {site.FOLDER}.", *details(rows), sep="\n", markup=False)
    else:
        shutil.rmtree(site.FOLDER, ignore_errors=True)
    console.print("Interrupted before the end." if interrupted else f"{number or 'Nothing'} lost.")
    return 130 if interrupted else int(number > 0)


def planned(trials: list[str], minutes: float | None) -> dict[str, float]:
    """The minutes of each trial: as given by name, or its share of all of them, or as usual."""
    named = dict(each.partition("=")[::2] for each in trials) or dict.fromkeys(TRIALS, "")
    usual = {name: TRIALS[name][1] for name, given in named.items() if not given}
    share = 1.0 if minutes is None or not usual else minutes / sum(usual.values())
    return {name: float(given) if given else usual[name] * share for name, given in named.items()}


def tried(trial: Trial, terms: Terms) -> Iterator[Row]:
    """What comes of a trial, even if it does not come to its end."""
    try:
        emptied()
        yield from trial(terms)
    except Exception as error:
        yield Row("did not come to its end", "", 1, repr(error)[:100], (traceback.format_exc(),))


@contextmanager
def _servers() -> Iterator[None]:
    site.FOLDER.mkdir(parents=True)
    logger = logging.getLogger("stepflows")
    handler = logging.FileHandler(site.FOLDER / "stepflows.log")
    logger.addHandler(handler)
    logger.propagate = False
    port = Redis.from_url(site.CACHE_URL).connection_pool.connection_kwargs["port"]
    try:
        with running_server(port, site.FOLDER / "valkey"), running_database():
            yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__)
    usual = ", ".join(f"{name} {minutes:g}" for name, (_, minutes) in TRIALS.items())
    parser.add_argument(
        "trials", nargs="*", type=_trial, metavar="trial[=minutes]", help=f"what to try, of these: {usual}"
    )
    parser.add_argument("--minutes", type=float, help="for all that have no time of their own, instead of the usual")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="instead of one by chance")
    return parser.parse_args()


def _trial(text: str) -> str:
    name, _, minutes = text.partition("=")
    if name not in TRIALS:
        raise argparse.ArgumentTypeError(f"There is no trial {name!r}. Use some of: {', '.join(TRIALS)}.")
    if minutes and not minutes.replace(".", "", 1).isdigit():
        raise argparse.ArgumentTypeError(f"The minutes of {name!r} are {minutes!r}; give a number, as in {name}=2.5.")
    return text
