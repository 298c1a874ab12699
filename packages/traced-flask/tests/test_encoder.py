"""The encoder makes what the SDK's own encoder makes, and loses less."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as stock_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from traced_flask.encoder import encode_logs, encode_spans, halves

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
plain = st.one_of(text, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
value = st.recursive(
    st.one_of(plain, st.none(), st.binary(max_size=9)),
    lambda each: st.one_of(st.lists(each, max_size=4), st.dictionaries(text, each, max_size=4)),
    max_leaves=8,
)
attributes = st.dictionaries(st.one_of(st.sampled_from(["http.route", "port"]), text), value, max_size=6)
number = st.one_of(st.just(0), st.integers(0, 2**32 - 1))
time = st.integers(0, 2**64 - 1)
context = st.builds(
    SpanContext,
    trace_id=st.integers(0, 2**128 - 1),
    span_id=st.integers(0, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.sampled_from([TraceFlags(0), TraceFlags(1)]),
    trace_state=st.sampled_from([None, TraceState(), TraceState([("ot", "th:8"), ("a", "b")])]),
)
RESOURCES = [Resource({"service.name": "one"}), Resource({"n": 1, "list": ["a"]}, "https://schema.example/1")]
SCOPES = [None, InstrumentationScope("a", "1", "https://schema.example/2", {"of": "scope"}), InstrumentationScope("b")]
about: dict[str, Any] = {"resource": st.sampled_from(RESOURCES), "instrumentation_scope": st.sampled_from(SCOPES)}
status = st.one_of(
    st.sampled_from([Status(), Status(StatusCode.OK)]), st.builds(Status, st.just(StatusCode.ERROR), text)
)


class AnySpan(ReadableSpan):
    """A span of which any number was dropped."""

    dropped: tuple[int, int, int] = (0, 0, 0)
    dropped_attributes = property(lambda self: self.dropped[0])
    dropped_events = property(lambda self: self.dropped[1])
    dropped_links = property(lambda self: self.dropped[2])


@st.composite
def spans(draw: st.DrawFn) -> ReadableSpan:
    span = AnySpan(
        name=draw(text),
        context=draw(context),
        parent=draw(st.one_of(st.none(), context)),
        attributes=draw(attributes),
        events=draw(st.lists(st.builds(Event, text, attributes, time), max_size=2)),
        links=draw(st.lists(st.builds(Link, context, attributes), max_size=2)),
        kind=draw(st.sampled_from(SpanKind)),
        status=draw(status),
        start_time=draw(st.one_of(st.none(), time)),
        end_time=draw(st.one_of(st.none(), time)),
        **{name: draw(of) for name, of in about.items()},
    )
    span.dropped = draw(st.tuples(number, number, number))
    return span


records = st.builds(
    ReadableLogRecord,
    st.builds(
        lambda around, **parts: LogRecord(context=None, **parts),
        st.none(),
        timestamp=st.one_of(st.none(), time),
        observed_timestamp=time,
        severity_text=st.one_of(st.none(), text),
        severity_number=st.one_of(st.none(), st.sampled_from(SeverityNumber)),
        body=value,
        attributes=attributes,
        event_name=st.one_of(st.none(), text),
    ),
    **about,
)
many = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@many
@given(st.lists(spans(), max_size=6))
def test_spans_are_encoded_as_by_the_sdk(of: list[ReadableSpan]) -> None:
    for _ in range(2):  # the second time from the cache
        encoded = encode_spans(of)
        assert ExportTraceServiceRequest.FromString(encoded.body) == stock_spans(of)
        assert (encoded.count, encoded.lost) == (len(of), 0)


def stock_logs(batch: Sequence[ReadableLogRecord]) -> ExportLogsServiceRequest:
    """The request that the SDK's own exporter, found as the SDK finds it, sends for these records."""
    bodies: list[bytes] = []

    class Receiver(requests.adapters.BaseAdapter):
        def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
            bodies.append(request.body or b"")
            response = requests.Response()
            response.status_code = 200
            return response

        def close(self) -> None:
            pass

    session = requests.Session()
    session.mount("http://", Receiver())
    (exporter,) = entry_points(group="opentelemetry_logs_exporter", name="otlp_proto_http")
    exporter.load()(session=session).export(batch)
    (body,) = bodies
    return ExportLogsServiceRequest.FromString(body)


@many
@given(st.lists(records, max_size=6))
def test_log_records_are_encoded_as_by_the_sdk(of: list[ReadableLogRecord]) -> None:
    encoded = encode_logs(of)
    assert ExportLogsServiceRequest.FromString(encoded.body) == stock_logs(of)
    assert (encoded.count, encoded.lost) == (len(of), 0)


def span(**parts: Any) -> ReadableSpan:
    given = {"name": "a", "context": SpanContext(1, 2, False), "resource": RESOURCES[0], "start_time": 1, "end_time": 2}
    return ReadableSpan(**{**given, **parts})


