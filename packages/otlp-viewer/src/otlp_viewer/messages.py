"""Spans and log records as they are stored: what is asked of one is read from its message then."""

from dataclasses import dataclass, field
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
    """The instrumentation scope that made a span or a log record."""

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
    """What spans and log records have in common. Plain, for a trace may have ten thousand of them."""

    __slots__ = ("message", "resource_message", "row", "scope_message", "service")

    def __init__(self, row: int, message: Any, service: str, resource: bytes, scope: bytes) -> None:
        self.row = row
        """Its number in the store; tells apart different spans of one id, and stays the same while it is stored."""
        self.message = message
        """A wire.Span or wire.Log."""
        self.service = service
        self.resource_message = resource
        self.scope_message = scope

    @property
    def attributes(self) -> Attributes:
        """Its own, as they were sent."""
        return dict(map(read_attribute, self.message.attributes))

    @property
    def dropped_attributes(self) -> int:
        return int(self.message.dropped_attributes)

    @property
    def resource(self) -> Attributes:
        return read_resource(self.resource_message)

    @property
    def scope(self) -> Scope:
        return read_scope(self.scope_message)


class Span(Record):
    __slots__ = ()

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
        """0 unset, 1 ok, 2 error; and a message."""
        if not self.message.status:
            return 0, ""
        status = Status.FromString(self.message.status)
        return status.code if status.code in (1, 2) else 0, status.message

    @property
    def status_code(self) -> int:
        return self.status[0]

    @property
    def status_message(self) -> str:
        return self.status[1]

    @property
    def error(self) -> bool:
        return self.status_code == 2

    @property
    def trace_state(self) -> str:
        return str(self.message.trace_state)

    @property
    def events(self) -> list[SpanEvent]:
        return [
            SpanEvent(one.name, one.time_unix_nano, attributes(one.attributes), one.dropped_attributes_count)
            for one in map(SpanMessage.Event.FromString, self.message.events)
        ]

    @property
    def dropped_events(self) -> int:
        return int(self.message.dropped_events)

    @property
    def links(self) -> list[SpanLink]:
        return [
            SpanLink(
                one.trace_id.hex(),
                one.span_id.hex(),
                attributes(one.attributes),
                one.trace_state,
                one.dropped_attributes_count,
            )
            for one in map(SpanMessage.Link.FromString, self.message.links)
        ]

    @property
    def dropped_links(self) -> int:
        return int(self.message.dropped_links)


class Log(Record):
    __slots__ = ("severity_number", "span_id", "time_ns", "trace_id")

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
        """When it happened, else when it was observed, else when it came here."""
        self.severity_number = severity_number
        """0 where none was sent and the text names none."""
        self.trace_id = trace_id
        self.span_id = span_id

    @property
    def severity_text(self) -> str:
        return str(self.message.severity_text)

    @property
    def body(self) -> Value:
        return any_value(AnyValue.FromString(self.message.body))

    @property
    def event_name(self) -> str:
        return str(self.message.event_name)


def read_attribute(message: bytes) -> tuple[str, Value]:
    """Return the name and the value of a KeyValue."""
    pair = KeyValue.FromString(message)
    return pair.key, any_value(pair.value)


def read_resource(message: bytes) -> Attributes:
    return attributes(Resource.FromString(message).attributes)


def read_scope(message: bytes) -> Scope:
    scope = InstrumentationScope.FromString(message)
    return Scope(scope.name, scope.version, attributes(scope.attributes))
