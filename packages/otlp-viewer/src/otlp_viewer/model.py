"""What is stored and answered, behind the receiver: traces, summaries of them, and filters.

Times are integers of nanoseconds since 1970 (`_ns`), durations floats of milliseconds (`_ms`). Ids are lower-case hex.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otlp_viewer.messages import Span
from otlp_viewer.values import Value

if TYPE_CHECKING:
    from otlp_viewer.query.types import Box, Filter, Query

# Honeycomb's names of the fields that every span, or log record, has, with their types.
SPAN_FIELDS = {
    "name": "string",
    "duration_ms": "float",
    "trace.trace_id": "string",
    "trace.span_id": "string",
    "trace.parent_id": "string",
    "service.name": "string",
    "span.kind": "string",
    "status_code": "integer",
    "status_message": "string",
    "error": "boolean",
    "library.name": "string",
    "library.version": "string",
}
LOG_FIELDS = {
    "body": "string",
    "severity_text": "string",
    "severity_number": "integer",
    "event.name": "string",
    "trace.trace_id": "string",
    "trace.span_id": "string",
    "service.name": "string",
    "library.name": "string",
    "library.version": "string",
}


def column_name(attribute: str, fields: Collection[str]) -> str:
    """Return what an attribute is called beside `fields`: one that has a field's name is told apart by a prefix."""
    return f"attributes.{attribute}" if attribute in fields or attribute == "time" else attribute


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """What a list of traces has of one."""

    trace_id: str
    name: str
    """Of the root, else of the first span."""
    service: str
    services: Sequence[str]
    start_ns: int
    duration_ms: float
    """Of the root, else (or where there are several) from the first start to the last end."""
    span_count: int
    error: bool
    complete: bool
    """The root and every parent are there."""
    route: str | None = None
    status: Value = None
    """The root's HTTP response status code."""
    path: str = ""
    """Of the address that the root, or else the first span, is about, unless its route or name says it."""
    extent_ms: float = 0
    """From the first start to the last end."""
    errors: int = 0
    """Spans with an error."""
    roots: int = 0
    matched: "SpanReference | None" = None
    """The longest span that the filter's query is about."""


@dataclass(slots=True)
class SpanOutline:
    """What a waterfall has of a span. Not frozen: that makes ten thousand of them, for one page, in half the time."""

    row: int
    span_id: str
    parent_id: str | None
    name: str
    service: str
    kind: str
    start_ns: int
    duration_ms: float
    error: bool
    status_message: str
    route: str | None = None
    status: Value = None
    """Its HTTP response status code."""
    path: str | None = None
    url: str | None = None
    event_times_ns: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Outline:
    summary: TraceSummary
    spans: Sequence[SpanOutline]
    """Roots first, then by start."""


@dataclass(frozen=True, slots=True)
class Trace(Outline):
    """What a tree is drawn of: few spans of a large trace are ever read."""

    read: Callable[[Sequence[int]], Iterable[Span]]
    """Yields all of the spans of some rows, of those that are still stored."""


@dataclass(frozen=True, slots=True)
class SpanReference:
    trace_id: str
    span_id: str
    row: int
    name: str = ""
    service: str = ""


@dataclass(frozen=True, slots=True)
class ServiceSummary:
    """What is stored of a service; durations are of its entry spans: roots, and spans of another service's caller."""

    name: str
    spans: int
    traces: int
    errors: int
    """Spans."""
    p50_ms: float | None
    p95_ms: float | None
    last_ns: int
    """When its newest span started."""


@dataclass(frozen=True, slots=True)
class Health:
    spans: int
    logs: int
    bytes: int
    """What spans and logs take, of `capacity_bytes`; the oldest go when it is full."""
    capacity_bytes: int
    dropped_spans: int
    dropped_logs: int
    """How many of the oldest have gone since the start."""


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """What a list of traces is narrowed to; what is empty or 0 narrows nothing."""

    service: str = ""
    """Of any of the spans."""
    route: str = ""
    """Of any of the spans, or else the name of the root."""
    status: str = ""
    """One of STATUSES: error, ok, or the first digit of the root's HTTP status and xx."""
    min_duration_ms: float = 0
    """Of the root, or else of the longest span."""
    text: str = ""
    """Part of any value of any span, in any case."""
    start_ns: int = 0
    end_ns: int = 0
    """When the trace started; the end excluded."""
    max_duration_ms: float = 0
    matching: "Query | None" = None
    """With at least one span that this query's filters and time want."""
    box: "Box | None" = None
    """With at least one such span in this part of a heatmap."""
    also: "Sequence[Filter]" = ()
    """What such a span must be besides."""


STATUSES = ("error", "ok", "2xx", "3xx", "4xx", "5xx")


@dataclass(frozen=True, slots=True)
class LogFilter:
    """What a list of logs is narrowed to; what is empty or 0 narrows nothing."""

    service: str = ""
    severity: int = 0
    """The lowest severity number."""
    trace_id: str = ""
    text: str = ""
    """Part of any value, in any case."""
    span_id: str = ""
    attribute: tuple[str, str] | None = None
    """The name and the text of a field or an attribute."""
    event_name: str = ""
    start_ns: int = 0
    end_ns: int = 0
    """The end excluded."""
    matching: "Query | None" = None
    """What this query's filters and time want."""
    also: "Sequence[Filter]" = ()
    """What such a log record must be besides."""


ALL_TRACES, ALL_LOGS = TraceFilter(), LogFilter()
