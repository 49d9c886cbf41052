"""The example site as a newcomer meets it: through ``manage.py``, in processes of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from project import services

pytestmark = pytest.mark.once

#: The site has settings of its own.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("DJANGO_SETTINGS_MODULE", "REDIS_URL")}


def manage(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end; what it writes is in ``stdout``."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=services.BASE_DIR,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


def test_the_shops_own_tests_pass(folder: str) -> None:
    """The site brings tests as any Django project does."""
    done = manage("test", "project", SHOP_FOLDER=folder)

    assert done.returncode == 0, done.stdout


def test_the_site_has_no_problems(folder: str) -> None:
    """Django finds nothing to complain about, and no migration is missing."""
    checked = manage("check", "--fail-level", "WARNING", SHOP_FOLDER=folder)
    migrations = manage("makemigrations", "--check", "--dry-run", SHOP_FOLDER=folder)

    assert checked.returncode == 0, checked.stdout
    assert migrations.returncode == 0, migrations.stdout


@pytest.mark.worker
def test_the_demo_shows_that_its_numbers_hold() -> None:
    """Nothing is executed or charged twice, one cleared key runs one step, and the exit code is 0."""
    done = manage("demo", "--orders", "10")

    assert done.returncode == 0, done.stdout
    rows = re.findall(r"│ ([a-z ,]+?) +│ +(\d+) │ +(\d+) │ +(\d+) │", done.stdout)
    numbers = {label: [int(first), int(again), int(cleared)] for label, first, again, cleared in rows}
    assert numbers["orders"] == [10, 10, 10]
    assert numbers["steps executed"][1:] == [0, 1]
    assert numbers["charges seen by the payment service"][1:] == [0, 1]
    assert numbers["cards charged"] == [numbers["paid"][0], 0, 0]


@pytest.mark.worker
def test_numbers_that_do_not_hold_end_with_exit_code_1(tmp_path: Path) -> None:
    """Orders that were checked out before execute no step in the first pass, and that is noticed."""
    with services.surroundings(tmp_path) as environment:
        assert manage("make_shop", "--orders", "5", **environment).returncode == 0
        with services.worker(tmp_path, environment):
            before, after = (manage("three_passes", "--orders", "5", **environment) for _ in range(2))

    assert before.returncode == 0, before.stdout
    assert after.returncode == 1, after.stdout
    assert re.search(r"Pass 1, steps executed: 0, where it must be \d+\.", after.stdout)


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """A command that is still running, in a group of its own as in a terminal."""
    with subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=services.BASE_DIR,
        env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def said(process: "subprocess.Popen[str]", text: str) -> str:
    """Wait until the process writes a line with this text; all that it wrote until then."""
    assert process.stdout
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    pytest.fail(f"The process ended without saying {text!r}: {''.join(lines)}")


@pytest.mark.worker
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, exit_code: int) -> None:
    """Ctrl-C and ``kill`` stop every server and remove the temporary folder."""
    with started("demo", "--orders", "2000", TMPDIR=str(tmp_path)) as demo:
        said(demo, "First pass")
        (url_file,) = tmp_path.glob("stepflows-demo-*/payment-service.url")
        url = url_file.read_text()
        if number == signal.SIGINT:
            os.killpg(demo.pid, number)  # A terminal sends it to the commands that the demo waits for too.
        else:
            demo.send_signal(number)
        assert demo.stdout
        rest = demo.stdout.read()

    assert demo.returncode == exit_code, rest
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


@pytest.mark.worker
def test_serve_starts_everything_and_stops_it(tmp_path: Path) -> None:
    """It says where to look, an order can be checked out there, and Ctrl-C ends it all."""
    port = services.free_port()
    with started("serve", "--port", str(port), SHOP_FOLDER=str(tmp_path)) as serve:
        where = said(serve, "Ctrl-C")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, follow_redirects=True) as browser:
            page = browser.get("/orders/1/")
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
            assert token
            page = browser.post("/orders/1/checkout/", data={"csrfmiddlewaretoken": token[1]}).raise_for_status()
            deadline = time.monotonic() + 60
            status = browser.get(f"{page.url}status/").json()
            while not status["finished"] and time.monotonic() < deadline:
                time.sleep(0.1)
                status = browser.get(f"{page.url}status/").json()
            quotes = browser.get("/orders/1/shipping/")
        os.killpg(serve.pid, signal.SIGINT)
        assert serve.stdout
        rest = serve.stdout.read()

    for address in ("/orders/", "/runs/", "/orders/1/shipping/", "/admin/"):
        assert f"http://127.0.0.1:{port}{address}" in where
    assert status["state"] == "succeeded", (tmp_path / "worker.log").read_text()
    assert quotes.status_code == 200
    assert (serve.returncode, rest.strip()) == (0, "Everything is stopped.")
    assert services.is_free(port)


def test_serve_says_when_its_port_is_taken(folder: str) -> None:
    """Nothing is started beside another server."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = manage("serve", "--port", str(port), SHOP_FOLDER=folder)

    assert done.returncode == 1
    assert f"Something listens on port {port} already" in done.stdout
