"""Finds log records."""

# ruff: noqa: S608 - statements are made of our own names; whatever was sent is bound.

from collections.abc import Collection
from typing import Any

from otlp_viewer.messages import Log
from otlp_viewer.model import LogFilter
from otlp_viewer.query.compile import Compiled
from otlp_viewer.store.snapshot import Snapshot

COLUMNS = "s.row, s.record, o.service, o.resource, o.scope, s.time_ns, s.severity_number, s.trace_id, s.span_id"


def of_trace(snapshot: Snapshot, trace_id: str) -> list[int]:
    """Return the rows of a trace's log records, by time."""
    found = snapshot.rows(
        "SELECT row FROM stored.logs WHERE trace_id = $trace_id ORDER BY time_ns, row", {"trace_id": trace_id}
    )
    return [row for (row,) in found]


def logs(snapshot: Snapshot, rows: Collection[int]) -> list[Log]:
    """Return the log records of these rows that are stored, by time."""
    found = snapshot.rows(
        f"SELECT {COLUMNS} FROM {snapshot.table} WHERE s.row IN (SELECT unnest($rows::BIGINT[])) ORDER BY time_ns, row",
        {"rows": list(rows)},
    )
    return [Log(*row) for row in found]


def newest(snapshot: Snapshot, limit: int, narrow: LogFilter, offset: int) -> list[Log]:
    where, parameters = _conditions(snapshot, narrow)
    found = f"SELECT s.row FROM {snapshot.table} WHERE {where} ORDER BY time_ns DESC, row DESC"
    rows = snapshot.rows(
        f"SELECT {COLUMNS} FROM {snapshot.table} WHERE s.row IN ({found} LIMIT {limit:d} OFFSET {offset:d})"
        " ORDER BY time_ns DESC, row DESC",
        parameters,
    )
    return [Log(*row) for row in rows]


def over_time(snapshot: Snapshot, narrow: LogFilter, step_ns: int) -> list[tuple[int, int, int]]:
    """Return how many log records there are: the number of the step of time since 1970, severity number, count."""
    where, parameters = _conditions(snapshot, narrow)
    return snapshot.rows(
        f"SELECT time_ns // {step_ns:d} AS step, severity_number, count(*) FROM {snapshot.table} WHERE {where}"
        " GROUP BY ALL ORDER BY ALL",
        parameters,
    )


def _conditions(snapshot: Snapshot, narrow: LogFilter) -> tuple[str, dict[str, Any]]:
    """Return what is true of a log record `s` of an origin `o`, and the parameters."""
    conditions = ["true"]
    parameters: dict[str, Any] = {}
    for name, condition, value in (
        ("trace_id", "trace_id = $trace_id", narrow.trace_id),
        ("span_id", "span_id = $span_id", narrow.span_id),
        ("service", "o.service = $service", narrow.service),
        ("severity", "severity_number >= $severity", narrow.severity),
        ("event_name", "event_name = $event_name", narrow.event_name),
        ("start", "time_ns >= $start", narrow.start_ns),
        ("until", "time_ns < $until", narrow.end_ns),
        ("needle", snapshot.contains("$needle"), narrow.text.lower()),
    ):
        if value:
            conditions.append(condition)
            parameters[name] = value
    if narrow.attribute:
        name, parameters["wanted"] = narrow.attribute
        conditions.append(f"({snapshot.expression(name)})::VARCHAR = $wanted")
    if narrow.matching is not None:
        sql = Compiled(snapshot, narrow.matching)
        matches = sql.where + (f" AND {sql.all_or_any(narrow.also, False)}" if narrow.also else "")
        conditions.append(f"s.row IN (SELECT row FROM ({sql.source()}) WHERE {matches})")
        parameters |= sql.parameters
    return " AND ".join(conditions), parameters
