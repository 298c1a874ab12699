"""Finds traces and spans."""

# ruff: noqa: S608 - statements are made of our own names; whatever was sent is bound.

from collections.abc import Collection, Sequence
from typing import Any

from otlp_viewer import tree
from otlp_viewer.model import (
    Outline,
    ServiceSummary,
    Span,
    SpanOutline,
    SpanReference,
    Trace,
    TraceFilter,
    TraceSummary,
)
from otlp_viewer.query.answer import in_box
from otlp_viewer.query.compile import Compiled
from otlp_viewer.store.messages import as_span
from otlp_viewer.store.snapshot import Snapshot
from otlp_viewer.store.values import as_text, from_text

ORDERS = {"start": "first_start", "duration": "length", "spans": "span_count", "errors": "errors", "name": "title"}
EXTENT = "(max(time_ns + CAST(round(duration * 1e6) AS HUGEINT)) - min(time_ns)) / 1e6"
LENGTH = f"CASE WHEN count(*) FILTER (parent IS NULL) = 1 THEN max(duration) FILTER (parent IS NULL) ELSE {EXTENT} END"
"""How long a trace took, in milliseconds: its root, or all of it where it has none or several."""
READ_AT_ONCE = 500
COLUMNS = "s.row, s.record, o.service, o.resource, o.scope"
FROM = "FROM kept.spans AS s JOIN kept.spans_origins AS o ON o.number = s.origin"
SUMMARY = {
    "trace": "trace.trace_id",
    "span": "trace.span_id",
    "parent": "trace.parent_id",
    "duration": "duration_ms",
    "name": "name",
    "service": "service.name",
    "error": "error",
    "route": "http.route",
    "status": "http.response.status_code",
}
OUTLINE = SUMMARY | {
    "kind": "span.kind",
    "message": "status_message",
    "method": "http.request.method",
    "path": "url.path",
    "url": "url.full",
}


def summaries(
    snapshot: Snapshot, limit: int, narrow: TraceFilter, order: str, descending: bool, offset: int
) -> list[TraceSummary]:
    """Return summaries of traces."""
    having, matched, parameters = _conditions(snapshot, narrow)
    return _summaries(
        snapshot,
        parameters,
        having=having,
        order=f"{ORDERS[order]} {'DESC' if descending else 'ASC'}",
        limit=f" LIMIT {limit:d} OFFSET {offset:d}",
        matched=matched,
    )


def highlights(
    snapshot: Snapshot, newest: int, few: int
) -> tuple[list[TraceSummary], list[TraceSummary], list[TraceSummary]]:
    """Return the newest traces, the slowest, and the newest with errors."""
    fields = {name: SUMMARY[name] for name in ("trace", "parent", "duration", "error")}
    lists = (
        ("newest", "true", "start", newest),
        ("slowest", "true", "length", few),
        ("failed", "failed", "start", few),
    )
    chosen = " UNION ALL ".join(
        f"(SELECT '{name}' AS list, trace FROM every WHERE {where} ORDER BY {order} DESC, trace LIMIT {most:d})"
        for name, where, order, most in lists
    )
    rows = snapshot.rows(
        f"WITH every AS MATERIALIZED (SELECT trace, min(time_ns) AS start, {LENGTH} AS length, bool_or(error) AS failed"
        f" FROM ({snapshot.source(fields)}) GROUP BY trace) {chosen}"
    )
    ids = sorted({trace for _, trace in rows})
    where = "trace IN (SELECT unnest($ids::VARCHAR[]))"
    found = {one.trace_id: one for one in _summaries(snapshot, {"ids": ids}, where=where)}
    made = [[found[trace] for name, trace in rows if name == list_] for list_, *_ in lists]
    made[0].sort(key=lambda one: -one.start_ns)
    made[1].sort(key=lambda one: -one.duration_ms)
    made[2].sort(key=lambda one: -one.start_ns)
    return made[0], made[1], made[2]


