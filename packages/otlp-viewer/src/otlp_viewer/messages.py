"""Stored spans and log records. Most properties are decoded from the message on access, the large ones once."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from otlp_viewer.receive import wire
from otlp_viewer.values import Value, any_value, attributes

KINDS = ("internal", "internal", "server", "client", "producer", "consumer")

Attributes = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Scope:
    """The instrumentation scope of a span or log record."""

    name: str = ""
    version: str = ""
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpanEvent:
    name: str
    time_ns: int
    attributes: Attributes
    dropped_attributes: int = 0


@dataclass(frozen=True, slots=True)
class SpanLink:
    trace_id: str
    span_id: str
    attributes: Attributes
    trace_state: str = ""
    dropped_attributes: int = 0


class Record:
    """A span or log record. Not a dataclass, because those take longer to create, and a trace may have 10,000 spans."""

    def __init__(self, row: int, message: Any, service: str, resource: bytes, scope: bytes) -> None:
        self.row = row
        """Its number in the store, which never changes and distinguishes spans with the same ID."""
        self.message = message
        """A wire.Span or wire.Log."""
        self.service = service
        self.resource_message = resource
        self.scope_message = scope

    @cached_property
    def attributes(self) -> Attributes:
        """Those of the record itself, as they were sent."""
        return dict(map(decode_attribute, self.message.attributes))

    @property
    def dropped_attributes(self) -> int:
        return int(self.message.dropped_attributes)

    @cached_property
    def resource(self) -> Attributes:
        return decode_resource(self.resource_message)

    @cached_property
    def scope(self) -> Scope:
        return decode_scope(self.scope_message)


class Span(Record):
    def __init__(self, row: int, record: bytes, service: str, resource: bytes, scope: bytes) -> None:
        super().__init__(row, wire.Span.FromString(record), service, resource, scope)

    @property
    def trace_id(self) -> str:
        return str(self.message.trace_id.hex())

    @property
    def span_id(self) -> str:
        return str(self.message.span_id.hex())

    @property
    def parent_id(self) -> str | None:
        parent = self.message.parent_span_id
        return parent.hex() if any(parent) else None

    @property
    def name(self) -> str:
        return str(self.message.name)

    @property
    def kind(self) -> str:
        """internal, server, client, producer or consumer."""
        kind = self.message.kind
        return KINDS[kind] if 0 <= kind < len(KINDS) else "internal"

    @property
    def start_ns(self) -> int:
        return int(self.message.start)

    @property
    def duration_ms(self) -> float:
        return float(max(self.message.end - self.message.start, 0) / 1e6)

    @property
    def status(self) -> tuple[int, str]:
        """The code (0 unset, 1 ok, 2 error) and the message."""
        if not self.message.status:
            return 0, ""
        status = Status.FromString(self.message.status)
        return status.code if status.code in (1, 2) else 0, status.message

    @property
    def status_message(self) -> str:
        return self.status[1]

    @property
    def error(self) -> bool:
        return self.status[0] == 2

    @property
    def trace_state(self) -> str:
        return str(self.message.trace_state)

    @cached_property
    def events(self) -> list[SpanEvent]:
        return [
            SpanEvent(event.name, event.time_unix_nano, attributes(event.attributes), event.dropped_attributes_count)
            for event in map(SpanMessage.Event.FromString, self.message.events)
        ]

    @property
    def dropped_events(self) -> int:
        return int(self.message.dropped_events)

    @cached_property
    def links(self) -> list[SpanLink]:
        return [
            SpanLink(
                link.trace_id.hex(),
                link.span_id.hex(),
                attributes(link.attributes),
                link.trace_state,
                link.dropped_attributes_count,
            )
            for link in map(SpanMessage.Link.FromString, self.message.links)
        ]

    @property
    def dropped_links(self) -> int:
        return int(self.message.dropped_links)


class Log(Record):
    def __init__(
        self,
        row: int,
        record: bytes,
        service: str,
        resource: bytes,
        scope: bytes,
        time_ns: int,
        severity_number: int,
        trace_id: str | None,
        span_id: str | None,
    ) -> None:
        super().__init__(row, wire.Log.FromString(record), service, resource, scope)
        self.time_ns = time_ns
        """When it happened, or else was observed, or else was received."""
        self.severity_number = severity_number
        """0 if none was sent and it does not follow from the text."""
        self.trace_id = trace_id
        self.span_id = span_id

    @property
    def severity_text(self) -> str:
        return str(self.message.severity_text)

    @cached_property
    def body(self) -> Value:
        return any_value(AnyValue.FromString(self.message.body))

    @property
    def event_name(self) -> str:
        return str(self.message.event_name)


def decode_attribute(message: bytes) -> tuple[str, Value]:
    """Return the name and value of an encoded KeyValue."""
    pair = KeyValue.FromString(message)
    return pair.key, any_value(pair.value)


def decode_resource(message: bytes) -> Attributes:
    return attributes(Resource.FromString(message).attributes)


def decode_scope(message: bytes) -> Scope:
    scope = InstrumentationScope.FromString(message)
    return Scope(scope.name, scope.version, attributes(scope.attributes))
