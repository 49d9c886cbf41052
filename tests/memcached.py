"""A real memcached for the tests, where the machine has one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.outages.single import await_until
from tests.settings import _is_free

__all__ = ["MEMCACHED", "memcached_path", "running_memcached"]


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
        await_until(lambda: server.poll() is not None or not _is_free(port))
        if server.poll() is not None:
            raise RuntimeError(f"memcached did not start on port {port}; has it another owner? Run the tests again.")
        yield
    finally:
        server.terminate()
        server.wait()
