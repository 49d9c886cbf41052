"""What listeners are told."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from stepflows import Err, Event, Ok, Retry, Workflow, create_workflow
from stepflows.engine.events import EVENT_TYPES
from stepflows.signals import step_event
from tests.calls import Calls
from tests.contract.test_steps import stepping
from tests.maplikes import BrokenMap
from tests.voices import Voice


def kinds(events: list[Event]) -> list[str]:
    return [event.type for event in events]


def test_a_miss_and_a_hit(voice: Voice, cache: Any, events: list[Event]):
    """A hit emits step_cache_hit alone."""
    flow = create_workflow("shop", cache=cache, on_event=events.append)
    body = stepping("charge", lambda: 1, key="order:7")
    voice.run(flow, body)
    assert kinds(events) == [
        "workflow_start",
        "step_cache_miss",
        "step_start",
        "step_success",
        "workflow_success",
    ]
    events.clear()
    voice.run(flow, body)
    assert kinds(events) == ["workflow_start", "step_cache_hit", "workflow_success"]


def test_events_say_what_when_and_how_long(voice: Voice, events: list[Event]):
    """Frozen, with workflow, run id, label, key, time and duration."""
    before = datetime.now(UTC)
    flow = create_workflow("shop", cache={}, on_event=events.append)
    voice.run(flow, stepping("charge", lambda: 1, key="order:7"))
    success = events[3]
    assert (success.workflow, success.label, success.key, success.attempt) == ("shop", "charge", "order:7", 1)
    assert before <= success.time <= datetime.now(UTC)
    assert success.duration is not None
    assert success.duration >= 0
    assert len({event.run_id for event in events}) == 1
    assert events[-1].duration >= success.duration
    with pytest.raises(dataclasses.FrozenInstanceError):
        success.label = "other"  # type: ignore[misc]
    voice.run(flow, stepping("charge", lambda: 1, key="order:7"))
    assert events[-2].duration == success.duration


def test_failures_and_retries(voice: Voice, events: list[Event]):
    """Each attempt that is tried again is told, then what came of the last one."""
    flow = create_workflow("shop", cache={}, on_event=events.append)
    body = stepping("charge", Calls(ValueError("no"), raises=True), key="a", retry=Retry(3, wait=0))
    voice.run(flow, body)
    told = [(event.type, event.attempt) for event in events[2:-1]]
    assert told == [("step_start", 1), ("step_retry", 1), ("step_retry", 2), ("step_error", 3)]
    assert str(events[-1].error) == str(events[-2].error) == "no"
    assert events[-1].type == "workflow_error"
    events.clear()
    voice.run(flow, body)
    assert kinds(events) == ["workflow_start", "step_cache_hit", "workflow_error"]
    assert str(events[1].error) == "no"
    assert [event.ok for event in events] == [True, False, False]


def test_steps_without_a_key_have_no_cache_events(voice: Voice, events: list[Event]):
    """Only that they ran, and what came of it."""
    flow = create_workflow("shop", cache={}, on_event=events.append)
    voice.run(flow, stepping("a", lambda: Err("NO")))
    assert kinds(events[1:-1]) == ["step_start", "step_error"]
    assert events[2].error == "NO"


def test_a_map_tells_of_each_item(voice: Voice, events: list[Event]):
    """With its own key."""
    flow = create_workflow("shop", cache={"1": Ok(1)}, on_event=events.append)
    voice.run(flow, stepping("a", [1, 2], lambda item: item, key=str, method="map", limit=1))
    assert [(event.type, event.key) for event in events[1:-1]] == [
        ("step_cache_hit", "1"),
        ("step_cache_miss", "2"),
        ("step_start", "2"),
        ("step_success", "2"),
    ]


def test_a_damaged_entry_counts_as_missing_and_is_reported(voice: Voice, events: list[Event], caplog):
    """As an event and in the log; it is replaced."""
    flow = create_workflow("shop", cache={"a": 5}, on_event=events.append)
    with caplog.at_level(logging.WARNING, "stepflows"):
        assert voice.run(flow, stepping("a", lambda: 1, key="a")) == Ok(1)
    assert kinds(events[1:-1]) == ["step_cache_corrupt", "step_cache_miss", "step_start", "step_success"]
    assert "counts as missing" in caplog.text
    assert flow.cache == {"a": Ok(1)}


def test_a_result_that_cannot_be_stored_is_kept_for_the_run_and_reported(voice: Voice, events: list[Event], caplog):
    """The step has run, so its value stands, in this run at least."""
    work = Calls(1)

    def body(step, deps):
        first = yield step("a", work, key="a")
        second = yield step("a", work, key="a")
        third = yield step.map("a", ["a"], work, key=str)
        return first, second, third

    flow = create_workflow("shop", cache=BrokenMap("set"), on_event=events.append)
    with caplog.at_level(logging.ERROR, "stepflows"):
        assert voice.run(flow, body) == Ok((1, 1, [1]))
    assert work.count == 1
    assert "step_cache_write_failed" in kinds(events)
    assert "could not be stored" in caplog.text


def test_the_signal_gets_the_same_events(voice: Voice, events: list[Event]):
    """From every workflow of the process."""
    signalled: list[Event] = []

    def receiver(sender, event, **kwargs):
        assert sender is Workflow
        signalled.append(event)

    step_event.connect(receiver)
    try:
        voice.run(create_workflow("shop", on_event=events.append), stepping("a", lambda: 1))
    finally:
        step_event.disconnect(receiver)
    assert signalled == events != []


def test_an_async_receiver_of_the_signal_is_awaited(voice: Voice):
    """In both voices, as Django does."""
    signalled: list[str] = []

    async def receiver(sender, event, **kwargs):
        await asyncio.sleep(0)
        signalled.append(event.type)

    step_event.connect(receiver)
    try:
        voice.run(create_workflow("shop"), stepping("a", lambda: 1))
    finally:
        step_event.disconnect(receiver)
    assert signalled == ["workflow_start", "step_start", "step_success", "workflow_success"]


def test_an_async_listener_is_awaited(voice: Voice, events: list[Event]):
    """In both voices."""

    async def listener(event):
        await asyncio.sleep(0)
        events.append(event)

    voice.run(create_workflow("shop", on_event=listener), stepping("a", lambda: 1))
    assert len(events) == 4


def test_a_listener_that_raises_is_logged_and_changes_nothing(voice: Voice, caplog):
    """Nothing runs twice for it, and the others are told."""

    def broken(sender=None, event=None, **kwargs):
        raise ZeroDivisionError("listener")

    work = Calls(1)
    flow = create_workflow("shop", cache={}, on_event=broken)
    step_event.connect(broken)
    try:
        with caplog.at_level(logging.ERROR, "stepflows"):
            assert voice.run(flow, stepping("a", work, key="a")) == Ok(1)
    finally:
        step_event.disconnect(broken)
    assert work.count == 1
    ours = [record for record in caplog.records if record.name == "stepflows"]
    assert len(ours) == 2 * 5
    assert all(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in ours)


def test_a_time_limit_that_strikes_in_a_listener_is_not_swallowed(voice: Voice):
    """It is the worker's, and not the listener's own failure."""

    def listener(sender=None, event=None, **kwargs):
        if (event or sender).type == "step_start":
            raise SoftTimeLimitExceeded

    body = stepping("a", lambda: 1)
    assert isinstance(voice.run(create_workflow("shop", on_event=listener), body).error, SoftTimeLimitExceeded)
    step_event.connect(listener)
    try:
        assert isinstance(voice.run(create_workflow("shop"), body).error, SoftTimeLimitExceeded)
    finally:
        step_event.disconnect(listener)


def test_a_value_that_cannot_be_kept_is_reported(voice: Voice, events: list[Event]):
    """The step has run, and yet it failed."""
    flow = create_workflow("shop", cache="locmem", on_event=events.append)
    voice.run(flow, stepping("a", lambda: object(), key="a"))
    assert kinds(events)[-2:] == ["step_cache_write_failed", "workflow_error"]


def test_sync_bodies_under_arun_tell_the_same(events: list[Event]):
    """Steps are told from the body's thread, the run from the loop."""
    signalled: list[Event] = []

    def receiver(sender, event, **kwargs):
        signalled.append(event)

    flow = create_workflow("shop", cache={}, on_event=events.append)
    step_event.connect(receiver)
    try:
        asyncio.run(flow.arun(lambda step, deps: step("a", lambda: 1, key="a")))
    finally:
        step_event.disconnect(receiver)
    assert kinds(events) == [
        "workflow_start",
        "step_cache_miss",
        "step_start",
        "step_success",
        "workflow_success",
    ]
    assert signalled == events