def count(snapshot: Snapshot, narrow: TraceFilter) -> int:
    """Return how many traces there are."""
    having, matched, parameters = _conditions(snapshot, narrow)
    among = f" SEMI JOIN ({matched}) AS matched USING (trace)" if matched else ""
    rows = snapshot.rows(
        f"SELECT count(*) FROM (SELECT trace FROM ({snapshot.source(SUMMARY)}){among} GROUP BY trace HAVING {having})",
        parameters,
    )
    return int(rows[0][0])


def _conditions(snapshot: Snapshot, narrow: TraceFilter) -> tuple[str, str, dict[str, Any]]:
    """Return what is true of a trace, a query for the spans of which it has one ("" for any), and the parameters."""
    conditions = ["true"]
    parameters: dict[str, Any] = {}
    for name, condition, value in (
        ("service", "bool_or(service = $service)", narrow.service),
        ("route", "bool_or(route = $route OR (parent IS NULL AND name = $route))", narrow.route),
        ("least", f"{LENGTH} >= $least", narrow.min_duration_ms),
        ("most", f"{LENGTH} <= $most", narrow.max_duration_ms),
        ("start", "min(time_ns) >= $start", narrow.start_ns),
        ("until", "min(time_ns) < $until", narrow.end_ns),
        ("needle", f"bool_or(row IN (SELECT s.row {FROM} WHERE {snapshot.contains('$needle')}))", narrow.text.lower()),
    ):
        if value:
            conditions.append(condition)
            parameters[name] = value
    if narrow.status in ("error", "ok"):
        conditions.append(("" if narrow.status == "error" else "NOT ") + "bool_or(error)")
    elif narrow.status:
        conditions.append("bool_or(parent IS NULL AND length(status) = 3 AND starts_with(status, $status))")
        parameters["status"] = narrow.status[0]
    matched = ""
    if narrow.matching is not None:
        sql = Compiled(snapshot, narrow.matching)
        trace, span, value = map(sql.text, ("trace.trace_id", "trace.span_id", "duration_ms"))
        where = sql.where
        if narrow.also:
            where += f" AND {sql.all_or_any(narrow.also, False)}"
        if narrow.box is not None:
            value, inside = in_box(sql, narrow.box)
            where += f" AND {inside}"
        matched = (
            f"SELECT {trace} AS trace, arg_max({span}, {value}) AS span, arg_max(row, {value}) AS row"
            f" FROM ({sql.source()}) WHERE {where} GROUP BY {trace}"
        )
        parameters |= sql.parameters
    return " AND ".join(conditions), matched, parameters


