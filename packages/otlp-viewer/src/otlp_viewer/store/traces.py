"""Reads one trace."""

# ruff: noqa: S608 - statements are made of our own names; whatever was sent is bound.

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from otlp_viewer import tree
from otlp_viewer.messages import Span
from otlp_viewer.model import Outline, SpanOutline, SpanReference, TraceSummary
from otlp_viewer.store.snapshot import Snapshot
from otlp_viewer.store.summaries import FIELDS, path_of
from otlp_viewer.values import as_text, from_text

MOST_AT_ONCE = 20_000
MOST_BYTES_AT_ONCE = 8 * 1024 * 1024
COLUMNS = "s.row, s.record, o.service, o.resource, o.scope"
OUTLINE = FIELDS | {
    "message": "status_message",
}


def outline(snapshot: Snapshot, trace_id: str) -> Outline | None:
    """Return what a waterfall shows of a trace's spans, roots before others."""
    types = snapshot.columns.get(OUTLINE["status"], frozenset())
    rows = snapshot.rows(
        "SELECT row, span, parent, name, service, kind, time_ns, duration, error, coalesce(message, ''), route, status,"
        f" path, url, event_times FROM ({snapshot.source(OUTLINE, ('event_times',))}) WHERE trace = $trace_id"
        " ORDER BY parent IS NOT NULL, time_ns, row",
        {"trace_id": trace_id},
    )
    made: list[tuple[Any, ...]] = [(*row[:11], from_text(row[11], types), *row[12:14], row[14] or ()) for row in rows]
    spans = [SpanOutline(*one) for one in made]
    return Outline(_summed_up(trace_id, spans), spans) if spans else None


def whole(snapshot: Snapshot, trace_id: str) -> tuple[TraceSummary, Iterator[Span]] | None:
    """Return a trace's summary and its spans in tree order, in one query; None where it is large, or not stored."""
    size = "sum(octet_length(s.record)) OVER (ROWS UNBOUNDED PRECEDING)"
    rows = snapshot.rows(
        f"SELECT s.row, CASE WHEN {size} <= {MOST_BYTES_AT_ONCE} THEN s.record END, o.service, o.resource, o.scope"
        f" FROM {snapshot.table} WHERE trace_id = $trace_id LIMIT {MOST_AT_ONCE + 1}",
        {"trace_id": trace_id},
    )
    if not 0 < len(rows) <= MOST_AT_ONCE or any(row[1] is None for row in rows):
        return None
    read = {row[0]: Span(*row) for row in rows}
    outlines = sorted(map(_outlined, read.values()), key=lambda one: (one.parent_id is not None, one.start_ns, one.row))
    _describe(outlines[0], read[outlines[0].row], snapshot.columns.get(OUTLINE["status"], frozenset()))
    return _summed_up(trace_id, outlines), (read[node.span.row] for node in tree.walk(outlines))


def spans(snapshot: Snapshot, rows: Collection[int]) -> list[Span]:
    """Return the spans of these rows that are stored, in this order."""
    found = snapshot.rows(
        f"SELECT {COLUMNS} FROM {snapshot.table}"
        " WHERE s.row IN (SELECT unnest($rows::BIGINT[])) AND s.row BETWEEN $low AND $high",
        {"rows": list(rows), "low": min(rows, default=0), "high": max(rows, default=0)},
    )
    by_row = {row[0]: row for row in found}
    return [Span(*by_row[row]) for row in rows if row in by_row]


def span(snapshot: Snapshot, trace_id: str, span_id: str, row: int) -> Span | None:
    found = snapshot.rows(
        f"SELECT {COLUMNS} FROM {snapshot.table}"
        " WHERE trace_id = $trace_id AND span_id = $span_id AND $row IN (0, s.row) ORDER BY time_ns, s.row LIMIT 1",
        {"trace_id": trace_id, "span_id": span_id, "row": row},
    )
    return Span(*found[0]) if found else None


def find(snapshot: Snapshot, trace_id: str, text: str) -> list[int]:
    rows = snapshot.rows(
        f"SELECT s.row FROM {snapshot.table} WHERE trace_id = $trace_id AND {snapshot.contains('$needle')}",
        {"trace_id": trace_id, "needle": text.lower()},
    )
    return [row for (row,) in rows]


def links_to(snapshot: Snapshot, trace_id: str) -> list[tuple[SpanReference, str]]:
    found = snapshot.rows(
        f"SELECT {COLUMNS} FROM {snapshot.table} WHERE contains(linked, $trace_id) AND trace_id <> $trace_id"
        " ORDER BY time_ns LIMIT 100",
        {"trace_id": trace_id},
    )
    return [
        (SpanReference(one.trace_id, one.span_id, one.row, one.name, one.service), link.span_id)
        for one in (Span(*row) for row in found)
        for link in one.links
        if link.trace_id == trace_id
    ]


def _outlined(span: Span) -> SpanOutline:
    """Return what tells a span's place in its trace."""
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


def _describe(outline: SpanOutline, span: Span, types: Collection[str]) -> None:
    """Add what a summary has of the attributes of its first span."""
    values = span.resource | span.attributes
    outline.route, status, outline.path, outline.url = (
        None if (value := values.get(OUTLINE[name])) is None else as_text(value)[1]
        for name in ("route", "status", "path", "url")
    )
    outline.status = from_text(status, types)


def _summed_up(trace_id: str, spans: Sequence[SpanOutline]) -> TraceSummary:
    """Return the summary of a trace of its spans, roots first, then by start.

    Lists of traces have the same from DuckDB, which takes six times as long for one small trace, but brings no span of
    a large one into Python.
    """
    first = spans[0]
    root = first if first.parent_id is None else None
    roots = sum(one.parent_id is None for one in spans)
    start = min(one.start_ns for one in spans)
    extent = (max(one.start_ns + round(one.duration_ms * 1e6) for one in spans) - start) / 1e6
    ids = {one.span_id for one in spans}
    lost = any(one.parent_id not in ids for one in spans if one.parent_id is not None)
    lost = lost or tree.has_circle((one.span_id, one.parent_id) for one in spans)
    return TraceSummary(
        trace_id=trace_id,
        name=first.name,
        service=first.service,
        services=sorted({one.service for one in spans}),
        start_ns=start,
        duration_ms=first.duration_ms if roots == 1 else extent,
        span_count=len(spans),
        error=any(one.error for one in spans),
        complete=root is not None and not lost,
        route=root.route if root else None,
        status=root.status if root else None,
        path=path_of(first.name, first.route, first.path, first.url),
        extent_ms=extent,
        errors=sum(one.error for one in spans),
        roots=roots,
    )
