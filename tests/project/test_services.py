"""The processes that the example starts and stops."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis

from project import services


def alive(group: int) -> bool:
    """Whether any process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_service_is_stopped_with_its_children(tmp_path: Path) -> None:
    """A child that the process leaves behind is killed too."""
    port = services.free_port()
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-m', 'http.server', '{port}'])"
    with services.service("parent", [sys.executable, "-c", script], tmp_path) as parent:
        parent.wait_until(lambda: not services.is_free(port))

    deadline = time.monotonic() + 10
    while not services.is_free(port) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert services.is_free(port)


def test_a_service_is_stopped_when_the_block_fails(tmp_path: Path) -> None:
    """An error in the block leaves no process behind."""
    with (
        pytest.raises(KeyError, match="boom"),
        services.service("sleeper", ["sleep", "60"], tmp_path) as sleeper,
    ):
        raise KeyError("boom")

    assert not alive(sleeper.process.pid)


def test_a_service_that_will_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ignores the request to end is killed after a while."""
    monkeypatch.setattr(services, "STOP", 0.2)
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); "
    script += "time.sleep(60)"
    with services.service("stubborn", [sys.executable, "-c", script], tmp_path) as stubborn:
        stubborn.wait_until(lambda: "up" in stubborn.log.read_text())

    assert stubborn.process.returncode == -signal.SIGKILL


def test_a_service_that_ends_is_reported_with_its_last_words(tmp_path: Path) -> None:
    """Waiting for a process that has ended raises, and says what is in its log."""
    with (
        pytest.raises(services.NotReady, match=r"(?s)failing ended with exit code 1.*no such luck"),
        services.service("failing", [sys.executable, "-c", "raise SystemExit('no such luck')"], tmp_path) as failing,
    ):
        failing.wait_until(lambda: False)


def test_a_service_that_is_never_ready_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting ends at a deadline."""
    monkeypatch.setattr(services, "START", 0.1)
    with (
        pytest.raises(services.NotReady, match="idle was not ready within"),
        services.service("idle", ["sleep", "60"], tmp_path) as idle,
    ):
        idle.wait_until(lambda: False)


def test_valkey_keeps_its_data_in_its_folder(tmp_path: Path) -> None:
    """A server that is started in the same folder again has what the first one had."""
    with services.valkey(tmp_path) as url, Redis.from_url(url) as client:
        client.set("kept", "yes")

    with services.valkey(tmp_path) as url, Redis.from_url(url) as client:
        assert client.get("kept") == b"yes"


def test_a_port_that_is_taken_is_not_free() -> None:
    """Somebody listens: not free; nobody does: free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not services.is_free(port)
    assert services.is_free(services.free_port())


def test_a_request_to_end_stops_the_services(tmp_path: Path) -> None:
    """SIGTERM leaves the blocks in order, so that nothing stays behind."""
    script = f"""
from pathlib import Path
from project import services
with services.stopped_by_signals(), services.service("sleeper", ["sleep", "60"], Path({str(tmp_path)!r})) as sleeper:
    print(sleeper.process.pid, flush=True)
    sleeper.process.wait()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=services.BASE_DIR) as parent:
        assert parent.stdout
        group = int(parent.stdout.readline())
        assert alive(group)
        parent.terminate()

    assert parent.returncode == 128 + signal.SIGTERM
    assert not alive(group)
