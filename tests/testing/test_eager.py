"""Celery's ``task_always_eager``, as the tests of many projects have it."""

import pytest
from celery import current_app
from django.test import TestCase, TransactionTestCase

from stepflows import Ok
from stepflows.models import Run
from stepflows.testing import runs_in_place
from tests.testing.flows import order, pay


@pytest.fixture(autouse=True)
def _eager(no_broker):
    """Tests that are eager have no broker either."""
    no_broker.conf.task_always_eager = True
    assert current_app.conf.task_always_eager


class EagerTests(TestCase):
    def test_runs_are_performed_when_the_test_has_the_callbacks_executed(self):
        """Where nothing is ever committed, Django's own way to have what waits for a commit."""
        with self.captureOnCommitCallbacks(execute=True):
            run = order.delay(7)

        assert run.wait(timeout=0) == Ok("paid")
        assert [run.state for run in Run.objects.all()] == ["succeeded", "succeeded"]

    def test_a_block_that_performs_in_place_goes_before(self):
        """Each run is performed once."""
        with runs_in_place(), self.captureOnCommitCallbacks(execute=True):
            run = pay.delay(7)

        assert (run.result, run.attempts) == (Ok("paid"), 1)


class EagerTransactionTests(TransactionTestCase):
    def test_runs_are_performed_before_delay_returns(self):
        """And what they queue as well."""
        run = order.delay(7)

        assert run.wait(timeout=0) == Ok("paid")
        assert [run.state for run in Run.objects.all()] == ["succeeded", "succeeded"]
