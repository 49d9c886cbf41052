"""A real memcached for the tests, where the machine has one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["MEMCACHED", "memcached_path", "running_memcached"]

#: Seconds until it has to answer.
_PATIENCE = 20


def memcached_path() -> str | None:
    return shutil.which("memcached")


#: The alias to be tried, if it can be.
MEMCACHED = ["memcached"] if memcached_path() else []


@contextmanager
def running_memcached(port: int) -> Iterator[None]:
    """One that is empty and gone at the end; items may be as large as entries of the tests are."""
    path = memcached_path()
    assert path, "Only tests that MEMCACHED is for may ask for it."
    options = ["--listen=127.0.0.1", f"--port={port}", "--memory-limit=256", "--max-item-size=8m"]
    # It refuses to be root's; any other user may give its own name.
    server = subprocess.Popen([path, *options, "--user=nobody"])
    try:
        _await_answer(server, port)
        yield
    finally:
        server.terminate()
        server.wait()


def _await_answer(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    raise RuntimeError(f"memcached does not answer on port {port}; has it another owner? Run the tests again.")
