"""Makes OTLP messages of wide events, and asks a store in Honeycomb's JSON."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span
from otlp_viewer import model
from otlp_viewer.receive.records import Records, from_protobuf
from otlp_viewer.store import AddResult, Store
from otlp_viewer.web import api

Event = Mapping[str, Any]
KINDS = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
FIELDS = (
    "time",
    "name",
    "duration_ms",
    "trace.trace_id",
    "trace.span_id",
    "trace.parent_id",
    "span.kind",
    "service.name",
    "error",
    "status_message",
    "events",
    "links",
    "body",
    "severity_number",
    "severity_text",
    "event.name",
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def any_value(value: Any) -> AnyValue:
    made = AnyValue()
    match value:
        case None:
            pass
        case bool():
            made.bool_value = value
        case int():
            made.int_value = value
        case float():
            made.double_value = value
        case str():
            made.string_value = value
        case bytes():
            made.bytes_value = value
        case list():
            made.array_value.values.extend(any_value(one) for one in value)
            made.array_value.SetInParent()
        case dict():
            made.kvlist_value.values.extend(attributes(value))
            made.kvlist_value.SetInParent()
        case _:
            raise TypeError(value)
    return made


def attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=name, value=any_value(value)) for name, value in values.items()]


def nanoseconds(time: str) -> int:
    return (datetime.fromisoformat(time) - EPOCH) // timedelta(microseconds=1) * 1000 if time else 0


def span_message(event: Event) -> Span:
    start = nanoseconds(event["time"])
    made = Span(
        name=event["name"],
        kind=KINDS[event.get("span.kind", "internal")],
        trace_id=bytes.fromhex(event["trace.trace_id"]),
        span_id=bytes.fromhex(event["trace.span_id"]),
        parent_span_id=bytes.fromhex(event.get("trace.parent_id", "")),
        start_time_unix_nano=start,
        end_time_unix_nano=min(start + round(event["duration_ms"] * 1e6), 2**64 - 1),
        attributes=attributes({name: value for name, value in event.items() if name not in FIELDS}),
    )
    if event.get("error"):
        made.status.code = made.status.STATUS_CODE_ERROR
    made.status.message = event.get("status_message", "")
    for one in event.get("events", ()):
        made.events.add(
            name=one["name"],
            time_unix_nano=nanoseconds(one.get("time", "")),
            attributes=attributes(one["attributes"]),
        )
    for one in event.get("links", ()):
        made.links.add(
            trace_id=bytes.fromhex(one["trace_id"]),
            span_id=bytes.fromhex(one["span_id"]),
            attributes=attributes(one["attributes"]),
        )
    return made


def resource(service: str) -> Resource:
    return Resource(attributes=attributes({"service.name": service}))


def resource_spans(events: Iterable[Event]) -> list[ResourceSpans]:
    """A resource for each run of events of one service, in order."""
    messages: list[ResourceSpans] = []
    service = None
    for event in events:
        if not messages or event["service.name"] != service:
            service = event["service.name"]
            messages.append(ResourceSpans(resource=resource(service)))
            messages[-1].scope_spans.add()
        messages[-1].scope_spans[0].spans.append(span_message(event))
    return messages


def log_message(event: Event) -> LogRecord:
    return LogRecord(
        time_unix_nano=nanoseconds(event["time"]),
        severity_number=event.get("severity_number", 0),
        severity_text=event.get("severity_text", ""),
        event_name=event.get("event.name", ""),
        trace_id=bytes.fromhex(event.get("trace.trace_id", "")),
        span_id=bytes.fromhex(event.get("trace.span_id", "")),
        attributes=attributes({name: value for name, value in event.items() if name not in FIELDS}),
        body=any_value(event.get("body")),
    )


def records(messages: Iterable[ResourceSpans]) -> list[Records]:
    return from_protobuf(ExportTraceServiceRequest(resource_spans=messages).SerializeToString())


def add(store: Store, events: Iterable[Event]) -> AddResult:
    return store.add_spans(records(resource_spans(events)))


def add_logs(store: Store, events: Iterable[Event]) -> AddResult:
    return store.add_logs(
        Records(
            resource(event.get("service.name", "backend")).SerializeToString(),
            b"",
            [log_message(event).SerializeToString()],
        )
        for event in events
    )


def ask(store: Store, specification: object, now: float | None = None) -> api.Json:
    """The answer to a query in Honeycomb's JSON, in Honeycomb's form."""
    return api.answer_json(store.query(store.parse(specification, now)))


def trace(store: Store, trace_id: str) -> api.Json | None:
    found = store.read_trace(trace_id)
    return json.loads("".join(api.stream(*found, store.trace_logs(trace_id)))) if found else None


def all_spans(store: Store, trace_id: str) -> list[model.Span]:
    """The spans of a trace that is stored, in tree order."""
    found = store.read_trace(trace_id)
    assert found
    return list(found[1])
