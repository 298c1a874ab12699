"""Finds traces, and services, and sums each up."""

# ruff: noqa: S608 - statements are made of our own names; whatever was sent is bound.

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
FIRST = "(parent IS NOT NULL, time_ns, row)"
"""A trace is called after its first root, or else its first span."""
EXTENT = "(max(time_ns + CAST(round(duration * 1e6) AS HUGEINT)) - min(time_ns)) / 1e6"
LENGTH = f"CASE WHEN count(*) FILTER (parent IS NULL) = 1 THEN max(duration) FILTER (parent IS NULL) ELSE {EXTENT} END"
"""How long a trace took, in milliseconds: its root, or all of it where it has none or several."""
FOUND = (
    f"trace, min(time_ns), {LENGTH}, {EXTENT}, count(*), count(*) FILTER (error), count(*) FILTER (parent IS NULL),"
    " any_value(matched_span), any_value(matched_row)"
)
ORDERS = {
    "start": "min(time_ns)",
    "duration": LENGTH,
    "spans": "count(*)",
    "errors": "count(*) FILTER (error)",
    "name": f"arg_min(name, {FIRST})",
    "status": "1000 * bool_or(error)::INTEGER"
    " + coalesce(max(TRY_CAST(status AS INTEGER)) FILTER (parent IS NULL AND length(status) = 3), 0)",
}


def summaries(
    snapshot: Snapshot, limit: int, narrow: TraceFilter, order: str, descending: bool, offset: int
) -> list[TraceSummary]:
    """Return summaries of traces."""
    source, having, parameters = _narrowed(snapshot, narrow)
    by = f"{ORDERS[order]} {'DESC' if descending else 'ASC'}"
    found = snapshot.rows(
        f"SELECT {FOUND} FROM {source} GROUP BY trace HAVING {having} ORDER BY {by}, trace"
        f" LIMIT {limit:d} OFFSET {offset:d}",
        parameters,
    )
    return _summed_up(snapshot, found)


def highlights(
    snapshot: Snapshot, newest: int, few: int
) -> tuple[list[TraceSummary], list[TraceSummary], list[TraceSummary]]:
    """Return the newest traces, the slowest, and the newest with errors."""
    source, _, _ = _narrowed(snapshot, TraceFilter())
    lists = (("true", "start", newest), ("true", "length", few), ("errors > 0", "start", few))
    chosen = " UNION ".join(
        f"(FROM every WHERE {where} ORDER BY {order} DESC, trace LIMIT {most:d})" for where, order, most in lists
    )
    names = "trace, start, length, extent, spans, errors, roots, matched_span, matched_row"
    found = snapshot.rows(f"WITH every({names}) AS MATERIALIZED (SELECT {FOUND} FROM {source} GROUP BY trace) {chosen}")
    every = _summed_up(snapshot, found)
    by_start = sorted(every, key=lambda one: (-one.start_ns, one.trace_id))
    slowest = sorted(every, key=lambda one: (-one.duration_ms, one.trace_id))
    return by_start[:newest], slowest[:few], [one for one in by_start if one.error][:few]


def count(snapshot: Snapshot, narrow: TraceFilter) -> int:
    """Return how many traces there are."""
    source, having, parameters = _narrowed(snapshot, narrow)
    counted = f"SELECT trace FROM {source} GROUP BY trace HAVING {having}"
    return int(snapshot.rows(f"SELECT count(*) FROM ({counted})", parameters)[0][0])


def _narrowed(snapshot: Snapshot, narrow: TraceFilter) -> tuple[str, str, dict[str, Any]]:
    """Return what traces are selected from, what is true of each as a group of spans, and the parameters."""
    conditions = ["true"]
    parameters: dict[str, Any] = {}
    contains = f"SELECT s.row FROM {snapshot.table} WHERE {snapshot.contains('$needle')}"
    for name, condition, value in (
        ("service", "bool_or(service = $service)", narrow.service),
        ("route", "bool_or(route = $route OR (parent IS NULL AND name = $route))", narrow.route),
        ("least", f"{LENGTH} >= $least", narrow.min_duration_ms),
        ("most", f"{LENGTH} <= $most", narrow.max_duration_ms),
        ("start", "min(time_ns) >= $start", narrow.start_ns),
        ("until", "min(time_ns) < $until", narrow.end_ns),
        ("needle", f"bool_or(row IN ({contains}))", narrow.text.lower()),
    ):
        if value:
            conditions.append(condition)
            parameters[name] = value
    if narrow.status in ("error", "ok"):
        conditions.append(("" if narrow.status == "error" else "NOT ") + "bool_or(error)")
    elif narrow.status:
        conditions.append("bool_or(parent IS NULL AND length(status) = 3 AND starts_with(status, $status))")
        parameters["status"] = narrow.status[0]
    source = f"(SELECT *, NULL AS matched_span, NULL AS matched_row FROM ({snapshot.source(FIELDS)}))"
    if narrow.matching is not None:
        sql = Compiled(snapshot, narrow.matching)
        trace, span, value = map(sql.text, ("trace.trace_id", "trace.span_id", "duration_ms"))
        where = sql.where
        if narrow.also:
            where += f" AND {sql.all_or_any(narrow.also, False)}"
        if narrow.box is not None:
            value, inside = in_box(sql, narrow.box)
            where += f" AND {inside}"
        source = (
            f"({snapshot.source(FIELDS)}) JOIN (SELECT {trace} AS trace, arg_max({span}, {value}) AS matched_span,"
            f" arg_max(row, {value}) AS matched_row FROM ({sql.source()}) WHERE {where} GROUP BY {trace}) USING (trace)"
        )
        parameters |= sql.parameters
    return source, " AND ".join(conditions), parameters


