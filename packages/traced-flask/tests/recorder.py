"""A tracer provider that records spans, with helpers for tests."""

from __future__ import annotations

import time
from typing import Any

import flask
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext
from traced_flask.flask import FlaskInstrumentor


class Recorder:
    """Records the spans of applications. `options` are for the provider, such as a sampler."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    def app(self, config: dict[str, Any] | None = None, **arguments: Any) -> flask.Flask:
        """An instrumented application with the route `/hello/<name>`."""
        app = flask.Flask("shop")
        app.config.update(config or {})
        FlaskInstrumentor().instrument_app(app, tracer_provider=self.provider, **arguments)
        app.add_url_rule("/hello/<name>", "hello", lambda name: f"hello {name}")
        return app

    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in this order."""
        return list(self._exporter.get_finished_spans())

    def names(self) -> list[str]:
        """Return the names of the spans."""
        return [span.name for span in self.spans()]

    def only(self) -> ReadableSpan:
        """Return the only span that has ended."""
        (span,) = self.spans()
        return span

    def wait_for(self, count: int, seconds: float = 10) -> list[ReadableSpan]:
        """Wait for `count` spans; servers end some after the client has the response."""
        until = time.monotonic() + seconds
        while len(self.spans()) < count and time.monotonic() < until:
            time.sleep(0.01)
        assert len(self.spans()) == count, self.names()
        return self.spans()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """The attributes of a span; empty for none."""
    return dict(span.attributes or {})


def ids(span: ReadableSpan) -> SpanContext:
    """The ids of a span."""
    context = span.get_span_context()
    assert context
    return context


def events(span: ReadableSpan) -> list[tuple[str, Any]]:
    """The names of a span's events, with the types of exceptions."""
    return [(event.name, (event.attributes or {}).get("exception.type")) for event in span.events]
