"""Queries log records."""

# ruff: noqa: S608 - statements contain only generated names; user input is bound.

from collections.abc import Collection
from typing import Any

from otlp_viewer.messages import Log
from otlp_viewer.model import LogFilter
from otlp_viewer.query.compile import Compiled
from otlp_viewer.store.snapshot import Snapshot

COLUMNS = "s.row, s.record, o.service, o.resource, o.scope, s.time_ns, s.severity_number, s.trace_id, s.span_id"


def rows_of_trace(snapshot: Snapshot, trace_id: str) -> list[int]:
    """Return the rows of a trace's log records, ordered by time."""
    rows = snapshot.rows(
        "SELECT row FROM stored.logs WHERE trace_id = $trace_id ORDER BY time_ns, row", {"trace_id": trace_id}
    )
    return [row for (row,) in rows]


def read(snapshot: Snapshot, rows: Collection[int]) -> list[Log]:
    """Return the log records of these rows that are still stored, ordered by time."""
    records = snapshot.rows(
        f"SELECT {COLUMNS} FROM {snapshot.table} WHERE s.row IN (SELECT unnest($rows::BIGINT[])) ORDER BY time_ns, row",
        {"rows": list(rows)},
    )
    return [Log(*record) for record in records]


def newest(snapshot: Snapshot, limit: int, log_filter: LogFilter, offset: int) -> list[Log]:
    where, parameters = _conditions(snapshot, log_filter)
    selected = f"SELECT s.row FROM {snapshot.table} WHERE {where} ORDER BY time_ns DESC, row DESC"
    rows = snapshot.rows(
        f"SELECT {COLUMNS} FROM {snapshot.table} WHERE s.row IN ({selected} LIMIT {limit:d} OFFSET {offset:d})"
        " ORDER BY time_ns DESC, row DESC",
        parameters,
    )
    return [Log(*row) for row in rows]


def over_time(snapshot: Snapshot, log_filter: LogFilter, step_ns: int) -> list[tuple[int, int, int]]:
    """Return the number of log records by time step and severity: (step since 1970, severity number, count)."""
    where, parameters = _conditions(snapshot, log_filter)
    return snapshot.rows(
        f"SELECT time_ns // {step_ns:d} AS step, severity_number, count(*) FROM {snapshot.table} WHERE {where}"
        " GROUP BY ALL ORDER BY ALL",
        parameters,
    )


def _conditions(snapshot: Snapshot, log_filter: LogFilter) -> tuple[str, dict[str, Any]]:
    """Return the SQL condition for a log record `s` with origin `o`, and its parameters."""
    conditions = ["true"]
    parameters: dict[str, Any] = {}
    for name, condition, value in (
        ("trace_id", "trace_id = $trace_id", log_filter.trace_id),
        ("span_id", "span_id = $span_id", log_filter.span_id),
        ("service", "o.service = $service", log_filter.service),
        ("severity", "severity_number >= $severity", log_filter.severity),
        ("event_name", "event_name = $event_name", log_filter.event_name),
        ("start", "time_ns >= $start", log_filter.start_ns),
        ("end", "time_ns < $end", log_filter.end_ns),
        ("needle", snapshot.contains("$needle"), log_filter.text.lower()),
    ):
        if value:
            conditions.append(condition)
            parameters[name] = value
    if log_filter.attribute:
        name, parameters["value"] = log_filter.attribute
        conditions.append(f"({snapshot.expression(name)})::VARCHAR = $value")
    if log_filter.query is not None:
        sql = Compiled(snapshot, log_filter.query)
        matches = sql.where + (
            f" AND {sql.all_or_any(log_filter.extra_filters, False)}" if log_filter.extra_filters else ""
        )
        conditions.append(f"s.row IN (SELECT row FROM ({sql.source()}) WHERE {matches})")
        parameters |= sql.parameters
    return " AND ".join(conditions), parameters
