"""Following a page as a reader does: its files written, its commands typed, in order, in an empty folder.

A block of Python below ``**path**, words:`` is a file, or lines for its end (``at its end``). The words may name a
variant, such as ``without Redis``; the others are passed over. In a block of the console, lines that begin with ``$``
are commands, and the others what they print.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.docs.documents import Block

__all__ = ["VARIANTS", "Reader", "normal", "typed"]

VARIANTS = frozenset({"with Redis or Valkey", "without Redis", "with SQLite", "with PostgreSQL"})
#: Seconds; a slow machine under load has to start a server in that time.
PATIENCE = 90

#: What the environment of the tests has already.
_INSTALLING = ("python3 -m venv ", ". venv/", "python -m pip install ")
_FILE = re.compile(r"\*\*(?P<path>[\w./\\]+)\*\*, (?P<words>[^:]+):")
#: What is another one at each run: moments, ids, how long it took.
_VARYING = (
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00", "<moment>"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
    (r"\d+\.\d{3} ?s\b", "<seconds>"),
)


def normal(text: str) -> str:
    """The text without what differs between two runs."""
    for pattern, name in _VARYING:
        text = re.sub(pattern, name, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def typed(block: Block) -> Iterator[tuple[str, str]]:
    """Each command of a block of the console, and what it prints."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


class Reader:
    """Follows blocks in a folder. Its servers are stopped at the end."""

    def __init__(self, folder: Path, variants: Collection[str], port: int, environment: Mapping[str, str]) -> None:
        assert VARIANTS.issuperset(variants)
        self.folder = folder
        self._variants = variants
        self._port = port
        names = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "PYTEST"))}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = names | {"PATH": path, "PYTHONUNBUFFERED": "1", "C_FORCE_ROOT": "1"} | environment
        self._site: subprocess.Popen[bytes] | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        #: Whether the site was started before the last file was written; its reloader would see that.
        self._outdated = False
        self._special: dict[str, Callable[[str], str | None]] = {
            "cd ": self._enter,
            "curl -X POST ": self._post,
            "python manage.py runserver": self._serve,
            "celery ": self._work,
            **dict.fromkeys(_INSTALLING, self._pass_over),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in filter(None, [self._worker, self._site]):
            _end(process)

    def follow(self, block: Block) -> None:
        """Do what it says, and see that what it prints is what the page says."""
        block.ran = True
        if block.language == "python":
            self._write(block)
            return
        assert block.language == "console", f"{block} is {block.language!r}, which nobody can follow"
        for command, output in typed(block):
            printed = self.type(command)
            if printed is not None and output:
                assert normal(printed) == normal(output), f"{block}: $ {command}\n{printed}"

    def type(self, command: str) -> str | None:
        """What it printed; ``None`` for what goes on, or is not done here."""
        for start, special in self._special.items():
            if command.startswith(start):
                return special(command)
        return self._shell(command)

    def wait_for_runs(self) -> None:
        """Until the worker has done what it was given."""
        script = f"from stepflows.models import Run; [run.wait({PATIENCE}) for run in Run.objects.all()]"
        self._shell(f'python manage.py shell -v 0 -c "{script}"')

    def get(self, path: str, data: bytes | None = None) -> str:
        request = Request(f"http://127.0.0.1:{self._port}{path}", data)
        try:
            with urlopen(request, timeout=PATIENCE) as response:
                return response.read().decode()
        except HTTPError as answer:
            return answer.read().decode()

    def _write(self, block: Block) -> None:
        found = _FILE.fullmatch(block.lead)
        assert found, f"{block}: the line above it names no file: {block.lead}"
        words = found["words"]
        if {name for name in VARIANTS if name in words} - set(self._variants):
            return
        file = self.folder / found["path"].replace("\\_", "_")
        if "at its end" in words:
            assert file.exists(), f"{block}: there is no {file.name} yet"
            file.write_text(f"{file.read_text().rstrip()}\n\n{block.text}")
        else:
            assert file.exists() == ("in place of what is there" in words), f"{block}: {words}"
            file.write_text(block.text)
        self._outdated = True

    def _shell(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not done.returncode or "CommandError: " in done.stdout, f"$ {command}\n{done.stdout}"
        return done.stdout

    def _pass_over(self, command: str) -> None:
        """It is installed already."""

    def _enter(self, command: str) -> None:
        self.folder /= command.removeprefix("cd ")

    def _post(self, command: str) -> str:
        if self._outdated:
            self._serve(command)
        path = re.sub(r".*127\.0\.0\.1:8000", "", command)
        return self.get(path, b"")

    def _serve(self, command: str) -> None:
        if self._site:
            _end(self._site)
        self._outdated = False
        self._site = self._start(["python", "manage.py", "runserver", "--noreload", f"127.0.0.1:{self._port}"])
        self._await(self._site, "Quit the server with CONTROL-C")

    def _work(self, command: str) -> None:
        self._worker = self._start([*command.split(), "--concurrency=1"])
        self._await(self._worker, " ready.")

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self._log(command[0]).open("wb") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def _log(self, name: str) -> Path:
        return self.folder.parent / f"{self.folder.name}-{name}.log"

    def _await(self, process: subprocess.Popen[bytes], words: str) -> None:
        log = self._log(str(process.args[0]))  # type: ignore[index]
        deadline = time.monotonic() + PATIENCE
        while words not in log.read_text():
            assert process.poll() is None, f"{process.args!r} has ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"{process.args!r} is not ready:\n{log.read_text()}"
            time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
