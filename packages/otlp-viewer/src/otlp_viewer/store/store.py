"""Keeps the newest spans and logs, and answers what is asked about them."""

# ruff: noqa: S608 - statements are made of our own names; whatever was sent is bound.

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import duckdb
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from otlp_viewer import tree
from otlp_viewer.model import (
    ALL_LOGS,
    ALL_TRACES,
    Log,
    LogFilter,
    Outline,
    Span,
    SpanOutline,
    SpanReference,
    Trace,
    TraceFilter,
    TraceSummary,
)
from otlp_viewer.query.answer import answer, extent, slowest
from otlp_viewer.query.compare import compare
from otlp_viewer.query.parse import parse, typed, types
from otlp_viewer.query.types import Answer, Box, Comparison, Query
from otlp_viewer.store import wide
from otlp_viewer.store.events import Events, Snapshot

SPAN = {
    "time": "TIMESTAMP",
    "duration_ms": "DOUBLE",
    "trace.trace_id": "VARCHAR",
    "trace.span_id": "VARCHAR",
    "trace.parent_id": "VARCHAR",
}
LOG = {"time": "TIMESTAMP", "trace.trace_id": "VARCHAR", "trace.span_id": "VARCHAR"}
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
LOG_FIELDS = {"trace": "trace.trace_id", "service": "service.name", "severity": "severity_number"}
LAYOUT = 1  # of the tables; raise it when they change


@dataclass(frozen=True, slots=True)
class Added:
    """What became of the spans of one request."""

    trace_ids: set[str] = field(default_factory=set)
    rejected: int = 0
    reason: str = ""
    """Why they were rejected; "" when none was."""


