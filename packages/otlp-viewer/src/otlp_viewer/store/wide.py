"""Makes wide events with Honeycomb's field names of OTLP's messages, and the model's objects of those."""

import base64
import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otlp_viewer.model import Log, Scope, Span, SpanEvent, SpanLink

Event = dict[str, Any]
KINDS = ("internal", "internal", "server", "client", "producer", "consumer")
# Never taken from an attribute, not even where the event itself has no such field.
RESERVED = ("trace.trace_id", "trace.span_id", "trace.parent_id", "status_message")
# Kept for the model's objects alone.
PARTS = ("~own", "~resource", "~scope")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def spans(messages: Iterable[ResourceSpans]) -> tuple[list[Event], int]:
    """Return a wide event for each span, and how many spans were refused for their ids."""
    events, refused = [], 0
    for resource_spans in messages:
        resource = attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                if _valid(span.trace_id, 16) and _valid(span.span_id, 8) and len(span.parent_span_id) in (0, 8):
                    events.append(_span_event(span, scope_spans.scope, resource))
                else:
                    refused += 1
    return events, refused


def logs(messages: Iterable[ResourceLogs]) -> list[Event]:
    """Return a wide event for each log record; ids that are no ids are left out."""
    events = []
    for resource_logs in messages:
        resource = attributes(resource_logs.resource.attributes)
        for scope_logs in resource_logs.scope_logs:
            for log in scope_logs.log_records:
                event = {
                    "time": timestamp(log.time_unix_nano or log.observed_time_unix_nano),
                    "severity_text": log.severity_text,
                    "severity_number": log.severity_number,
                    "body": any_value(log.body),
                }
                if _valid(log.trace_id, 16):
                    event["trace.trace_id"] = log.trace_id.hex()
                    if _valid(log.span_id, 8):
                        event["trace.span_id"] = log.span_id.hex()
                events.append(_wide(event, scope_logs.scope, resource, log.attributes))
    return events


def attributes(pairs: Iterable[KeyValue]) -> Event:
    return {pair.key: any_value(pair.value) for pair in pairs}


def any_value(value: AnyValue) -> Any:
    """Return an AnyValue as JSON has it: bytes as base64, NaN and infinities as their names.

    The recursion is bounded: protobuf decodes at most 100 nested messages.
    """
    match value.WhichOneof("value"):
        case "array_value":
            return [any_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return attributes(value.kvlist_value.values)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value" if not math.isfinite(value.double_value):
            return str(value.double_value)
        case None:
            return None
        case kind:
            return getattr(value, kind)


def timestamp(nanoseconds: int) -> str:
    """Return nanoseconds since 1970 as ISO 8601 in UTC, always with microseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06}Z"


def _span_event(span: SpanMessage, scope: InstrumentationScope, resource: Event) -> Event:
    event = {
        "time": timestamp(span.start_time_unix_nano),
        "name": span.name,
        "duration_ms": max(span.end_time_unix_nano - span.start_time_unix_nano, 0) / 1e6,
        "trace.trace_id": span.trace_id.hex(),
        "trace.span_id": span.span_id.hex(),
        "span.kind": KINDS[span.kind] if 0 <= span.kind < len(KINDS) else "internal",
        "status_code": span.status.code,
        "error": span.status.code == span.status.STATUS_CODE_ERROR,
        "events": [
            {
                "name": happened.name,
                "time": timestamp(happened.time_unix_nano),
                "attributes": attributes(happened.attributes),
            }
            for happened in span.events
        ],
        "links": [
            {
                "trace_id": link.trace_id.hex(),
                "span_id": link.span_id.hex(),
                "attributes": attributes(link.attributes),
            }
            for link in span.links
        ],
    }
    if any(span.parent_span_id):
        event["trace.parent_id"] = span.parent_span_id.hex()
    if span.status.message:
        event["status_message"] = span.status.message
    return _wide(event, scope, resource, span.attributes)


def _wide(event: Event, scope: InstrumentationScope, resource: Event, own: Iterable[KeyValue]) -> Event:
    """Return the event with all attributes beside it; where names clash, the event's own win."""
    mine = attributes(own)
    beside = resource | mine
    for name in RESERVED:
        beside.pop(name, None)
    event["service.name"] = str(resource.get("service.name") or "unknown_service")
    event["library.name"] = scope.name
    event["library.version"] = scope.version
    event |= {"~own": mine, "~resource": resource, "~scope": [scope.name, scope.version, attributes(scope.attributes)]}
    return event | {name: value for name, value in beside.items() if name not in event}


def _valid(span_or_trace_id: bytes, length: int) -> bool:
    return len(span_or_trace_id) == length and any(span_or_trace_id)


def as_span(row: int, event: Event) -> Span:
    return Span(
        row,
        event["trace.trace_id"],
        event["trace.span_id"],
        event.get("trace.parent_id"),
        event["name"],
        event["service.name"],
        event["span.kind"],
        nanoseconds(event["time"]),
        event["duration_ms"],
        event["status_code"],
        event.get("status_message", ""),
        event["~own"],
        event["~resource"],
        Scope(*event["~scope"]),
        [SpanEvent(one["name"], nanoseconds(one["time"]), one["attributes"]) for one in event["events"]],
        [SpanLink(one["trace_id"], one["span_id"], one["attributes"]) for one in event["links"]],
    )


def as_log(row: int, event: Event) -> Log:
    return Log(
        row,
        nanoseconds(event["time"]),
        event["severity_number"],
        event["severity_text"],
        event["body"],
        "",
        event.get("trace.trace_id"),
        event.get("trace.span_id"),
        event["service.name"],
        event["~own"],
        event["~resource"],
        Scope(*event["~scope"]),
    )


def nanoseconds(time: str) -> int:
    return (datetime.fromisoformat(time) - EPOCH) // timedelta(microseconds=1) * 1000
