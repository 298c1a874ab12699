"""Writes spans and log records as JSON: wide events with Honeycomb's field names.

Most attributes come again and again, and records of one origin share what it has: the text of each is made once.
"""

import json
from collections.abc import Collection
from datetime import UTC, datetime
from functools import lru_cache
from itertools import starmap

from otlp_viewer.messages import Log, Record, Span, SpanEvent, SpanLink, read_attribute, read_resource, read_scope
from otlp_viewer.model import LOG_FIELDS, SPAN_FIELDS, column_name
from otlp_viewer.values import Value

LONGEST_CACHED = 256  # bytes of an attribute

NAMES = frozenset(
    {*SPAN_FIELDS, *LOG_FIELDS, "time", "events", "links", "trace_state"}
    | {f"dropped_{what}_count" for what in ("attributes", "events", "links")}
)
"""Everything that a field can be called."""

text = json.JSONEncoder(ensure_ascii=False).encode


def span_json(span: Span) -> str:
    """Return a span's fields, and beside them its own attributes and those of its scope and resource.

    An attribute that has the name of a field is called attributes.<name>.
    """
    message = span.message
    code, description = span.status
    fields = (
        f'"time": "{iso(span.start_ns)}", "name": {text(message.name)}, "duration_ms": {span.duration_ms!r},'
        f' "trace.trace_id": "{message.trace_id.hex()}", "trace.span_id": "{message.span_id.hex()}",'
        f' "span.kind": "{span.kind}", "status_code": {code}, "error": {"true" if code == 2 else "false"},'
        f' "events": {text([*map(_event, span.events)]) if message.events else "[]"},'
        f' "links": {text([*map(_link, span.links)]) if message.links else "[]"}'
    )
    for name, value in (
        ("trace.parent_id", span.parent_id),
        ("status_message", description),
        ("trace_state", message.trace_state),
        ("dropped_events_count", message.dropped_events),
        ("dropped_links_count", message.dropped_links),
    ):
        if value:
            fields += f', "{name}": {text(value)}'
    return _wide(fields, span, SPAN_FIELDS)


def log_json(log: Log) -> str:
    """Return a log record's fields and attributes, as `span_json` does."""
    fields = (
        f'"time": "{iso(log.time_ns)}", "severity_text": {text(log.severity_text)},'
        f' "severity_number": {log.severity_number}, "body": {text(log.body)}'
    )
    for name, value in (
        ("event.name", log.event_name),
        ("trace.trace_id", log.trace_id),
        ("trace.span_id", log.span_id),
    ):
        if value:
            fields += f', "{name}": {text(value)}'
    return _wide(fields, log, LOG_FIELDS)


def _event(event: SpanEvent) -> dict[str, Value]:
    found = {"name": event.name, "time": iso(event.time_ns), "attributes": event.attributes}
    return found | ({"dropped_attributes_count": event.dropped_attributes} if event.dropped_attributes else {})


def _link(link: SpanLink) -> dict[str, Value]:
    found: dict[str, Value] = {"trace_id": link.trace_id, "span_id": link.span_id, "attributes": link.attributes}
    if link.trace_state:
        found["trace_state"] = link.trace_state
    return found | ({"dropped_attributes_count": link.dropped_attributes} if link.dropped_attributes else {})


def _wide(fields: str, record: Record, reserved: Collection[str]) -> str:
    """Return the fields with all attributes beside them: own ones go before the scope's, the scope's before others."""
    shared, others = _origin(record.service, record.resource_message, record.scope_message)
    fields += shared
    if count := record.message.dropped_attributes:
        fields += f', "dropped_attributes_count": {count}'
    own = [_cached(one) if len(one) <= LONGEST_CACHED else _attribute(one) for one in record.message.attributes]
    beside = others | dict(own)
    if not NAMES.isdisjoint(beside):
        names = {*reserved, *json.loads(f"{{{fields}}}")}
        for name in names.intersection(beside):
            renamed = column_name(name, names)
            beside[renamed] = text(renamed) + beside.pop(name).removeprefix(text(name))
    return f"{{{', '.join([fields, *beside.values()])}}}"


@lru_cache(64)
def _origin(service: str, resource: bytes, scope: bytes) -> tuple[str, dict[str, str]]:
    """Return the fields that records of one origin share, and the other attributes, which are like _attribute's."""
    made = read_scope(scope)
    attributes = {**read_resource(resource)}
    attributes.pop("service.name", None)  # it is a field
    attributes |= made.attributes
    fields = (
        f', "service.name": {text(service)}, "library.name": {text(made.name)}, "library.version": {text(made.version)}'
    )
    return fields, dict(starmap(_pair, attributes.items()))


def _attribute(message: bytes) -> tuple[str, str]:
    """Return the name of an attribute, and it as JSON."""
    return _pair(*read_attribute(message))


_cached = lru_cache(16_384)(_attribute)


def _pair(name: str, value: Value) -> tuple[str, str]:
    return name, f"{text(name)}: {text(value)}"


def iso(nanoseconds: int, whole: bool = False) -> str:
    """Return a time as ISO 8601 in UTC, with microseconds (with `whole`, only where there are any)."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    second = _second(seconds)
    return second + ("Z" if whole and not rest else f".{rest // 1000:06}Z")


@lru_cache(1024)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
