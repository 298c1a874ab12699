"""Finds log records."""

from typing import Any

from otlp_viewer.model import Log, LogFilter
from otlp_viewer.store.messages import as_log
from otlp_viewer.store.snapshot import Snapshot

COLUMNS = "s.row, s.record, o.service, o.resource, o.scope, s.time_ns, s.severity_number, s.trace_id, s.span_id"
FROM = "FROM kept.logs AS s JOIN kept.logs_origins AS o ON o.number = s.origin"


def of_trace(snapshot: Snapshot, trace_id: str) -> list[Log]:
    """Return the log records of a trace, by time."""
    rows = snapshot.rows(
        f"SELECT {COLUMNS} {FROM} WHERE trace_id = $trace_id ORDER BY time_ns, row", {"trace_id": trace_id}
    )
    return [as_log(*row) for row in rows]


def newest(snapshot: Snapshot, limit: int, narrow: LogFilter, offset: int) -> list[Log]:
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
    found = f"SELECT s.row {FROM} WHERE {' AND '.join(conditions)} ORDER BY time_ns DESC, row DESC"
    rows = snapshot.rows(
        f"SELECT {COLUMNS} {FROM} WHERE s.row IN ({found} LIMIT {limit:d} OFFSET {offset:d})"
        " ORDER BY time_ns DESC, row DESC",
        parameters,
    )
    return [as_log(*row) for row in rows]