def test_every_type_of_event_is_declared(voice: Voice):
    """So that a listener can be written against the list."""
    assert "step_cache_write_failed" in EVENT_TYPES
    assert len(EVENT_TYPES) == len(set(EVENT_TYPES)) == 12


def test_the_engine_needs_no_django_settings():
    """An engine test is a test without Django's set-up."""
    program = (
        "from stepflows.engine import plan; from stepflows.engine.context import RunContext;"
        "from stepflows.engine.drivers import Driver; from stepflows.caches.mapping import MappingCache;"
        "from stepflows.engine.steps import Step; import django.conf;"
        "run = RunContext('w'); driver = Driver(MappingCache({}));"
        "assert Step(run, driver)('a', lambda: 5, key='a') == 5; assert not django.conf.settings.configured"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={})


@pytest.mark.parametrize("control", [SystemExit, asyncio.CancelledError])
def test_who_was_told_of_a_start_is_told_of_the_end(voice: Voice, events: list[Event], control):
    """Also where it is no failure, but an exit or a cancellation."""
    flow = create_workflow("shop", cache={}, on_event=events.append)
    with pytest.raises(control):
        voice.run(flow, stepping("a", Calls(control, raises=True), key="a"))
    assert kinds(events) == ["workflow_start", "step_cache_miss", "step_start", "step_error", "workflow_error"]
    assert all(isinstance(event.error, control) for event in events[-2:])