def _summed_up(snapshot: Snapshot, found: Sequence[tuple[Any, ...]]) -> list[TraceSummary]:
    """Return summaries of rows of FOUND; what else a summary has is read for these traces alone."""
    parameters = {"traces": [row[0] for row in found]}
    rows = snapshot.rows(
        f"""
        WITH spans AS MATERIALIZED (
            FROM ({snapshot.source(FIELDS)}) WHERE trace IN (SELECT unnest($traces::VARCHAR[]))
        )
        SELECT child.trace, list_sort(list(DISTINCT child.service)),
            bool_or(child.parent IS NOT NULL AND above.span IS NULL), bool_or(above.time_ns >= child.time_ns),
            unnest(arg_min(
                {{'name': child.name, 'service': child.service, 'parent': child.parent, 'route': child.route,
                  'status': child.status, 'path': child.path, 'url': child.url}},
                (child.parent IS NOT NULL, child.time_ns, child.row)))
        FROM spans AS child LEFT JOIN spans AS above ON above.trace = child.trace AND above.span = child.parent
        GROUP BY child.trace
        """,
        parameters,
    )
    more = {row[0]: row[1:] for row in rows}
    # In a circle some span's parent does not start first.
    circular = _circular(snapshot, [trace for trace, _, lost, suspect, *_ in rows if suspect and not lost])
    types = snapshot.columns.get(FIELDS["status"], frozenset())
    made = []
    for trace, start, length, extent, spans, errors, roots, matched_span, matched_row in found:
        services, lost, _, name, service, parent, route, status, path, url = more[trace]
        made.append(
            TraceSummary(
                trace_id=trace,
                name=name,
                service=service,
                services=services,
                start_ns=start,
                duration_ms=length,
                span_count=spans,
                error=errors > 0,
                complete=parent is None and not lost and trace not in circular,
                route=route if parent is None else None,
                status=from_text(status, types) if parent is None else None,
                path=path_of(name, route, path, url),
                extent_ms=extent,
                errors=errors,
                roots=roots,
                matched=None if matched_row is None else SpanReference(trace, matched_span, matched_row),
            )
        )
    return made


def path_of(name: str, route: str | None, path: str | None, url: str | None) -> str:
    """Return the path of a span's address; "" where its route or its name says it."""
    found = path or re.sub(r"^[\w+.-]*://[^/?#]*|[?#].*", "", url or "", flags=re.DOTALL)
    return "" if route or found in name else found


def _circular(snapshot: Snapshot, traces: Sequence[str]) -> set[str]:
    """Return which of these traces have spans whose parents form a circle."""
    pairs: dict[str, list[tuple[str, str | None]]] = {}
    if traces:
        for trace, span_id, parent_id in snapshot.rows(
            "SELECT trace_id, span_id, parent_id FROM stored.spans"
            " WHERE trace_id IN (SELECT unnest($traces::VARCHAR[]))",
            {"traces": list(traces)},
        ):
            pairs.setdefault(trace, []).append((span_id, parent_id))
    return {trace for trace, found in pairs.items() if tree.has_circle(found)}


def services(snapshot: Snapshot) -> list[ServiceSummary]:
    entry = "FILTER (parent IS NULL OR kind IN ('server', 'consumer'))"
    rows = snapshot.rows(
        "SELECT service, count(*), count(DISTINCT trace), count(*) FILTER (error),"
        f" quantile_cont(duration, 0.5) {entry}, quantile_cont(duration, 0.95) {entry}, max(time_ns)"
        f" FROM ({snapshot.source(FIELDS)}) GROUP BY service ORDER BY service"
    )
    return [ServiceSummary(*row) for row in rows]
