"""``make bench``: what stored results cost, beside what one would use instead, on a real server in one run.

Machines are noisy: read the ratios. The figures are kept as JSON and drawn for the README.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django
import redis
from django.utils.module_loading import import_string
from redis import Redis
from rich.console import Console

from tests import settings as site
from tests.benchmarks import codec, engine, herd, hit, index, mapped, memory, miss, plot, replay
from tests.benchmarks.server import Server
from tests.benchmarks.table import Table
from tests.servers import running_server


class Section(NamedTuple):
    tables: Callable[[Server], Iterator[Table]]
    #: Whether client and server share a core: the steadier ratio, but not for many processes.
    pinned: bool = True


def main() -> None:
    django.setup()
    options = _options()
    console = Console()
    if not console.is_terminal:
        console.width = 140
    for file in (options.json, options.plot):
        file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        client = Redis.from_url(site.CACHE_URL)
        with running_server(client.connection_pool.connection_kwargs["port"], Path(folder)), client:
            machine = _machine(client)
            console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
            tables = list(_measured(options, Server(site.CACHE_URL, client), console))
    figures = {"machine": machine, "tables": [table.as_json() for table in tables]}
    options.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(f"The figures are in {options.json}.")
    if plot.draw(tables, options.plot):
        console.print(f"The picture is {options.plot}.")
    else:
        console.print("No picture, which shows the sections hit and herd together.")


def _sections(keys: int) -> dict[str, Section]:
    return {
        "engine": Section(engine.tables),
        "hit": Section(hit.tables),
        "miss": Section(miss.tables),
        "map": Section(mapped.tables),
        "replay": Section(replay.tables),
        "herd": Section(herd.tables, pinned=False),
        "codec": Section(codec.tables),
        "memory": Section(memory.tables),
        "index": Section(partial(index.tables, keys=keys), pinned=False),
        # It knows the models, which cannot be imported before Django is set up.
        "runs": Section(import_string("tests.benchmarks.runs.tables"), pinned=False),
    }


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    names = ", ".join(_sections(0))
    parser.add_argument("sections", nargs="*", type=_section, metavar="section", help=f"what to measure, of {names}")
    parser.add_argument("--keys", type=int, default=1_000_000, help="how many in the section index, instead of 1000000")
    parser.add_argument("--plot", type=Path, default=Path(".run/bench.png"), metavar="FILE", help="where to draw")
    parser.add_argument("--json", type=Path, default=Path(".run/bench.json"), metavar="FILE", help="where to write")
    return parser.parse_args()


def _section(name: str) -> str:
    if name not in _sections(0):
        raise argparse.ArgumentTypeError(f"There is no section {name!r}. Use some of: {', '.join(_sections(0))}.")
    return name


def _measured(options: Any, server: Server, console: Console) -> Iterator[Table]:
    sections = _sections(options.keys)
    for name in options.sections or sections:
        section = sections[name]
        with server.pinned() if section.pinned else nullcontext("not pinned to a core") as where:
            console.print(f"\n[bold]{name}[/bold], {where}")
            for table in section.tables(server):
                console.print(table.printed())
                yield table


def _machine(client: Redis) -> dict[str, str]:
    server = client.info("server")
    return {
        "Python": platform.python_version(),
        "Django": django.__version__,
        "redis-py": redis.__version__,
        "Valkey": server.get("valkey_version", server["redis_version"]),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "processor": _processor(),
    }


def _processor() -> str:
    """Its name, where the system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