class Store:
    """Holds at most `max_spans` spans and as many logs, oldest first out; safe between threads.

    They are in memory, or in the file `path`. Raises ValueError when that file is not one of ours or cannot be
    opened, with the reason.
    """

    def __init__(self, max_spans: int = 100_000, path: str = ":memory:") -> None:
        try:
            self._database = duckdb.connect(
                path,
                config={
                    "autoinstall_known_extensions": "false",
                    "autoload_known_extensions": "false",
                    "memory_limit": "2GB",
                    "threads": "2",
                },
            )
            # Nothing that is asked may read or write files, or the network.
            self._database.execute("SET enable_external_access = false; SET lock_configuration = true")
            self._database.execute("CREATE TABLE IF NOT EXISTS layout (version INTEGER)")
            versions = self._database.execute("SELECT version FROM layout").fetchall()
            if not versions:
                self._database.execute("INSERT INTO layout VALUES (?)", [LAYOUT])
            elif versions != [(LAYOUT,)]:
                raise ValueError(f"another version of the viewer wrote {path}; move it away")
            self._database.execute("CREATE TABLE IF NOT EXISTS chunks (kind VARCHAR, number INTEGER, columns VARCHAR)")
            lock = Lock()
            self._honeycomb_pages: dict[str, str] = {}
            self._spans = Events(self._database, lock, "spans", max_spans, SPAN, key=True)
            self._logs = Events(self._database, lock, "logs", max_spans, LOG)
        except duckdb.Error as error:
            raise ValueError(str(error).splitlines()[0]) from error

    def close(self) -> None:
        self._database.close()

    # What comes in

    def add_spans(self, messages: Iterable[ResourceSpans], honeycomb_page: str = "") -> Added:
        """Keep spans; one that is sent again replaces the first. Raises duckdb.Error when nothing could be kept.

        `honeycomb_page` is where Honeycomb shows the traces of the services that sent them, but for the trace's id.
        """
        events, rejected = wide.spans(messages)
        self._spans.add(events)
        for service in {event["service.name"] for event in events}:
            self._honeycomb_pages[service] = honeycomb_page
        return Added(
            {event["trace.trace_id"] for event in events},
            rejected,
            "refused by their ids: a trace id is 16 bytes, a span id 8, neither all zero" if rejected else "",
        )

    def add_logs(self, messages: Iterable[ResourceLogs]) -> None:
        """Keep log records. Raises duckdb.Error when nothing could be kept."""
        self._logs.add(wide.logs(messages))

    # What is kept

    def counts(self) -> tuple[int, int]:
        """Return how many spans and how many logs are kept."""
        return self._spans.count(), self._logs.count()

    @property
    def version(self) -> tuple[int, int]:
        """Of spans and of logs: changes whenever there is something new; 0 while there was none."""
        return self._spans.version, self._logs.version

    def columns(self) -> dict[str, str]:
        """Return the fields of spans that can be asked about, by name, each with Honeycomb's name of its type."""
        with self._spans.snapshot() as snapshot:
            return types(snapshot.columns)

    def values(self, column: str, most: int = 100) -> list[str]:
        """Return the most frequent values of a field of spans, as text and in order."""
        with self._spans.snapshot() as snapshot:
            rows = snapshot.rows(
                f"SELECT value FROM ({snapshot.source(value=column)}) WHERE value IS NOT NULL"
                f" GROUP BY value ORDER BY count(*) DESC, value LIMIT {most:d}"
            )
        return sorted(value for (value,) in rows)

    def honeycomb_page(self, service: str) -> str:
        """Return where Honeycomb shows a trace of this service, but for the trace's id; "" where that is unknown."""
        return self._honeycomb_pages.get(service, "")

    # Queries

    def parse(self, specification: object, now: float | None = None) -> Query:
        """Read a query in Honeycomb's JSON; raises query.types.Invalid with what is wrong with it.

        `now` is the end of a relative time range, in seconds since 1970.
        """
        with self._spans.snapshot() as snapshot:
            return parse(specification, snapshot.columns, now)

    def query(self, query: Query) -> Answer:
        """Answer a query; raises query.types.Invalid when it costs too much."""
        with self._spans.snapshot() as snapshot:
            return answer(snapshot, query)

    def extent(self, query: Query) -> tuple[float, float] | None:
        """Return when the first and the last span started that the query's filters want, in seconds since 1970."""
        with self._spans.snapshot() as snapshot:
            return extent(snapshot, query)

    def compare(self, query: Query, box: Box) -> Comparison:
        """Return what sets the spans in the box apart from the query's others."""
        with self._spans.snapshot() as snapshot:
            return compare(snapshot, query, box)

    def slowest(self, query: Query, box: Box) -> SpanReference | None:
        """Return the span in the box with the largest value, or None."""
        with self._spans.snapshot() as snapshot:
            return slowest(snapshot, query, box)

    # Traces and logs

    def traces(self, limit: int, narrow: TraceFilter = ALL_TRACES) -> list[TraceSummary]:
        """Return summaries of the `limit` traces that started last, newest first."""
        conditions: list[str] = []
        parameters: list[Any] = []
        if narrow.service:
            conditions.append("bool_or(service = ?)")
            parameters.append(narrow.service)
        if narrow.route:
            conditions.append("bool_or(route = ? OR (parent IS NULL AND name = ?))")
            parameters += [narrow.route, narrow.route]
        if narrow.status in ("error", "ok"):
            conditions.append(("" if narrow.status == "error" else "NOT ") + "bool_or(error = 'true')")
        elif narrow.status:
            conditions.append("bool_or(parent IS NULL AND length(status) = 3 AND starts_with(status, ?))")
            parameters.append(narrow.status[0])
        if narrow.min_duration_ms:
            conditions.append("coalesce(max(duration) FILTER (WHERE parent IS NULL), max(duration)) >= ?")
            parameters.append(narrow.min_duration_ms)
        with self._spans.snapshot() as snapshot:
            if narrow.text:
                matching, needles = snapshot.matching(narrow.text)
                conditions.append(f"bool_or(seq IN ({matching}))")
                parameters += needles
            return _summaries(snapshot, limit, parameters, having=" AND ".join(["true", *conditions]))

    def trace(self, trace_id: str) -> Trace | None:
        """Return a trace with its spans in tree order and its logs by time, or None."""
        found = self.trees([trace_id]).get(trace_id)
        if found is None:
            return None
        with self._logs.snapshot() as snapshot:
            logs = [wide.as_log(*one) for one in snapshot.events("trace_id = ?", [trace_id])]
        return Trace(found.summary, found.spans, logs)

    def trees(self, trace_ids: Collection[str]) -> dict[str, Trace]:
        """Return those of these traces that are kept, by id, with their spans in tree order and without logs."""
        with self._spans.snapshot() as snapshot:
            events = snapshot.events("trace_id IN (SELECT unnest(?))", [list(trace_ids)], order="seq")
        traces: dict[str, list[Span]] = {}
        for row, event in events:
            span = wide.as_span(row, event)
            traces.setdefault(span.trace_id, []).append(span)
        return {
            trace_id: Trace(summary(members), [node.span for node in tree.walk(members)])
            for trace_id, members in traces.items()
        }

    def outline(self, trace_id: str, most: int) -> Outline | None:
        """Return what a waterfall shows of a trace's first `most` spans, roots before others."""
        with self._spans.snapshot() as snapshot:
            summaries = _summaries(snapshot, 1, [trace_id], where="trace = ?")
            if not summaries:
                return None
            status = types(snapshot.columns).get(OUTLINE["status"], "string")
            names = (
                "seq, span, parent, name, service, kind, epoch_us(time) * 1000, duration, error = 'true',"
                " coalesce(message, ''), route, status, method, path, url"
            )
            rows = snapshot.rows(
                f"SELECT {names} FROM ({snapshot.source(**OUTLINE)}) WHERE trace = ?"
                f" ORDER BY parent IS NOT NULL, time, seq LIMIT {most:d}",
                [trace_id],
            )
        spans = [(*row[:11], typed(row[11], status), *row[12:]) for row in rows]
        return Outline(summaries[0], [SpanOutline(*span) for span in spans])

    def span(self, trace_id: str, span_id: str, row: int = 0) -> Span | None:
        """Return all of one span; `row` says which, where several have its id."""
        with self._spans.snapshot() as snapshot:
            found = snapshot.events("trace_id = ? AND span_id = ? AND ? IN (0, seq)", [trace_id, span_id, row], limit=1)
        return wide.as_span(*found[0]) if found else None

    def logs(self, limit: int, narrow: LogFilter = ALL_LOGS) -> list[Log]:
        """Return the newest log records, newest first."""
        conditions, parameters = ["true"], []
        for condition, value in (
            ("trace = ?", narrow.trace_id),
            ("service = ?", narrow.service),
            ("TRY_CAST(severity AS INTEGER) >= ?", narrow.severity),
        ):
            if value:
                conditions.append(condition)
                parameters.append(value)
        with self._logs.snapshot() as snapshot:
            if narrow.text:
                matching, needles = snapshot.matching(narrow.text)
                conditions.append(f"seq IN ({matching})")
                parameters += needles
            newest = (
                f"SELECT seq FROM ({snapshot.source(**LOG_FIELDS)}) WHERE {' AND '.join(conditions)}"
                f" ORDER BY time DESC, seq DESC LIMIT {limit:d}"
            )
            found = snapshot.events(f"seq IN ({newest})", parameters, order="time DESC, seq DESC")
            return [wide.as_log(*one) for one in found]