def _summaries(
    snapshot: Snapshot,
    parameters: dict[str, Any],
    where: str = "true",
    having: str = "true",
    order: str = "first_start",
    limit: str = "",
    matched: str = "",
) -> list[TraceSummary]:
    """Return summaries of traces; `where` and `having` are SQL over SUMMARY's names.

    `matched` is a query for a trace, a span's id and its row, for those traces alone; "" for all.
    """
    first = "(parent IS NOT NULL, time_ns, row)"  # a trace is called after its first root, or else its first span
    rows = snapshot.rows(
        f"""
        WITH matched AS ({matched or "SELECT NULL AS trace, NULL AS span, NULL AS row"}),
        spans AS MATERIALIZED (
            SELECT * FROM ({snapshot.source(SUMMARY)}){" SEMI JOIN matched USING (trace)" if matched else ""}
            WHERE {where}
        ),
        found AS (
            SELECT trace, min(time_ns) AS first_start, count(*) AS span_count, bool_or(error) AS failed,
                arg_min(row, {first}) AS first_row, arg_min(name, {first}) AS title, {LENGTH} AS length,
                {EXTENT} AS extent, count(*) FILTER (error) AS errors, count(*) FILTER (parent IS NULL) AS roots
            FROM spans GROUP BY trace HAVING {having} ORDER BY {order}, trace{limit}
        ),
        members AS MATERIALIZED (SELECT spans.* FROM spans SEMI JOIN found USING (trace)),
        lost AS (
            SELECT DISTINCT trace FROM members AS child WHERE parent IS NOT NULL AND NOT EXISTS
            (SELECT 1 FROM members AS above WHERE above.trace = child.trace AND above.span = child.parent)
        ),
        suspect AS (
            SELECT DISTINCT child.trace FROM members AS child JOIN members AS above
            ON above.trace = child.trace AND above.span = child.parent AND above.time_ns >= child.time_ns
        ),
        services AS (SELECT trace, list_sort(list(DISTINCT service)) AS services FROM members GROUP BY trace)
        SELECT found.trace, title, top.service, services.services, first_start, length, span_count, failed,
            top.parent IS NULL AND found.trace NOT IN (FROM lost),
            CASE WHEN top.parent IS NULL THEN top.route END, CASE WHEN top.parent IS NULL THEN top.status END,
            extent, errors, roots, matched.span, matched.row, found.trace IN (FROM suspect)
        FROM found JOIN members AS top ON top.row = first_row JOIN services ON services.trace = found.trace
        LEFT JOIN matched ON matched.trace = found.trace
        ORDER BY {order}, found.trace
        """,
        parameters,
    )
    types = snapshot.columns.get(SUMMARY["status"], frozenset())
    circular = _circular(snapshot, [row[0] for row in rows if row[8] and row[16]])
    found = [
        (
            *row[:8],
            row[8] and row[0] not in circular,
            row[9],
            from_text(row[10], types),
            *row[11:14],
            SpanReference(row[0], row[14], row[15]) if row[14] is not None else None,
        )
        for row in rows
    ]
    return [TraceSummary(*trace) for trace in found]


def _circular(snapshot: Snapshot, traces: Sequence[str]) -> set[str]:
    """Return which of these traces have spans whose parents form a circle: in one, a parent does not start first."""
    pairs: dict[str, list[tuple[str, str | None]]] = {}
    if traces:
        for trace, span_id, parent_id in snapshot.rows(
            "SELECT trace_id, span_id, parent_id FROM kept.spans WHERE trace_id IN (SELECT unnest($traces::VARCHAR[]))",
            {"traces": list(traces)},
        ):
            pairs.setdefault(trace, []).append((span_id, parent_id))
    return {trace for trace, found in pairs.items() if tree.has_circle(found)}


def trees(snapshot: Snapshot, trace_ids: Collection[str], most: int) -> dict[str, Trace]:
    found = {}
    for trace_id in trace_ids:
        outlined = outline(snapshot, trace_id, 0)
        if outlined:
            rows = [node.span.row for node in tree.walk(outlined.spans)]
            found[trace_id] = Trace(outlined.summary, spans(snapshot, rows[:most] if most else rows))
    return found


def spans(snapshot: Snapshot, rows: Collection[int]) -> list[Span]:
    """Return the spans of these rows that are kept, in this order."""
    found = snapshot.rows(
        f"SELECT {COLUMNS} {FROM} WHERE s.row IN (SELECT unnest($rows::BIGINT[])) AND s.row BETWEEN $low AND $high",
        {"rows": list(rows), "low": min(rows, default=0), "high": max(rows, default=0)},
    )
    by_row = {row[0]: row for row in found}
    return [as_span(*by_row[row]) for row in rows if row in by_row]


def small(snapshot: Snapshot, trace_id: str) -> Trace | None:
    """Return a trace of at most READ_AT_ONCE spans, without logs; None where it has more. It may have none."""
    rows = snapshot.rows(
        f"SELECT {COLUMNS} {FROM} WHERE trace_id = $trace_id LIMIT {READ_AT_ONCE + 1}", {"trace_id": trace_id}
    )
    if len(rows) > READ_AT_ONCE:
        return None
    found = sorted((as_span(*row) for row in rows), key=lambda one: (one.parent_id is not None, one.start_ns, one.row))
    if not found:
        return Trace(TraceSummary(trace_id, "", "", (), 0, 0, 0, error=False, complete=False), ())
    types = snapshot.columns.get(OUTLINE["status"], frozenset())
    return Trace(_summary(trace_id, [_outlined(one, types) for one in found]), [node.span for node in tree.walk(found)])


