"""Celery's configuration, where runs depend on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, current_app

from stepflows import workflow
from stepflows.checks import check_celery, check_eager
from stepflows.messages import TASK
from tests.checks.bodies import ids, says


@pytest.fixture
def app() -> Iterator[Callable[..., Celery]]:
    """Makes a Celery app the current one for the length of a test."""
    before = current_app._get_current_object()
    made = []

    def make(broker: Any = "redis://127.0.0.1:1/0", main: str = "shop", **conf: Any) -> Celery:
        made.append(Celery(main, broker=broker, set_as_current=False))
        made[-1].conf.update(conf)
        made[-1].set_current()
        return made[-1]

    yield make
    before.set_current()
    for each in made:
        each.close()


@pytest.fixture(autouse=True)
def _workflow():
    @workflow("shop", cache={})
    def shop(step, deps): ...


@pytest.mark.parametrize(
    ("broker", "conf", "shown"),
    [
        ("redis://a/0", {"task_time_limit": 7200}, "3600 s"),
        ("rediss://a/0", {"task_time_limit": 3601}, "3600 s"),
        ("redis+socket:///a", {"task_time_limit": 7200}, "3600 s"),
        (["sentinel://a:1", "sentinel://b:1"], {"task_time_limit": 7200}, "3600 s"),
        ("sqs://", {"task_time_limit": 2000}, "1800 s"),
        ("redis://a", {"task_time_limit": 60, "broker_transport_options": {"visibility_timeout": 30}}, "30 s"),
    ],
)
def test_a_broker_that_does_not_wait_for_a_run_is_a_warning(app, broker, conf, shown):
    """It says what happens then, and asks neither the broker nor its library."""
    app(broker, **conf)
    (found,) = check_celery()
    assert found.id == "stepflows.W005"
    assert says(found, f"after {shown}.*again and again.*visibility_timeout")


@pytest.mark.parametrize(
    ("broker", "conf"),
    [
        ("redis://a/0", {}),
        ("redis://a/0", {"task_time_limit": 600}),
        ("redis://a", {"task_time_limit": 7200, "broker_transport_options": {"visibility_timeout": 9000}}),
        ("amqp://a", {"task_time_limit": 7200}),
        ("memory://", {"task_time_limit": 7200}),
    ],
)
def test_a_broker_that_waits_is_left_alone(app, broker, conf):
    """As is one that knows when a worker is gone."""
    app(broker, **conf)
    assert check_celery() == []


def test_the_limit_of_the_task_itself_counts(app):
    """It goes before that of all tasks."""
    app(task_time_limit=60, task_annotations={TASK: {"time_limit": 7200}})
    assert ids(check_celery()) == ["stepflows.W005"]


def test_a_broker_that_no_app_knows_is_a_warning(app, settings):
    """The usual cause is an app that is never imported."""
    settings.CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
    app(None, main="default")
    (found,) = check_celery()
    assert found.id == "stepflows.W008"
    assert says(found, "CELERY_BROKER_URL.*__init__.py")


def test_a_project_without_a_broker_is_left_alone(app, settings):
    """It may never send a run to a worker."""
    del settings.CELERY_BROKER_URL
    app(None, main="default")
    assert check_celery() == []


def test_a_project_without_workflows_is_left_alone(app, monkeypatch):
    """Whatever its Celery is like."""
    monkeypatch.setattr("stepflows.registry.registry._workflows", {})
    app(task_time_limit=7200, task_always_eager=True)
    assert check_celery() == check_eager() == []


def test_a_configuration_that_cannot_be_read_is_no_failure(app):
    """The message is Celery's own."""
    app().config_from_object({"task_time_limit": 1, "CELERY_RESULT_BACKEND": "x"})
    (found,) = check_celery()
    assert found.id == "stepflows.I001"
    assert says(found, "ImproperlyConfigured")


def test_runs_in_the_process_of_their_caller_are_a_warning(app, settings):
    """Unless the site is in development."""
    app(task_always_eager=True)
    assert ids(check_eager()) == ["stepflows.W006"]
    settings.DEBUG = True
    assert check_eager() == []


def test_runs_on_workers_are_left_alone(app):
    """As they are by default."""
    app()
    assert check_eager() == []
