"""The portal in a process that forks, as Celery's workers do."""

import os
import signal

from stepflows.caches import portal


async def answer():
    return 42


def test_a_forked_child_has_a_portal_of_its_own():
    """A child does not wait for the parent's thread, and the parent's goes on."""
    assert portal.run(answer) == 42
    child = os.fork()
    if not child:
        # Whatever happens in the child must not run the rest of the tests there.
        code = 1
        # A child that hangs ends by itself.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        try:
            code = 0 if portal.run(answer) == 42 else 2
        finally:
            os._exit(code)

    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert portal.run(answer) == 42


def test_a_child_of_a_process_without_a_portal(monkeypatch):
    """There is nothing to leave behind when none was started."""
    fresh = portal._Portal()
    fresh.forked()

    assert fresh._inherited == []