def _outlined(span: Span, types: Collection[str]) -> SpanOutline:
    """Return what a summary has of a span."""
    route, status = (
        None if (value := span.attributes.get(name, span.resource.get(name))) is None else as_text(value)[1]
        for name in (OUTLINE["route"], OUTLINE["status"])
    )
    return SpanOutline(
        span.row,
        span.span_id,
        span.parent_id,
        span.name,
        span.service,
        span.kind,
        span.start_ns,
        span.duration_ms,
        span.error,
        span.status_message,
        route,
        from_text(status, types),
    )


def outline(snapshot: Snapshot, trace_id: str, most: int) -> Outline | None:
    types = snapshot.columns.get(OUTLINE["status"], frozenset())
    rows = snapshot.rows(
        "SELECT row, span, parent, name, service, kind, time_ns, duration, error, coalesce(message, ''), route, status,"
        f" method, path, url, event_times FROM ({snapshot.source(OUTLINE, ('event_times',))}) WHERE trace = $trace_id"
        " ORDER BY parent IS NOT NULL, time_ns, row",
        {"trace_id": trace_id},
    )
    made: list[tuple[Any, ...]] = [(*row[:11], from_text(row[11], types), *row[12:15], row[15] or ()) for row in rows]
    spans = [SpanOutline(*one) for one in made]
    return Outline(_summary(trace_id, spans), spans[:most] if most else spans) if spans else None


def _summary(trace_id: str, spans: Sequence[SpanOutline]) -> TraceSummary:
    """Return what `_summaries` does of one trace, of its spans in the order of an outline."""
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
        extent_ms=extent,
        errors=sum(one.error for one in spans),
        roots=roots,
    )


def find(snapshot: Snapshot, trace_id: str, text: str) -> list[int]:
    rows = snapshot.rows(
        f"SELECT s.row {FROM} WHERE trace_id = $trace_id AND {snapshot.contains('$needle')}",
        {"trace_id": trace_id, "needle": text.lower()},
    )
    return [row for (row,) in rows]


def span(snapshot: Snapshot, trace_id: str, span_id: str, row: int) -> Span | None:
    found = snapshot.rows(
        f"SELECT {COLUMNS} {FROM} WHERE trace_id = $trace_id AND span_id = $span_id AND $row IN (0, s.row)"
        " ORDER BY time_ns, s.row LIMIT 1",
        {"trace_id": trace_id, "span_id": span_id, "row": row},
    )
    return as_span(*found[0]) if found else None


def links_to(snapshot: Snapshot, trace_id: str) -> list[tuple[SpanReference, str]]:
    found = snapshot.rows(
        f"SELECT {COLUMNS} {FROM} WHERE contains(others, $trace_id) AND trace_id <> $trace_id"
        " ORDER BY time_ns LIMIT 100",
        {"trace_id": trace_id},
    )
    return [
        (SpanReference(one.trace_id, one.span_id, one.row, one.name, one.service), link.span_id)
        for one in (as_span(*row) for row in found)
        for link in one.links
        if link.trace_id == trace_id
    ]


def services(snapshot: Snapshot) -> list[ServiceSummary]:
    fields = {name: SUMMARY[name] for name in ("trace", "service", "error", "parent", "duration")}
    fields["kind"] = "span.kind"
    rows = snapshot.rows(
        "SELECT service, count(*), count(DISTINCT trace), count(*) FILTER (error), "
        + ", ".join(
            f"quantile_cont(duration, {part}) FILTER (parent IS NULL OR kind IN ('server', 'consumer'))"
            for part in (0.5, 0.95)
        )
        + f", max(time_ns) FROM ({snapshot.source(fields)}) GROUP BY service ORDER BY service"
    )
    return [ServiceSummary(*row) for row in rows]
