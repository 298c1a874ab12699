"""The faster encoder says exactly what the exporter's own says."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from backend import span_encoder
from backend.telemetry import KeepOneIn

PARENT = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "ot=th:8,a=b"}
VALUES: list[Any] = [
    "", "GET", "é" * 300, "\0", True, False, 1, 0, -1, 2**63 - 1, -(2**63), 0.0, -0.0, 1.0, math.inf, 5e-324,
    ["a", "b"], [1, 2], [], None, b"\xff", {"nested": [1, {"deeper": "x"}]},
]  # fmt: skip


def made(make: Callable[[Tracer], None], limits: SpanLimits | None = None) -> list[ReadableSpan]:
    """The spans that `make` makes with a tracer."""
    finished = InMemorySpanExporter()
    provider = TracerProvider(KeepOneIn(1), span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(finished))
    make(provider.get_tracer("one", "1.0", attributes={"of": "scope"}))
    make(provider.get_tracer("two", schema_url="https://opentelemetry.io/schemas/1.37.0"))
    return list(finished.get_finished_spans())


def usual(tracer: Tracer) -> None:
    for number in range(3):
        with tracer.start_as_current_span(f"span {number}", kind=SpanKind.SERVER) as span:
            span.set_attributes({"http.route": "/api", "port": 4567, "yes": True, "took": 1.5, "app.now": str(number)})
            with tracer.start_as_current_span("child", kind=SpanKind.CLIENT):
                pass


def of_every_value(tracer: Tracer) -> None:
    chance = random.Random(4567)
    for kind in SpanKind:
        for value in [*VALUES, *VALUES]:
            with tracer.start_as_current_span("span", kind=kind) as span:
                span.set_attribute("same name", value)
                span.set_attributes({f"name {n}": chance.choice(VALUES) for n in range(chance.randrange(4))})


def of_a_remote_parent(tracer: Tracer) -> None:
    parent = TraceContextTextMapPropagator().extract(PARENT)
    for _ in range(3):
        span = tracer.start_span("span", parent)
        tracer.start_span("child", set_span_in_context(span)).end()
        span.end()


def rare(tracer: Tracer) -> None:
    for status in StatusCode:
        with tracer.start_as_current_span("span") as span:
            span.set_status(status, "why" if status is StatusCode.ERROR else None)
            span.add_event("event", {"a": 1})
    with tracer.start_as_current_span("linked", links=[Link(span.get_span_context(), {"a": 1})]) as other:
        other.add_link(span.get_span_context())
        other.record_exception(ValueError("wrong"))


@pytest.mark.parametrize("make", [usual, of_every_value, of_a_remote_parent, rare])
@pytest.mark.parametrize("limits", [None, SpanLimits(max_span_attributes=2, max_events=0, max_links=0)])
def test_both_encoders_make_the_same_of_every_span(make: Callable[[Tracer], None], limits: SpanLimits | None) -> None:
    spans = made(make, limits)
    random.Random(4567).shuffle(spans)
    for _ in range(2):  # the second time by what was kept
        assert span_encoder.encode(spans) == encode_spans(spans)


def test_the_usual_span_takes_the_faster_way() -> None:
    assert all(span_encoder.usual(span) for span in made(usual) if span.name != "child")
    assert all(span_encoder.usual(span) is None for span in made(rare))


def test_long_values_and_floats_are_not_kept() -> None:
    span_encoder.kept.cache_clear()
    for value in ("x" * 1000, 1.5):
        span_encoder.attribute("a", value)
    assert span_encoder.kept.cache_info().currsize == 0


@pytest.mark.parametrize("value", ["\ud800", 2**64])
def test_what_cannot_be_sent_is_left_out_as_ever(value: Any) -> None:
    def make(tracer: Tracer) -> None:
        for _ in range(2):
            with tracer.start_as_current_span("span") as span:
                span.set_attributes({"kept": 1, "not": value})

    for spans in [encode(made(make)) for encode in (span_encoder.encode, encode_spans)]:
        for scope in spans.resource_spans[0].scope_spans:
            assert [[attribute.key for attribute in span.attributes] for span in scope.spans] == [["kept"]] * 2
