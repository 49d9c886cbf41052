"""Spans as a collector would get them."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stepflows import Err, InvalidUse, Retry, create_workflow, otel
from tests.calls import Calls
from tests.maplikes import BrokenMap
from tests.voices import Async, Sync, Voice


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def voice(request: pytest.FixtureRequest) -> Voice:
    chosen: Voice = request.param()
    return chosen


@pytest.fixture
def spans(monkeypatch):
    """A list of finished spans, in the order in which they ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(otel, "_tracer", provider.get_tracer("stepflows"))
    yield exporter.get_finished_spans
    provider.shutdown()


def charging(step: Any, deps: Any) -> Any:
    return (yield step("charge", deps.charge, key="order:7", retry=Retry(2, wait=0)))


def test_runs_and_steps_are_spans_within_each_other(voice: Voice, spans):
    """With names, attributes, and what the step's function traces inside."""
    inner = []

    def charge():
        inner.append(trace.get_current_span().get_span_context().span_id)

    flow = create_workflow("shop", {"charge": charge}, cache={})
    voice.run(flow, charging)
    step, run = spans()
    assert (step.name, run.name) == ("charge", "shop")
    assert step.parent.span_id == run.context.span_id
    assert inner == [step.context.span_id]
    assert run.parent is None
    assert step.attributes["stepflows.key"] == "order:7"
    assert step.attributes["stepflows.cached"] is False
    assert step.attributes["stepflows.run_id"] == run.attributes["stepflows.run_id"]
    assert not trace.get_current_span().get_span_context().is_valid


def test_without_a_provider_nobody_listens():
    """The API alone is in many an environment, and must not make hits slower."""
    assert otel.tracer() is None


def test_a_hit_is_a_span_that_says_so(voice: Voice, spans):
    """It is told from an execution."""
    flow = create_workflow("shop", {"charge": lambda: 1}, cache={})
    voice.run(flow, charging)
    voice.run(flow, charging)
    hit = spans()[2]
    assert (hit.name, hit.attributes["stepflows.cached"]) == ("charge", True)


@pytest.mark.parametrize("failure", [ValueError("no"), Err("NO")], ids=repr)
def test_a_failure_is_an_error_with_its_retries(voice: Voice, spans, failure):
    """On the step and on the run."""
    work = Calls(failure, raises=isinstance(failure, Exception))
    voice.run(create_workflow("shop", {"charge": work}, cache={}), charging)
    step, run = spans()
    assert step.status.status_code == run.status.status_code == trace.StatusCode.ERROR
    events = [event.name for event in step.events]
    assert events == ["step_retry"] + ["exception"] * isinstance(failure, Exception)


def test_a_step_that_never_started_has_a_span(voice: Voice, spans):
    """The cache was away."""
    voice.run(create_workflow("shop", {"charge": Calls()}, cache=BrokenMap()), charging)
    assert [span.name for span in spans()] == ["charge", "shop"]


def test_wrong_use_leaves_no_span_open(voice: Voice, spans):
    """What follows in this thread is not inside of it."""
    flow = create_workflow("shop", {"charge": Calls(InvalidUse("x"), raises=True)}, cache={})
    with pytest.raises(InvalidUse):
        voice.run(flow, charging)
    assert [span.name for span in spans()] == ["charge", "shop"]
    assert not trace.get_current_span().get_span_context().is_valid


def test_steps_at_the_same_time_are_side_by_side(voice: Voice, spans):
    """In threads and in tasks."""

    def body(step, deps):
        yield step.map("double", range(5), lambda item: 2 * item, key=str)

    voice.run(create_workflow("shop", cache={}), body)
    *steps, run = spans()
    assert len(steps) == 5
    assert {span.parent.span_id for span in steps} == {run.context.span_id}
