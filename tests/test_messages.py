"""Messages to workers, and how long a broker may take."""

import pytest
from celery import Celery, current_app
from celery.exceptions import SoftTimeLimitExceeded

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
    """The answer is no, and a line of the log names run, workflow, app, broker and reason, but not the password."""
    app(broker_url="redis://:secret@127.0.0.1:1/0")

    assert not publish("run-1", "checkout")

    [record] = caplog.records
    assert record.getMessage().startswith(
        "Run run-1 of workflow 'checkout' stays queued: Celery app 'other' could not reach its broker at "
        "redis://:**@127.0.0.1:1/0. OperationalError: "
    )
    assert "\n" not in caplog.text.strip()


def test_a_process_without_a_celery_app_is_told_to_make_one(app, monkeypatch, caplog):
    """Celery makes up an app that knows no broker."""
    monkeypatch.setattr(app(broker_url=None), "main", "default")

    assert not publish("run-1", "checkout")

    assert "this process has no Celery app to send it with" in caplog.text
    assert "from .celery import app as celery_app" in caplog.text


def test_what_else_keeps_a_message_from_being_sent_is_shown_with_its_place(app, caplog):
    """Such as options that Celery does not take: the log has the traceback."""
    app(broker_url="memory://here")

    assert not publish("run-1", "checkout", countdown="soon")

    [record] = caplog.records
    assert "Celery app 'other' could not send it. TypeError: " in record.getMessage()
    assert record.exc_info


def test_messages_can_be_withheld(broker):
    """In the block nothing is sent; after it, it is."""
    noted = []
    with withheld(noted.append), withheld(noted.append):
        assert not publish("run-1", "checkout")
    assert broker.messages() == []

    assert publish("run-2", "checkout")
    assert broker.ids() == [["run-2"]]


def test_a_time_limit_that_strikes_meanwhile_goes_on(app, monkeypatch):
    """A task that queues a run is ended by its limit, as everywhere else."""

    def struck(*args, **kwargs):
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(app(broker_url="memory://here"), "connection_for_write", struck)

    with pytest.raises(SoftTimeLimitExceeded):
        publish("run-1", "checkout")
