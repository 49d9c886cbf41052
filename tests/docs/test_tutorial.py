"""The tutorial, followed in an empty folder: each file written, each command typed, each answer compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests import settings as site
from tests.docs.claims import runs
from tests.docs.walk import VARIANTS, Reader
from tests.postgres import running_postgres
from tests.servers import running_server

#: By the database of the tests. Both followed, every block is.
WAYS = {
    "sqlite": ("with Redis or Valkey", "with SQLite"),
    "postgresql": ("without Redis", "with PostgreSQL"),
}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader with servers that are nobody else's."""
    environment = {}
    way = WAYS["sqlite" if site.TEST_DATABASE == "sqlite" else "postgresql"]
    with ExitStack() as servers:
        if "with Redis or Valkey" in way:
            server = servers.enter_context(running_server(site._free_port(), tmp_path / "valkey"))
            environment["REDIS_URL"] = f"redis://127.0.0.1:{server.port}"
        if "with PostgreSQL" in way:
            postgres = servers.enter_context(running_postgres())
            with psycopg.connect(postgres.url, autocommit=True) as session:
                session.execute("CREATE DATABASE bookshop")
            environment |= {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGUSER": "postgres"}
        yield servers.enter_context(Reader(tmp_path, way, site._free_port(), environment))


@pytest.mark.worker
@pytest.mark.timeout(600)
@runs("docs/tutorial.md")
def test_it_can_be_followed(reader, blocks):
    """From an empty folder to a run on a worker, with everything it needs named on the page."""
    for block in blocks:
        if "list_step_cache" in block.text:
            # A person looks when the worker is done.
            reader.wait_for_runs()
        reader.follow(block)


def test_every_variant_is_followed():
    """On one of the two databases."""
    assert {name for way in WAYS.values() for name in way} == VARIANTS
