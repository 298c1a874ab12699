"""Makes the model's objects of the records that are stored."""

from collections.abc import Iterable
from functools import lru_cache

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from otlp_viewer.model import Attributes, Log, Scope, Span, SpanEvent, SpanLink, Value
from otlp_viewer.receive import wire
from otlp_viewer.store.values import any_value, attributes

KINDS = ("internal", "internal", "server", "client", "producer", "consumer")
LONGEST_CACHED = 256  # bytes of an attribute


def as_span(row: int, record: bytes, service: str, resource: bytes, scope: bytes) -> Span:
    span = wire.Span.FromString(record)
    status = Status.FromString(span.status)
    return Span(
        row=row,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() if any(span.parent_span_id) else None,
        name=span.name,
        service=service,
        kind=KINDS[span.kind] if 0 <= span.kind < len(KINDS) else "internal",
        start_ns=span.start,
        duration_ms=max(span.end - span.start, 0) / 1e6,
        status_code=status.code if status.code in (1, 2) else 0,
        status_message=status.message,
        attributes=_attributes(span.attributes),
        resource=_resource(resource),
        scope=_scope(scope),
        events=[
            SpanEvent(one.name, one.time_unix_nano, attributes(one.attributes), one.dropped_attributes_count)
            for one in map(SpanMessage.Event.FromString, span.events)
        ],
        links=[
            SpanLink(
                one.trace_id.hex(),
                one.span_id.hex(),
                attributes(one.attributes),
                one.trace_state,
                one.dropped_attributes_count,
            )
            for one in map(SpanMessage.Link.FromString, span.links)
        ],
        trace_state=span.trace_state,
        dropped_attributes=span.dropped_attributes,
        dropped_events=span.dropped_events,
        dropped_links=span.dropped_links,
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
    log = wire.Log.FromString(record)
    return Log(
        row=row,
        time_ns=time_ns,
        severity_number=severity_number,
        severity_text=log.severity_text,
        body=any_value(AnyValue.FromString(log.body)),
        event_name=log.event_name,
        trace_id=trace_id,
        span_id=span_id,
        service=service,
        attributes=_attributes(log.attributes),
        resource=_resource(resource),
        scope=_scope(scope),
        dropped_attributes=log.dropped_attributes,
    )


def _attributes(given: Iterable[bytes]) -> Attributes:
    given = list(given)
    short = max(map(len, given), default=0) <= LONGEST_CACHED
    return dict(map(_cached if short else _read, given))


def _read(attribute: bytes) -> tuple[str, Value]:
    pair = KeyValue.FromString(attribute)
    return pair.key, any_value(pair.value)


_cached = lru_cache(16_384)(_read)


@lru_cache(256)
def _resource(message: bytes) -> Attributes:
    return attributes(Resource.FromString(message).attributes)


@lru_cache(256)
def _scope(message: bytes) -> Scope:
    scope = InstrumentationScope.FromString(message)
    return Scope(scope.name, scope.version, attributes(scope.attributes))
