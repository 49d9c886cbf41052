"""OpenTelemetry spans for runs and steps, with the extra ``stepflows[otel]``.

A run is a span named after its workflow, each step one named after its label; what a step's function traces itself lies
inside. A step out of the cache is a span without length. Nothing is configured here: the spans go wherever the project
sends its others.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Any, NamedTuple

from opentelemetry import context, trace

from stepflows.engine.events import Event, Listener

__all__ = ["listen", "tracer"]

_ENDS = ("workflow_success", "workflow_error", "step_success", "step_error")

_tracer = trace.get_tracer("stepflows")


class _Open(NamedTuple):
    """A span that has not ended, and what it is of."""

    subject: tuple[str | None, str | None]
    span: trace.Span
    token: Token[Any]


_open: ContextVar[tuple[_Open, ...]] = ContextVar("stepflows_open_spans", default=())


def listen(event: Event) -> None:
    """Start and end spans. A start and its end come in one context, so nesting is that of the steps themselves."""
    if event.type in ("workflow_start", "step_start"):
        _start(event)
    elif event.type in _ENDS or event.type == "step_cache_hit":
        if event.type == "step_cache_hit" or not _is_open(event):
            _start(event)
        _end(event)
    else:
        trace.get_current_span().add_event(event.type, _attributes(event))


def tracer() -> Listener | None:
    """The listener, if the project sends spans anywhere at all."""
    return None if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider) else listen


def _is_open(event: Event) -> bool:
    spans = _open.get()
    return bool(spans) and spans[-1].subject == (event.label, event.key)


def _start(event: Event) -> None:
    span = _tracer.start_span(event.label or event.workflow, attributes=_attributes(event))
    token = context.attach(trace.set_span_in_context(span))
    _open.set((*_open.get(), _Open((event.label, event.key), span, token)))


def _end(event: Event) -> None:
    *outer, (_, span, token) = _open.get()
    _open.set(tuple(outer))
    context.detach(token)
    span.set_attribute("stepflows.cached", event.type == "step_cache_hit")
    if not event.ok:
        span.set_status(trace.StatusCode.ERROR, str(event.error))
        if isinstance(event.error, BaseException):
            span.record_exception(event.error)
    span.end()


def _attributes(event: Event) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "stepflows.workflow": event.workflow,
        "stepflows.run_id": event.run_id,
        "stepflows.attempt": event.attempt,
    }
    if event.label is not None:
        attributes["stepflows.label"] = event.label
    if event.key is not None:
        attributes["stepflows.key"] = event.key
    return attributes
