"""Reads a trace."""

# ruff: noqa: S608 - statements contain only generated names; user input is bound.

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from otlp_viewer import tree
from otlp_viewer.messages import Span
from otlp_viewer.model import Outline, SpanOutline, SpanReference, TraceSummary
from otlp_viewer.store.snapshot import Snapshot
from otlp_viewer.store.summaries import FIELDS, path_of
from otlp_viewer.values import as_text, from_text

MAX_SPANS = 20_000
MAX_BYTES = 8 * 1024 * 1024
COLUMNS = "s.row, s.record, o.service, o.resource, o.scope"
OUTLINE = FIELDS | {"message": "status_message"}


def outline(snapshot: Snapshot, trace_id: str) -> Outline | None:
    """Return the outline of a trace, or None if it is not stored."""
    types = snapshot.columns.get(OUTLINE["status"], frozenset())
    rows = snapshot.rows(
        "SELECT row, span, parent, name, service, kind, time_ns, duration, error, coalesce(message, ''), route, status,"
        f" path, url, event_times FROM ({snapshot.source(OUTLINE, ('event_times',))}) WHERE trace = $trace_id"
        " ORDER BY parent IS NOT NULL, time_ns, row",
        {"trace_id": trace_id},
    )
    values: list[tuple[Any, ...]] = [(*row[:11], from_text(row[11], types), *row[12:14], row[14] or ()) for row in rows]
    spans = [SpanOutline(*span_values) for span_values in values]
    return Outline(_summarize(trace_id, spans), spans) if spans else None


def read_small(snapshot: Snapshot, trace_id: str) -> tuple[TraceSummary, Iterator[Span]] | None:
    """Read a trace's summary and its spans in tree order with a single query; None if it is large or not stored."""
    size = "sum(octet_length(s.record)) OVER (ROWS UNBOUNDED PRECEDING)"
    rows = snapshot.rows(
        f"SELECT s.row, CASE WHEN {size} <= {MAX_BYTES} THEN s.record END, o.service, o.resource, o.scope"
        f" FROM {snapshot.table} WHERE trace_id = $trace_id LIMIT {MAX_SPANS + 1}",
        {"trace_id": trace_id},
    )
    if not 0 < len(rows) <= MAX_SPANS or any(row[1] is None for row in rows):
        return None
    by_row = {row[0]: Span(*row) for row in rows}
    outlines = sorted(
        map(_outline_of, by_row.values()), key=lambda span: (span.parent_id is not None, span.start_ns, span.row)
    )
    first = outlines[0]
    _add_attributes(first, by_row[first.row], snapshot.columns.get(OUTLINE["status"], frozenset()))
    return _summarize(trace_id, outlines), (by_row[node.span.row] for node in tree.walk(outlines))


def read(snapshot: Snapshot, rows: Collection[int]) -> list[Span]:
    """Return the spans of these rows that are still stored, in this order."""
    records = snapshot.rows(
        f"SELECT {COLUMNS} FROM {snapshot.table}"
        " WHERE s.row IN (SELECT unnest($rows::BIGINT[])) AND s.row BETWEEN $low AND $high",
        {"rows": list(rows), "low": min(rows, default=0), "high": max(rows, default=0)},
    )
    by_row = {record[0]: record for record in records}
    return [Span(*by_row[row]) for row in rows if row in by_row]


def span(snapshot: Snapshot, trace_id: str, span_id: str, row: int) -> Span | None:
    rows = snapshot.rows(
        f"SELECT {COLUMNS} FROM {snapshot.table}"
        " WHERE trace_id = $trace_id AND span_id = $span_id AND $row IN (0, s.row) ORDER BY time_ns, s.row LIMIT 1",
        {"trace_id": trace_id, "span_id": span_id, "row": row},
    )
    return Span(*rows[0]) if rows else None


def find(snapshot: Snapshot, trace_id: str, text: str) -> list[int]:
    rows = snapshot.rows(
        f"SELECT s.row FROM {snapshot.table} WHERE trace_id = $trace_id AND {snapshot.contains('$needle')}",
        {"trace_id": trace_id, "needle": text.lower()},
    )
    return [row for (row,) in rows]


def links_to(snapshot: Snapshot, trace_id: str) -> list[tuple[SpanReference, str]]:
    rows = snapshot.rows(
        f"SELECT {COLUMNS} FROM {snapshot.table} WHERE contains(linked, $trace_id) AND trace_id <> $trace_id"
        " ORDER BY time_ns LIMIT 100",
        {"trace_id": trace_id},
    )
    return [
        (SpanReference(span.trace_id, span.span_id, span.row, span.name, span.service), link.span_id)
        for span in (Span(*row) for row in rows)
        for link in span.links
        if link.trace_id == trace_id
    ]


def _outline_of(span: Span) -> SpanOutline:
    """Return the outline of a span without its attributes and events."""
    code, message = span.status
    return SpanOutline(
        span.row,
        span.span_id,
        span.parent_id,
        span.name,
        span.service,
        span.kind,
        span.start_ns,
        span.duration_ms,
        code == 2,
        message,
    )


def _add_attributes(outline: SpanOutline, span: Span, types: Collection[str]) -> None:
    """Add the attributes that the summary of a trace needs from its first span."""
    values = span.resource | span.attributes
    outline.route, status, outline.path, outline.url = (
        None if (value := values.get(OUTLINE[name])) is None else as_text(value)[1]
        for name in ("route", "status", "path", "url")
    )
    outline.status = from_text(status, types)


def _summarize(trace_id: str, spans: Sequence[SpanOutline]) -> TraceSummary:
    """Return the summary of a trace from its spans, ordered with roots first, then by start.

    For lists of traces, DuckDB computes the same. That takes six times as long for one small trace, but loads no spans
    of large traces into Python.
    """
    first = spans[0]
    root = first if first.parent_id is None else None
    roots = sum(span.parent_id is None for span in spans)
    start = min(span.start_ns for span in spans)
    extent = (max(span.start_ns + round(span.duration_ms * 1e6) for span in spans) - start) / 1e6
    ids = {span.span_id for span in spans}
    detached = any(span.parent_id not in ids for span in spans if span.parent_id is not None)
    detached = detached or tree.has_cycle((span.span_id, span.parent_id) for span in spans)
    return TraceSummary(
        trace_id=trace_id,
        name=first.name,
        service=first.service,
        services=sorted({span.service for span in spans}),
        start_ns=start,
        duration_ms=first.duration_ms if roots == 1 else extent,
        span_count=len(spans),
        error=any(span.error for span in spans),
        complete=root is not None and not detached,
        route=root.route if root else None,
        status=root.status if root else None,
        path=path_of(first.name, first.route, first.path, first.url),
        extent_ms=extent,
        errors=sum(span.error for span in spans),
        roots=roots,
    )
