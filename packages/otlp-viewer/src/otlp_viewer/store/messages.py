"""Makes the model's objects of the records that are kept."""

from functools import lru_cache
from typing import TypeVar

from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otlp_viewer.model import Attributes, Log, Scope, Span, SpanEvent, SpanLink
from otlp_viewer.receive.repair import repair
from otlp_viewer.store.values import any_value, attributes

M = TypeVar("M", bound=Message)

KINDS = ("internal", "internal", "server", "client", "producer", "consumer")


def as_span(row: int, record: bytes, service: str, resource: bytes, scope: bytes) -> Span:
    span = _read(record, SpanMessage)
    return Span(
        row=row,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() if any(span.parent_span_id) else None,
        name=span.name,
        service=service,
        kind=KINDS[span.kind] if 0 <= span.kind < len(KINDS) else "internal",
        start_ns=span.start_time_unix_nano,
        duration_ms=max(span.end_time_unix_nano - span.start_time_unix_nano, 0) / 1e6,
        status_code=span.status.code if span.status.code in (1, 2) else 0,
        status_message=span.status.message,
        attributes=attributes(span.attributes),
        resource=_resource(resource),
        scope=_scope(scope),
        events=[
            SpanEvent(one.name, one.time_unix_nano, attributes(one.attributes), one.dropped_attributes_count)
            for one in span.events
        ],
        links=[
            SpanLink(
                one.trace_id.hex(),
                one.span_id.hex(),
                attributes(one.attributes),
                one.trace_state,
                one.dropped_attributes_count,
            )
            for one in span.links
        ],
        trace_state=span.trace_state,
        dropped_attributes=span.dropped_attributes_count,
        dropped_events=span.dropped_events_count,
        dropped_links=span.dropped_links_count,
    )


def as_log(
    row: int,
    record: bytes,
    service: str,
    resource: bytes,
    scope: bytes,
    time_ns: int,
    severity_number: int,
    trace_id: str | None,
    span_id: str | None,
) -> Log:
    log = _read(record, LogRecord)
    return Log(
        row=row,
        time_ns=time_ns,
        severity_number=severity_number,
        severity_text=log.severity_text,
        body=any_value(log.body),
        event_name=log.event_name,
        trace_id=trace_id,
        span_id=span_id,
        service=service,
        attributes=attributes(log.attributes),
        resource=_resource(resource),
        scope=_scope(scope),
        dropped_attributes=log.dropped_attributes_count,
    )


def _read(record: bytes, kind: type[M]) -> M:
    message: M = kind()
    try:
        message.ParseFromString(record)
    except DecodeError:  # a value is nested just too deeply
        message.ParseFromString(repair(record, kind.DESCRIPTOR))
    return message


@lru_cache(256)
def _resource(message: bytes) -> Attributes:
    return attributes(Resource.FromString(message).attributes)


@lru_cache(256)
def _scope(message: bytes) -> Scope:
    scope = InstrumentationScope.FromString(message)
    return Scope(scope.name, scope.version, attributes(scope.attributes))
