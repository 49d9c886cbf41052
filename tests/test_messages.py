"""Messages to workers, and how long a broker may take."""

import pytest
from celery import Celery, current_app

from stepflows import messages
from stepflows.messages import publish, withheld


@pytest.fixture
def app():
    """Makes the Celery app of another site the current one."""
    before = current_app._get_current_object()
    apps = []

    def make(**conf):
        apps.append(Celery("other", set_as_current=False))
        apps[-1].conf.update(conf)
        apps[-1].set_current()
        return apps[-1]

    yield make
    before.set_current()
    for each in apps:
        each.close()


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("redis://127.0.0.1:1/0", {"socket_timeout", "socket_connect_timeout"}),
        ("sentinel://127.0.0.1:1/0", {"socket_timeout", "socket_connect_timeout"}),
        ("amqp://127.0.0.1:1//", {"read_timeout", "write_timeout"}),
        ("memory://here", set()),
    ],
)
def test_a_broker_has_two_seconds_for_an_answer(app, url, names):
    """Each transport is told in its own words, and those that have none are left alone."""
    app(broker_url=url)

    connection = messages._connection()

    assert connection.transport_options == dict.fromkeys(names, 2.0)
    assert connection.connect_timeout == 2.0


def test_what_the_project_has_set_stays(app):
    """Its transport options are those of its broker, and its own timeout holds."""
    given = {"socket_timeout": 9, "global_keyprefix": "shop:"}
    other = app(broker_url="redis://127.0.0.1:1/0", broker_transport_options=given)

    connection = messages._connection()

    assert connection.transport_options == {**given, "socket_connect_timeout": 2.0}
    assert other.conf.broker_transport_options == given


def test_a_message_that_cannot_be_sent_is_told(app, caplog):
    """The answer is no, and the log names the run, its workflow and the app."""
    app(broker_url="redis://127.0.0.1:1/0")

    assert not publish("run-1", "checkout")

    assert "Run run-1 of workflow 'checkout' stays queued: Celery app 'other' could not send it" in caplog.text


def test_messages_can_be_withheld(broker):
    """In the block nothing is sent; after it, it is."""
    noted = []
    with withheld(noted.append), withheld(noted.append):
        assert not publish("run-1", "checkout")
    assert broker.messages() == []

    assert publish("run-2", "checkout")
    assert broker.ids() == [["run-2"]]
