"""For the tests of what a project tests with."""

import pytest
from celery import Celery, current_app

from tests.testing.flows import registered


@pytest.fixture(autouse=True)
def _flows():
    with registered():
        yield


@pytest.fixture
def no_broker():
    """The Celery app of this process, of a site whose tests have no broker."""
    before = current_app._get_current_object()
    app = Celery("down", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.set_current()
    yield app
    before.set_current()
    app.close()
