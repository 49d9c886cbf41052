"""``manage.py run_workflow``."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from stepflows import Err, Retry, workflow
from stepflows.engine.events import Event
from stepflows.management.commands.run_workflow import Command
from stepflows.models import Run
from stepflows.registry import registry
from tests.flows import notes

NAME = "command.checkout"
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def define():
    """Register a body for the time of the test."""

    def register(body, **options):
        return workflow(NAME, **{"cache": {}, **options})(body)

    yield register
    registry.remove(NAME)


def run(*args, name=NAME):
    output = StringIO()
    try:
        call_command("run_workflow", name, *args, stdout=output)
    finally:
        run.lines = re.sub(r"\d\.\d{3} s", "0.000 s", output.getvalue()).splitlines()
    return run.lines


def in_a_shell(*args):
    """The command as it is typed, with its exit code."""
    command = [sys.executable, "-m", "django", "run_workflow", *args, "--skip-checks"]
    return subprocess.run(command, cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True, check=False)


def test_it_shows_each_step_and_the_result(define):
    """A line when a step starts and one when it is done, then the value."""
    define(lambda step, deps, order_id: step("charge", lambda: {"order": order_id}, key=f"order:{order_id}"))

    assert run("--arg", "order_id=7") == [
        "charge (order:7): started",
        "charge (order:7): done in 0.000 s",
        "Ok: {'order': 7}",
    ]
    assert run("--arg", "order_id=7") == ["charge (order:7): from the cache", "Ok: {'order': 7}"]


def test_lines_are_written_while_it_runs(define):
    """Through a pipe, too, what has happened shows at once."""

    class Pipe(StringIO):
        arrived = ""

        def flush(self):
            self.arrived = self.getvalue()

    pipe = Pipe()
    seen = []
    define(lambda step, deps: step("load", lambda: seen.append(pipe.arrived)))

    call_command("run_workflow", NAME, stdout=pipe)

    assert seen == ["load: started\n"]


def test_attempts_are_shown(define):
    """A retry is a line of its own, with the error."""
    errors = [ValueError("busy"), ValueError()]

    def charge():
        if errors:
            raise errors.pop(0)

    define(lambda step, deps: step("charge", charge, retry=Retry(attempts=3, wait=0)))

    assert run() == [
        "charge: started",
        "charge: attempt 1 failed, trying again: ValueError: busy",
        "charge: attempt 2 failed, trying again: ValueError",
        "charge: done in 0.000 s",
        "Ok: None",
    ]


def test_an_error_ends_it_and_names_the_step(define):
    """The second time the error comes from the cache, and the message says how to be rid of it."""
    define(lambda step, deps: step("load", lambda: Err("NOT_FOUND"), key="order:7"))

    with pytest.raises(CommandError) as caught:
        run()
    assert caught.value.returncode == 1
    assert str(caught.value) == "Err: NOT_FOUND\nin step load (order:7)"
    assert run.lines == ["load (order:7): started", "load (order:7): failed: NOT_FOUND"]

    with pytest.raises(CommandError, match="replayed from the cache; clear its key to run it again"):
        run()
    assert run.lines == ["load (order:7): failed earlier, from the cache: NOT_FOUND"]


def test_an_error_outside_of_a_step_is_shown(define):
    """An exception of the body is named by its class, and --traceback has its traceback."""
    define(lambda step, deps: {}["missing"])

    with pytest.raises(CommandError, match="Err: KeyError: 'missing'") as caught:
        run()

    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_of_another_type_is_shown(define):
    """Errors are data, of whatever type."""
    define(lambda step, deps: Err({"code": 51}))

    with pytest.raises(CommandError, match=r"Err: \{'code': 51\}"):
        run()


def test_arguments_are_json(define):
    """Values have the types of JSON; the name ends at the first equals sign."""
    define(lambda step, deps, **kwargs: kwargs)

    [line] = run("--arg", "n=7", "--arg", 'text="a=b"', "--arg", "items=[1, null]")

    assert line == "Ok: {'n': 7, 'text': 'a=b', 'items': [1, None]}"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["city=Paris"], """into single ones for the shell: --arg 'city="Paris"'"""),
        (["city="], "--arg city=: the value is not JSON"),
        (["city"], "--arg city: give a name and a value, such as --arg order_id=7."),
        (["=7"], "--arg =7: give a name and a value, such as --arg order_id=7."),
        (["n=1", "n=2"], "--arg n=2: the argument 'n' is given twice."),
    ],
    ids=str,
)
def test_an_argument_that_makes_no_sense_is_refused(define, args, message):
    """The error names the argument and shows how it is written."""
    calls = []
    define(lambda step, deps, **kwargs: calls.append(kwargs))

    with pytest.raises(CommandError) as caught:
        run(*[part for arg in args for part in ("--arg", arg)])

    assert message in str(caught.value)
    assert calls == []


def test_a_workflow_that_is_not_known_is_refused():
    """The error names what is close."""
    with pytest.raises(CommandError, match=r"No workflow is named 'flows\.ordr'\. Did you mean 'flows\.order'\?"):
        run(name="flows.ordr")


@pytest.mark.parametrize("more", [[], ["--async"]], ids=["here", "async"])
def test_arguments_that_the_body_does_not_take_are_refused(define, more):
    """Wrong arguments are a message, not a traceback."""
    define(lambda step, deps, order_id: None)

    with pytest.raises(CommandError, match=r"does not take these arguments: .*order_id"):
        run(*more)


def test_ctrl_c_is_no_traceback(define):
    """An interrupted command says so, with the exit code that shells know."""

    def body(step, deps):
        raise KeyboardInterrupt

    define(body)

    with pytest.raises(CommandError, match=r"Interrupted\. Steps that are done stay done\.") as caught:
        run()

    assert caught.value.returncode == 130


def test_what_a_cache_does_is_shown():
    """Events of the cache have words of their own."""
    output = StringIO()
    command = Command(stdout=output)
    now = datetime.now(UTC)

    for kind in ["step_wait", "step_cache_write_failed", "step_cache_corrupt", "step_cache_miss", "workflow_start"]:
        label = None if kind == "workflow_start" else "load"
        command._show(Event(kind, NAME, "run", now, label, error="reason"))

    assert output.getvalue().splitlines() == [
        "load: waiting for another run of this step",
        "load: could not be stored: reason",
        "load: the stored entry counts as missing: reason",
    ]


@pytest.mark.django_db(transaction=True)
def test_async_queues_it_and_prints_the_id(valkey):
    """With --async a worker will run it, and the id is all that is printed."""
    [line] = run("--arg", "order_id=7", "--async", name="flows.order")

    queued = Run.objects.get()
    assert line == str(queued.pk)
    assert (queued.workflow, queued.kwargs, queued.state) == ("flows.order", {"order_id": 7}, "queued")


def test_async_without_tables_says_to_run_migrate(no_table):
    """A plain message in the place of a traceback."""
    with pytest.raises(CommandError, match=r"written: .*stepflows_run.*\. Run manage\.py migrate if") as caught:
        run("--arg", "order_id=7", "--async", name="flows.order")
    assert caught.value.returncode == 1


def test_the_exit_code_tells(valkey):
    """0 for Ok, 1 for Err, as a shell sees it; and the steps are in the cache for the next one."""
    notes.forget()

    done, again = [in_a_shell("flows.order", "--arg", "order_id=7") for _ in range(2)]
    failed = in_a_shell("flows.missing", "--arg", "order_id=7")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "Ok: 'charge 7'"
    assert again.stdout.splitlines()[0] == "load (order:7:basket): from the cache"
    assert (failed.returncode, failed.stderr) == (1, "CommandError: Err: NOT_FOUND\nin step load (order:7)\n")