def summary(spans: list[Span]) -> TraceSummary:
    """Return what a list of traces shows of one: times, counts, services, and what its root was."""
    by_start = sorted(spans, key=lambda span: span.start_ns)
    root = next((span for span in by_start if span.parent_id is None), None)
    first = root or by_start[0]
    ids = {span.span_id for span in spans}
    start = by_start[0].start_ns
    end = max(span.start_ns / 1e6 + span.duration_ms for span in spans)
    return TraceSummary(
        first.trace_id,
        first.name,
        first.service,
        sorted({span.service for span in spans}),
        start,
        root.duration_ms if root else round(end - start / 1e6, 3),
        len(spans),
        any(span.error for span in spans),
        root is not None and all(span.parent_id is None or span.parent_id in ids for span in spans),
        root.attributes.get("http.route") if root else None,
        root.attributes.get("http.response.status_code") if root else None,
    )


def _summaries(
    snapshot: Snapshot, limit: int, parameters: list[Any], where: str = "true", having: str = "true"
) -> list[TraceSummary]:
    """Return the same as `summary` of each trace, newest first; `where` and `having` are SQL over SUMMARY's names."""
    rows = snapshot.rows(
        f"""
        WITH spans AS MATERIALIZED (SELECT * FROM ({snapshot.source(**SUMMARY)}) WHERE {where}),
        newest AS (
            SELECT trace, min(time) AS start FROM spans GROUP BY trace HAVING {having}
            ORDER BY start DESC, trace LIMIT {limit:d}
        ),
        shown AS (SELECT spans.* FROM spans SEMI JOIN newest USING (trace)),
        first AS (
            SELECT DISTINCT ON (trace) * FROM shown ORDER BY trace, parent IS NOT NULL, time, seq
        ),
        lost AS (
            SELECT DISTINCT trace FROM shown AS child WHERE parent IS NOT NULL AND NOT EXISTS
            (SELECT 1 FROM shown AS above WHERE above.trace = child.trace AND above.span = child.parent)
        )
        SELECT trace, first.name, first.service, list(DISTINCT shown.service), epoch_us(min(shown.time)) * 1000,
            CASE WHEN first.parent IS NULL THEN first.duration
            ELSE (max(epoch_us(shown.time) + round(shown.duration * 1000)) - min(epoch_us(shown.time))) / 1000 END,
            count(*), bool_or(shown.error = 'true'),
            first.parent IS NULL AND trace NOT IN (SELECT trace FROM lost),
            CASE WHEN first.parent IS NULL THEN first.route END, CASE WHEN first.parent IS NULL THEN first.status END
        FROM shown JOIN first USING (trace)
        GROUP BY trace, first.name, first.service, first.parent, first.duration, first.route, first.status
        ORDER BY min(shown.time) DESC, trace
        """,
        parameters,
    )
    status = types(snapshot.columns).get(SUMMARY["status"], "string")
    found = [(*row[:3], sorted(row[3]), *row[4:-1], typed(row[-1], status)) for row in rows]
    return [TraceSummary(*trace) for trace in found]
