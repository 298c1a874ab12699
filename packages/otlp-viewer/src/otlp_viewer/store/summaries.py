"""Summarizes traces and services."""

# ruff: noqa: S608 - statements contain only generated names; user input is bound.

import re
from collections.abc import Sequence
from typing import Any

from otlp_viewer import tree
from otlp_viewer.model import ServiceSummary, SpanReference, TraceFilter, TraceSummary
from otlp_viewer.query.answer import in_box
from otlp_viewer.query.compile import Compiled
from otlp_viewer.store.snapshot import Snapshot
from otlp_viewer.values import from_text

FIELDS = {
    "trace": "trace.trace_id",
    "span": "trace.span_id",
    "parent": "trace.parent_id",
    "duration": "duration_ms",
    "name": "name",
    "service": "service.name",
    "kind": "span.kind",
    "error": "error",
    "route": "http.route",
    "status": "http.response.status_code",
    "path": "url.path",
    "url": "url.full",
}
ROOTS_FIRST = "(parent IS NOT NULL, time_ns, row)"
"""Order of the spans of a trace. The first one names the trace: the first root, or else the first span."""
EXTENT = "(max(time_ns + CAST(round(duration * 1e6) AS HUGEINT)) - min(time_ns)) / 1e6"
DURATION = (
    f"CASE WHEN count(*) FILTER (parent IS NULL) = 1 THEN max(duration) FILTER (parent IS NULL) ELSE {EXTENT} END"
)
"""Duration of a trace in milliseconds: of its root, or EXTENT if it has none or several."""
SUMMARY = (
    f"trace, min(time_ns), {DURATION}, {EXTENT}, count(*), count(*) FILTER (error), count(*) FILTER (parent IS NULL),"
    " any_value(matched_span), any_value(matched_row)"
)
ORDERS = {
    "start": "min(time_ns)",
    "duration": DURATION,
    "spans": "count(*)",
    "errors": "count(*) FILTER (error)",
    "name": f"arg_min(name, {ROOTS_FIRST})",
    "status": "1000 * bool_or(error)::INTEGER"
    " + coalesce(max(TRY_CAST(status AS INTEGER)) FILTER (parent IS NULL AND length(status) = 3), 0)",
}


def summaries(
    snapshot: Snapshot, limit: int, trace_filter: TraceFilter, order: str, descending: bool, offset: int
) -> list[TraceSummary]:
    """Return summaries of traces."""
    source, having, parameters = _filtered(snapshot, trace_filter)
    order_by = f"{ORDERS[order]} {'DESC' if descending else 'ASC'}"
    rows = snapshot.rows(
        f"SELECT {SUMMARY} FROM {source} GROUP BY trace HAVING {having} ORDER BY {order_by}, trace"
        f" LIMIT {limit:d} OFFSET {offset:d}",
        parameters,
    )
    return _summaries(snapshot, rows)


def highlights(
    snapshot: Snapshot, newest_limit: int, other_limit: int
) -> tuple[list[TraceSummary], list[TraceSummary], list[TraceSummary]]:
    """Return the newest traces, the slowest, and the newest with errors."""
    source, _, _ = _filtered(snapshot, TraceFilter())
    lists = (
        ("true", "start", newest_limit),
        ("true", "duration", other_limit),
        ("errors > 0", "start", other_limit),
    )
    selected = " UNION ".join(
        f"(FROM summaries WHERE {where} ORDER BY {order} DESC, trace LIMIT {limit:d})" for where, order, limit in lists
    )
    names = "trace, start, duration, extent, spans, errors, roots, matched_span, matched_row"
    rows = snapshot.rows(
        f"WITH summaries({names}) AS MATERIALIZED (SELECT {SUMMARY} FROM {source} GROUP BY trace) {selected}"
    )
    traces = _summaries(snapshot, rows)
    newest = sorted(traces, key=lambda trace: (-trace.start_ns, trace.trace_id))
    slowest = sorted(traces, key=lambda trace: (-trace.duration_ms, trace.trace_id))
    failed = [trace for trace in newest if trace.error]
    return newest[:newest_limit], slowest[:other_limit], failed[:other_limit]


def count(snapshot: Snapshot, trace_filter: TraceFilter) -> int:
    """Return the number of matching traces."""
    source, having, parameters = _filtered(snapshot, trace_filter)
    matching = f"SELECT trace FROM {source} GROUP BY trace HAVING {having}"
    return int(snapshot.rows(f"SELECT count(*) FROM ({matching})", parameters)[0][0])


