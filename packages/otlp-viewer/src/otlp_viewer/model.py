"""Data classes for traces, summaries and filters.

Times are integers in nanoseconds since 1970 (`_ns`), durations floats in milliseconds (`_ms`). IDs are lowercase hex.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otlp_viewer.messages import Span
from otlp_viewer.values import Value

if TYPE_CHECKING:
    from otlp_viewer.query.types import Box, Filter, Query

# Honeycomb's names and types of the fields that every span or log record has.
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
    """Return the column name of an attribute. A prefix distinguishes it from a field with the same name."""
    return f"attributes.{attribute}" if attribute in fields or attribute == "time" else attribute


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """A trace in a list of traces."""

    trace_id: str
    name: str
    """Name of the root, or else of the first span."""
    service: str
    services: Sequence[str]
    start_ns: int
    duration_ms: float
    """Duration of the root, or `extent_ms` if there is none or several."""
    span_count: int
    error: bool
    complete: bool
    """Whether the root and every parent were received."""
    route: str | None = None
    status: Value = None
    """The root's HTTP response status code."""
    path: str = ""
    """URL path of the root, or else of the first span; "" if it has a route or its name contains the path."""
    extent_ms: float = 0
    """From the first start to the last end."""
    errors: int = 0
    """Number of spans with an error."""
    roots: int = 0
    matched: "SpanReference | None" = None
    """The longest span that matches the filter's query."""


@dataclass(slots=True)
class SpanOutline:
    """A span in a waterfall. Not frozen, which halves the time to create the 10,000 spans of a large trace."""

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
    """A trace to draw as a tree. Only a few spans of a large trace are ever decoded."""

    read: Callable[[Sequence[int]], Iterable[Span]]
    """Yields the spans of these rows that are still stored."""


@dataclass(frozen=True, slots=True)
class SpanReference:
    trace_id: str
    span_id: str
    row: int
    name: str = ""
    service: str = ""


@dataclass(frozen=True, slots=True)
class ServiceSummary:
    """The stored spans of a service. Durations are those of its entry spans: roots, server and consumer spans."""

    name: str
    spans: int
    traces: int
    errors: int
    """Number of spans with an error."""
    p50_ms: float | None
    p95_ms: float | None
    last_ns: int
    """When its newest span started."""


@dataclass(frozen=True, slots=True)
class Health:
    spans: int
    logs: int
    bytes: int
    """Size of spans and logs. When it reaches `capacity_bytes`, the oldest are dropped."""
    capacity_bytes: int
    dropped_spans: int
    dropped_logs: int
    """Numbers of spans and logs dropped since the start."""


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """Which traces to list. Empty fields and 0 match all traces."""

    service: str = ""
    """Service of any span."""
    route: str = ""
    """Route of any span, or the name of a root."""
    status: str = ""
    """One of STATUSES: error, ok, or the class of the root's HTTP status code."""
    min_duration_ms: float = 0
    """Minimum of `TraceSummary.duration_ms`."""
    text: str = ""
    """Part of any value of any span, ignoring case."""
    start_ns: int = 0
    end_ns: int = 0
    """The trace started from `start_ns` until before `end_ns`."""
    max_duration_ms: float = 0
    query: "Query | None" = None
    """At least one span matches the filters and time range of this query."""
    box: "Box | None" = None
    """That span is also in this part of a heatmap."""
    extra_filters: "Sequence[Filter]" = ()
    """That span also matches all of these filters."""


STATUSES = ("error", "ok", "2xx", "3xx", "4xx", "5xx")


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which logs to list. Empty fields and 0 match all logs."""

    service: str = ""
    severity: int = 0
    """Minimum severity number."""
    trace_id: str = ""
    text: str = ""
    """Part of any value, ignoring case."""
    span_id: str = ""
    attribute: tuple[str, str] | None = None
    """Name and text of a field or attribute."""
    event_name: str = ""
    start_ns: int = 0
    end_ns: int = 0
    """From `start_ns` until before `end_ns`."""
    query: "Query | None" = None
    """The log record matches the filters and time range of this query."""
    extra_filters: "Sequence[Filter]" = ()
    """The log record also matches all of these filters."""


ALL_TRACES, ALL_LOGS = TraceFilter(), LogFilter()
