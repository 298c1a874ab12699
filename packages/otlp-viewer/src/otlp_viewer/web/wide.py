"""Encodes spans and log records as JSON: wide events with Honeycomb's field names.

Most attributes and origins repeat, so their JSON is cached.
"""

import json
from collections.abc import Collection
from datetime import UTC, datetime
from functools import lru_cache
from itertools import starmap

from otlp_viewer.messages import Log, Record, Span, SpanEvent, SpanLink, decode_attribute, decode_resource, decode_scope
from otlp_viewer.model import LOG_FIELDS, SPAN_FIELDS, column_name
from otlp_viewer.values import Value

MAX_CACHED = 16_384
MAX_CACHED_SIZE = 256  # bytes of an attribute

NAMES = frozenset(
    {*SPAN_FIELDS, *LOG_FIELDS, "time", "events", "links", "trace_state"}
    | {f"dropped_{what}_count" for what in ("attributes", "events", "links")}
)
"""All names of fields that are not attributes."""

encode = json.JSONEncoder(ensure_ascii=False).encode


def span_json(span: Span) -> str:
    """Encode a span's fields and its attributes, including those of its scope and resource.

    An attribute with the name of a field is renamed to attributes.<name>.
    """
    message = span.message
    code, description = span.status
    fields = (
        f'"time": "{iso(span.start_ns)}", "name": {encode(message.name)}, "duration_ms": {span.duration_ms!r},'
        f' "trace.trace_id": "{message.trace_id.hex()}", "trace.span_id": "{message.span_id.hex()}",'
        f' "span.kind": "{span.kind}", "status_code": {code}, "error": {"true" if code == 2 else "false"},'
        f' "events": {encode([*map(_event, span.events)]) if message.events else "[]"},'
        f' "links": {encode([*map(_link, span.links)]) if message.links else "[]"}'
    )
    if parent_id := span.parent_id:
        fields += f', "trace.parent_id": "{parent_id}"'
    if description:
        fields += f', "status_message": {encode(description)}'
    if trace_state := message.trace_state:
        fields += f', "trace_state": {encode(trace_state)}'
    if count := message.dropped_events:
        fields += f', "dropped_events_count": {count}'
    if count := message.dropped_links:
        fields += f', "dropped_links_count": {count}'
    return _wide(fields, span, SPAN_FIELDS)


def log_json(log: Log) -> str:
    """Encode a log record in the same way as a span."""
    fields = (
        f'"time": "{iso(log.time_ns)}", "severity_text": {encode(log.severity_text)},'
        f' "severity_number": {log.severity_number}, "body": {encode(log.body)}'
    )
    for name, value in (
        ("event.name", log.event_name),
        ("trace.trace_id", log.trace_id),
        ("trace.span_id", log.span_id),
    ):
        if value:
            fields += f', "{name}": {encode(value)}'
    return _wide(fields, log, LOG_FIELDS)


def _event(event: SpanEvent) -> dict[str, Value]:
    result = {"name": event.name, "time": iso(event.time_ns), "attributes": event.attributes}
    return result | ({"dropped_attributes_count": event.dropped_attributes} if event.dropped_attributes else {})


def _link(link: SpanLink) -> dict[str, Value]:
    result: dict[str, Value] = {"trace_id": link.trace_id, "span_id": link.span_id, "attributes": link.attributes}
    if link.trace_state:
        result["trace_state"] = link.trace_state
    return result | ({"dropped_attributes_count": link.dropped_attributes} if link.dropped_attributes else {})


def _wide(fields: str, record: Record, reserved: Collection[str]) -> str:
    """Add all attributes to the fields. Those of the record override the scope's, and the scope's the resource's."""
    origin_fields, origin_attributes = _origin(record.service, record.resource_message, record.scope_message)
    fields += origin_fields
    if count := record.message.dropped_attributes:
        fields += f', "dropped_attributes_count": {count}'
    attributes = origin_attributes | dict(map(_attribute, record.message.attributes))
    if not NAMES.isdisjoint(attributes):
        names = {*reserved, *json.loads(f"{{{fields}}}")}
        for name in [name for name in attributes if name in names]:
            renamed = column_name(name, names)
            while renamed in attributes:
                renamed = f"attributes.{renamed}"
            attributes[renamed] = encode(renamed) + attributes.pop(name).removeprefix(encode(name))
    return f"{{{', '.join([fields, *attributes.values()])}}}"


@lru_cache(64)
def _origin(service: str, resource: bytes, scope: bytes) -> tuple[str, dict[str, str]]:
    """Return the fields of an origin as JSON, and its attributes as `_pair` encodes them, by name."""
    decoded_scope = decode_scope(scope)
    attributes = {**decode_resource(resource)}
    attributes.pop("service.name", None)  # it is a field
    attributes |= decoded_scope.attributes
    fields = (
        f', "service.name": {encode(service)}, "library.name": {encode(decoded_scope.name)},'
        f' "library.version": {encode(decoded_scope.version)}'
    )
    return fields, dict(starmap(_pair, attributes.items()))


class AttributeCache(dict[bytes, tuple[str, str]]):
    """Caches the names of encoded attributes, and the attributes as JSON. Faster than functools.lru_cache."""

    def __missing__(self, message: bytes) -> tuple[str, str]:
        pair = _pair(*decode_attribute(message))
        if len(message) <= MAX_CACHED_SIZE:
            if len(self) >= MAX_CACHED:
                self.clear()
            self[message] = pair
        return pair


_attribute = AttributeCache().__getitem__


def _pair(name: str, value: Value) -> tuple[str, str]:
    return name, f"{encode(name)}: {encode(value)}"


def iso(nanoseconds: int, short: bool = False) -> str:
    """Format a time as ISO 8601 in UTC with microseconds. `short` leaves them out if they are zero."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    second = _second(seconds)
    return second + ("Z" if short and not fraction else f".{fraction // 1000:06}Z")


@lru_cache(1024)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
