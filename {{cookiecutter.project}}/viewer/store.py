"""Keeps the newest spans and logs, and answers what is asked about them."""

# ruff: noqa: S608 - statements are made of our own names; whatever was sent is bound.

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, NamedTuple

import duckdb

from viewer import query, tree
from viewer.events import Events, Snapshot
from viewer.otlp import Event
from viewer.query import Box

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


class TraceFilter(NamedTuple):
    """What a list of traces is narrowed to; what is empty or 0 narrows nothing."""

    service: str = ""
    """Of any of the spans."""
    route: str = ""
    """Of any of the spans, or else the name of the root."""
    status: str = ""
    """error, ok, or the first digit of the root's HTTP status and xx."""
    min_duration: float = 0
    """Milliseconds, of the root, or else of the longest span."""
    text: str = ""
    """Part of any value of any span, in any case."""


class LogFilter(NamedTuple):
    """What a list of logs is narrowed to; what is empty or 0 narrows nothing."""

    service: str = ""
    severity: int = 0
    """The lowest severity number."""
    trace_id: str = ""
    text: str = ""


ALL_TRACES, ALL_LOGS = TraceFilter(), LogFilter()
STATUSES = ("error", "ok", "2xx", "3xx", "4xx", "5xx")


class Store:
    """Holds at most `max_spans` spans and as many logs, oldest first out; safe between threads.

    They are in memory, or in the file `path`. Raises ValueError when that file is not one of ours or cannot be
    opened, with the reason.
    """

    in_honeycomb = ""  # where Honeycomb shows the newest trace, but for its id

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
            self._spans = Events(self._database, lock, "spans", max_spans, SPAN, key=True)
            self._logs = Events(self._database, lock, "logs", max_spans, LOG)
        except duckdb.Error as error:
            raise ValueError(str(error).splitlines()[0]) from error

    def close(self) -> None:
        self._database.close()

    def add_spans(self, spans: Iterable[Event]) -> None:
        """Keep wide events of spans; one that is sent again replaces the first."""
        self._spans.add(spans)

    def add_logs(self, logs: Iterable[Event]) -> None:
        """Keep wide events of log records."""
        self._logs.add(logs)

    def counts(self) -> tuple[int, int]:
        """Return how many spans and how many logs are kept."""
        return self._spans.count(), self._logs.count()

    @property
    def version(self) -> tuple[int, int]:
        """Changes whenever there is something new."""
        return self._spans.version, self._logs.version

    def columns(self) -> dict[str, str]:
        """Return the fields of spans that can be asked about, by name, each with Honeycomb's name of its type."""
        with self._spans.snapshot() as snapshot:
            return query.types(snapshot.columns)

    def query(self, specification: object, now: float | None = None) -> dict[str, Any]:
        """Answer a query in Honeycomb's JSON in the form of its results; raises query.Invalid.

        `now` is the end of a relative time range, in seconds since 1970.
        """
        with self._spans.snapshot() as snapshot:
            return query.answer(snapshot, query.parse(specification, snapshot.columns, now))

    def extent(self, specification: object) -> tuple[float, float] | None:
        """Return when the first and the last span started that the query's filters want, in seconds since 1970."""
        with self._spans.snapshot() as snapshot:
            return query.extent(snapshot, query.parse(specification, snapshot.columns))

    def compare(self, specification: object, box: Box) -> dict[str, Any]:
        """Return what sets the spans in the box apart from the query's others; see query.compare."""
        with self._spans.snapshot() as snapshot:
            return query.compare(snapshot, query.parse(specification, snapshot.columns), box)

    def slowest(self, specification: object, box: Box) -> tuple[str, str] | None:
        """Return the trace and span id of the span in the box with the largest value, or None."""
        with self._spans.snapshot() as snapshot:
            return query.slowest(snapshot, query.parse(specification, snapshot.columns), box)

    def values(self, column: str, most: int = 100) -> list[str]:
        """Return the most frequent values of a field of spans, as text and in order."""
        with self._spans.snapshot() as snapshot:
            rows = snapshot.rows(
                f"SELECT value FROM ({snapshot.source(value=column)}) WHERE value IS NOT NULL"
                f" GROUP BY value ORDER BY count(*) DESC, value LIMIT {most:d}"
            )
        return sorted(value for (value,) in rows)

    def traces(self, limit: int, narrow: TraceFilter = ALL_TRACES) -> list[Event]:
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
        if narrow.min_duration:
            conditions.append("coalesce(max(duration) FILTER (WHERE parent IS NULL), max(duration)) >= ?")
            parameters.append(narrow.min_duration)
        with self._spans.snapshot() as snapshot:
            if narrow.text:
                matching, needles = snapshot.matching(narrow.text)
                conditions.append(f"bool_or(seq IN ({matching}))")
                parameters += needles
            return _summaries(snapshot, limit, parameters, having=" AND ".join(["true", *conditions]))

    def trace(self, trace_id: str) -> Event | None:
        """Return a trace's summary with `spans` in tree order and `logs` by time, or None."""
        found = self.trees([trace_id]).get(trace_id)
        if found is None:
            return None
        with self._logs.snapshot() as snapshot:
            return {**found, "logs": snapshot.events("trace_id = ?", [trace_id])}

    def trees(self, trace_ids: Collection[str]) -> dict[str, Event]:
        """Return the summaries of those of these traces that are kept, by id, with `spans` in tree order."""
        with self._spans.snapshot() as snapshot:
            spans = snapshot.events("trace_id IN (SELECT unnest(?))", [list(trace_ids)], order="seq")
        traces: dict[str, list[Event]] = {}
        for span in spans:
            traces.setdefault(span["trace.trace_id"], []).append(span)
        return {
            trace_id: {**summary(members), "spans": [node.span for node in tree.walk(members)]}
            for trace_id, members in traces.items()
        }

    def outline(self, trace_id: str, most: int) -> tuple[Event, list[Event]] | None:
        """Return a trace's summary, and what a waterfall shows of its first `most` spans, roots before others."""
        with self._spans.snapshot() as snapshot:
            summaries = _summaries(snapshot, 1, [trace_id], where="trace = ?")
            if not summaries:
                return None
            rows = snapshot.rows(
                f"SELECT epoch_us(time), {', '.join(OUTLINE)} FROM ({snapshot.source(**OUTLINE)}) WHERE trace = ?"
                f" ORDER BY parent IS NOT NULL, time, seq LIMIT {most:d}",
                [trace_id],
            )
        return summaries[0], [dict(zip(("start_us", *OUTLINE), row, strict=True)) for row in rows]

    def span(self, trace_id: str, span_id: str) -> Event | None:
        """Return all of one span."""
        with self._spans.snapshot() as snapshot:
            found = snapshot.events("trace_id = ? AND span_id = ?", [trace_id, span_id], limit=1)
        return found[0] if found else None

    def logs(self, limit: int, narrow: LogFilter = ALL_LOGS) -> list[Event]:
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
            return snapshot.events(f"seq IN ({newest})", parameters, order="time DESC, seq DESC")