def _filtered(snapshot: Snapshot, trace_filter: TraceFilter) -> tuple[str, str, dict[str, Any]]:
    """Return SQL for the spans to group by trace, the condition on each group, and their parameters."""
    conditions = ["true"]
    parameters: dict[str, Any] = {}
    contains = f"SELECT s.row FROM {snapshot.table} WHERE {snapshot.contains('$needle')}"
    for name, condition, value in (
        ("service", "bool_or(service = $service)", trace_filter.service),
        ("route", "bool_or(route = $route OR (parent IS NULL AND name = $route))", trace_filter.route),
        ("min_duration", f"{DURATION} >= $min_duration", trace_filter.min_duration_ms),
        ("max_duration", f"{DURATION} <= $max_duration", trace_filter.max_duration_ms),
        ("start", "min(time_ns) >= $start", trace_filter.start_ns),
        ("end", "min(time_ns) < $end", trace_filter.end_ns),
        ("needle", f"bool_or(row IN ({contains}))", trace_filter.text.lower()),
    ):
        if value:
            conditions.append(condition)
            parameters[name] = value
    if trace_filter.status in ("error", "ok"):
        conditions.append(("" if trace_filter.status == "error" else "NOT ") + "bool_or(error)")
    elif trace_filter.status:
        conditions.append("bool_or(parent IS NULL AND length(status) = 3 AND starts_with(status, $status))")
        parameters["status"] = trace_filter.status[0]
    source = f"(SELECT *, NULL AS matched_span, NULL AS matched_row FROM ({snapshot.source(FIELDS)}))"
    if trace_filter.query is not None:
        sql = Compiled(snapshot, trace_filter.query)
        trace, span, value = map(sql.text, ("trace.trace_id", "trace.span_id", "duration_ms"))
        where = sql.where
        if trace_filter.extra_filters:
            where += f" AND {sql.all_or_any(trace_filter.extra_filters, False)}"
        if trace_filter.box is not None:
            value, inside = in_box(sql, trace_filter.box)
            where += f" AND {inside}"
        source = (
            f"({snapshot.source(FIELDS)}) JOIN (SELECT {trace} AS trace, arg_max({span}, {value}) AS matched_span,"
            f" arg_max(row, {value}) AS matched_row FROM ({sql.source()}) WHERE {where} GROUP BY {trace}) USING (trace)"
        )
        parameters |= sql.parameters
    return source, " AND ".join(conditions), parameters


def _summaries(snapshot: Snapshot, rows: Sequence[tuple[Any, ...]]) -> list[TraceSummary]:
    """Return the summaries for rows of SUMMARY. Reads the other details for these traces only."""
    parameters = {"traces": [row[0] for row in rows]}
    detail_rows = snapshot.rows(
        f"""
        WITH spans AS MATERIALIZED (
            FROM ({snapshot.source(FIELDS)}) WHERE trace IN (SELECT unnest($traces::VARCHAR[]))
        )
        SELECT child.trace, list_sort(list(DISTINCT child.service)),
            bool_or(child.parent IS NOT NULL AND p.span IS NULL), bool_or(p.time_ns >= child.time_ns),
            unnest(arg_min(
                {{'name': child.name, 'service': child.service, 'parent': child.parent, 'route': child.route,
                  'status': child.status, 'path': child.path, 'url': child.url}},
                (child.parent IS NOT NULL, child.time_ns, child.row)))
        FROM spans AS child LEFT JOIN spans AS p ON p.trace = child.trace AND p.span = child.parent
        GROUP BY child.trace
        """,
        parameters,
    )
    details = {row[0]: row[1:] for row in detail_rows}
    # In a cycle, at least one parent does not start before its child.
    cyclic = _cyclic(snapshot, [trace for trace, _, orphans, suspect, *_ in detail_rows if suspect and not orphans])
    types = snapshot.columns.get(FIELDS["status"], frozenset())
    result = []
    for trace, start, duration, extent, spans, errors, roots, matched_span, matched_row in rows:
        services, orphans, _, name, service, parent, route, status, path, url = details[trace]
        result.append(
            TraceSummary(
                trace_id=trace,
                name=name,
                service=service,
                services=services,
                start_ns=start,
                duration_ms=duration,
                span_count=spans,
                error=errors > 0,
                complete=parent is None and not orphans and trace not in cyclic,
                route=route if parent is None else None,
                status=from_text(status, types) if parent is None else None,
                path=path_of(name, route, path, url),
                extent_ms=extent,
                errors=errors,
                roots=roots,
                matched=None if matched_row is None else SpanReference(trace, matched_span, matched_row),
            )
        )
    return result


def path_of(name: str, route: str | None, path: str | None, url: str | None) -> str:
    """Return the path of a span's URL, or "" if the span has a route or its name contains the path."""
    result = path or re.sub(r"^[\w+.-]*://[^/?#]*|[?#].*", "", url or "", flags=re.DOTALL)
    return "" if route or result in name else result


def _cyclic(snapshot: Snapshot, traces: Sequence[str]) -> set[str]:
    """Return the traces in which the parents of some spans form a cycle."""
    pairs: dict[str, list[tuple[str, str | None]]] = {}
    if traces:
        for trace, span_id, parent_id in snapshot.rows(
            "SELECT trace_id, span_id, parent_id FROM stored.spans"
            " WHERE trace_id IN (SELECT unnest($traces::VARCHAR[]))",
            {"traces": list(traces)},
        ):
            pairs.setdefault(trace, []).append((span_id, parent_id))
    return {trace for trace, spans in pairs.items() if tree.has_cycle(spans)}


def services(snapshot: Snapshot) -> list[ServiceSummary]:
    entry = "FILTER (parent IS NULL OR kind IN ('server', 'consumer'))"
    rows = snapshot.rows(
        "SELECT service, count(*), count(DISTINCT trace), count(*) FILTER (error),"
        f" quantile_cont(duration, 0.5) {entry}, quantile_cont(duration, 0.95) {entry}, max(time_ns)"
        f" FROM ({snapshot.source(FIELDS)}) GROUP BY service ORDER BY service"
    )
    return [ServiceSummary(*row) for row in rows]