def decoded(of: Sequence[ReadableSpan]) -> list[Any]:
    request = ExportTraceServiceRequest.FromString(encode_spans(of).body)
    return [each for resource in request.resource_spans for scope in resource.scope_spans for each in scope.spans]


BAD, GOOD = "a\ud800\udfffb\udc80", "a\ufffd\ufffdb\ufffd"


def test_a_lone_surrogate_is_replaced_in_every_text_field() -> None:
    scope = InstrumentationScope(BAD, BAD, BAD, {BAD: BAD})
    of = span(
        name=BAD,
        attributes={BAD: BAD, "list": [BAD], "map": {BAD: BAD}, "long": BAD * 100},
        events=[Event(BAD, {BAD: BAD})],
        links=[Link(SpanContext(1, 2, False), {BAD: BAD})],
        status=Status(StatusCode.ERROR, BAD),
        resource=Resource({"service.name": BAD}, BAD),
        instrumentation_scope=scope,
    )
    log = ReadableLogRecord(
        LogRecord(body=BAD, severity_text=BAD, event_name=BAD, attributes={BAD: [BAD]}), of.resource, scope
    )
    request = ExportTraceServiceRequest.FromString(encode_spans([of]).body)
    logs = ExportLogsServiceRequest.FromString(encode_logs([log]).body)
    (encoded,) = request.resource_spans[0].scope_spans[0].spans
    assert (encoded.name, encoded.status.message, encoded.events[0].name) == (GOOD, GOOD, GOOD)
    assert [attribute.key for attribute in encoded.attributes] == [GOOD, "list", "map", "long"]
    assert encoded.attributes[2].value.kvlist_value.values[0].value.string_value == GOOD
    assert request.resource_spans[0].scope_spans[0].scope.name == GOOD
    assert logs.resource_logs[0].scope_logs[0].log_records[0].body.string_value == GOOD


@pytest.mark.parametrize("bad", [2**64, [1, 2**64], {"a": -(2**64)}])
def test_only_an_attribute_that_cannot_be_encoded_is_dropped_and_counted(
    bad: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (encoded,) = decoded([span(attributes={"kept": 1, "not": bad, "kept too": True})])
    assert [attribute.key for attribute in encoded.attributes] == ["kept", "kept too"]
    assert encoded.dropped_attributes_count == 1
    assert caplog.records == []  # the SDK logs a traceback for each


NOT_TEXT: Any = 5


@pytest.mark.parametrize(
    "bad",
    [
        {"name": NOT_TEXT},
        {"start_time": -1},
        {"kind": "server"},
        {"context": None},
        {"resource": "none"},
        {"instrumentation_scope": InstrumentationScope(NOT_TEXT)},
    ],
)
def test_only_a_span_that_cannot_be_encoded_is_lost_and_counted(bad: dict[str, Any]) -> None:
    encoded = encode_spans([span(name="first"), span(**bad), span(name="last")])
    assert (encoded.count, encoded.lost) == (2, 1)
    assert encoded.problem in {"TypeError", "AttributeError", "KeyError", "error"}
    assert [each.name for each in decoded([span(name="first"), span(**bad), span(name="last")])] == ["first", "last"]


def test_only_a_log_record_that_cannot_be_encoded_is_lost() -> None:
    bodies: list[Any] = ["a", object(), "b"]
    encoded = encode_logs([ReadableLogRecord(LogRecord(body=body), RESOURCES[0]) for body in bodies])
    assert (encoded.count, encoded.lost, encoded.problem) == (2, 1, "TypeError")


@given(st.lists(st.sampled_from([1, 50, 400, 2000]), max_size=12), st.sampled_from([0, 500, 1500]))
def test_a_size_limit_splits_items_over_several_requests(sizes: list[int], limit: int) -> None:
    of = [
        span(name="x" * size, resource=RESOURCES[size % 2], instrumentation_scope=SCOPES[n % 3])
        for n, size in enumerate(sizes)
    ]
    taken: list[str] = []
    while left := of[len(taken) :]:
        encoded = encode_spans(left, limit)
        assert encoded.count == 1 or len(encoded.body) <= limit
        taken += [each.name for each in decoded(left[: encoded.count])]
        assert ExportTraceServiceRequest.FromString(encoded.body) == stock_spans(left[: encoded.count])
    assert sorted(taken) == sorted("x" * size for size in sizes)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_halves_of_a_request_contain_all_items_in_order(count: int) -> None:
    of = [span(name=str(n), instrumentation_scope=SCOPES[n // 2 % 3], resource=RESOURCES[n // 5]) for n in range(count)]
    (first, few), (second, more) = halves("traces", encode_spans(of).body)
    assert (few, more) == (count // 2, count - count // 2)
    read: Callable[[bytes], list[str]] = lambda body: [  # noqa: E731
        each.name
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for each in scope.spans
    ]
    assert (len(read(first)), len(read(second))) == (few, more)
    assert read(first) + read(second) == [each.name for each in decoded(of)]