def summary(spans: list[Event]) -> Event:
    """Return what a list of traces shows of one: times, counts, services, and what its root was."""
    by_start = sorted(spans, key=lambda span: str(span["time"]))
    root = next((span for span in by_start if "trace.parent_id" not in span), None)
    first = root or by_start[0]
    ids = {span["trace.span_id"] for span in spans}
    start = datetime.fromisoformat(by_start[0]["time"])
    end = max(datetime.fromisoformat(span["time"]) + timedelta(milliseconds=span["duration_ms"]) for span in spans)
    found = {
        "trace_id": first["trace.trace_id"],
        "name": first["name"],
        "service": first["service.name"],
        "services": sorted({span["service.name"] for span in spans}),
        "start": by_start[0]["time"],
        "duration_ms": root["duration_ms"] if root else (end - start) / timedelta(milliseconds=1),
        "span_count": len(spans),
        "error": any(span["error"] for span in spans),
        "complete": root is not None
        and all(span.get("trace.parent_id", root["trace.span_id"]) in ids for span in spans),
    }
    for name, attribute in (("route", "http.route"), ("status", "http.response.status_code")):
        if root and attribute in root:
            found[name] = root[attribute]
    return found


def _summaries(
    snapshot: Snapshot, limit: int, parameters: list[Any], where: str = "true", having: str = "true"
) -> list[Event]:
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
        SELECT trace, first.name, first.service, list(DISTINCT shown.service), min(shown.time),
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
    columns = query.types(snapshot.columns)
    found = []
    for row in rows:
        names = ("trace_id", "name", "service", "services", "start", "duration_ms", "span_count", "error", "complete")
        trace = dict(zip(names, row, strict=False))
        trace["services"] = sorted(trace["services"])
        trace["start"] = f"{trace['start']:%Y-%m-%dT%H:%M:%S.%f}Z"
        for name, value in (("route", row[-2]), ("status", row[-1])):
            if value is not None:
                trace[name] = query.typed(value, columns[SUMMARY[name]])
        found.append(trace)
    return found
