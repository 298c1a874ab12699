"""Stores the newest spans and logs and answers queries."""

# ruff: noqa: S608 - statements contain only generated names; user input is bound.

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from otlp_viewer import tree
from otlp_viewer.messages import Log, Span
from otlp_viewer.model import (
    ALL_LOGS,
    ALL_TRACES,
    LogFilter,
    Outline,
    ServiceSummary,
    SpanReference,
    Trace,
    TraceFilter,
    TraceSummary,
)
from otlp_viewer.query.answer import answer, extent, slowest
from otlp_viewer.query.compare import compare
from otlp_viewer.query.parse import parse, types
from otlp_viewer.query.types import Answer, Box, Comparison, Query, TooExpensive
from otlp_viewer.store import logs, summaries, traces
from otlp_viewer.store.database import MEGABYTE
from otlp_viewer.store.snapshot import Snapshot
from otlp_viewer.store.writer import Writer

DEFAULT_MEMORY = 512 * MEGABYTE
MAX_WAIT = 10.0  # seconds

T = TypeVar("T")


class Store(Writer):
    """Stores spans and logs, in memory or in the file `path`, and drops the oldest. Thread-safe.

    `memory` limits DuckDB's memory in bytes: half is for compressed records, the rest for queries. Raises ValueError,
    with the reason, if the file cannot be opened or is not an otlp-viewer database. Every query raises duckdb.Error if
    the database has failed.
    """

    def __init__(self, path: str = ":memory:", memory: int = DEFAULT_MEMORY) -> None:
        super().__init__(path, memory)
        self._comparing = threading.Lock()

    def columns(self, signal: str = "spans") -> dict[str, str]:
        """Return the fields that queries can use, with Honeycomb's names of their types."""
        with self._snapshot(signal) as snapshot:
            return types(snapshot.columns)

    def values(self, column: str, limit: int = 100, signal: str = "spans") -> list[str]:
        """Return the most frequent values of a field as text, sorted."""
        with self._snapshot(signal) as snapshot:
            rows = snapshot.rows(
                f"SELECT value::VARCHAR AS value FROM ({snapshot.source({'value': column})}) WHERE value IS NOT NULL"
                f" GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {limit:d}"
            )
        return sorted(value for (value,) in rows)

    def services(self) -> list[ServiceSummary]:
        """Return the summaries of all services, ordered by name."""
        with self._snapshot() as snapshot:
            return summaries.services(snapshot)

    # Queries

    def parse(self, specification: object, now: float | None = None, signal: str = "spans") -> Query:
        """Parse a query in Honeycomb's JSON format. Raises query.types.Invalid with the reason.

        `now` is the end of a relative time range, in seconds since 1970.
        """
        with self._snapshot(signal) as snapshot:
            return parse(specification, snapshot.columns, now, signal)

    def query(self, query: Query) -> Answer:
        """Run a query. Raises query.types.TooExpensive."""
        with self._snapshot(query.signal) as snapshot:
            return answer(snapshot, query)

    def extent(self, query: Query) -> tuple[float, float] | None:
        """Return the times of the first and last record that match the query's filters, in seconds since 1970."""
        with self._snapshot(query.signal) as snapshot:
            return extent(snapshot, query)

    def compare(self, query: Query, box: Box) -> Comparison:
        """Compare the records in the box with the query's other records. Raises query.types.TooExpensive.

        Only one comparison runs at a time: together they would need too much memory.
        """
        if not self._comparing.acquire(timeout=MAX_WAIT):
            raise TooExpensive("other comparisons are running; try again")
        try:
            with self._snapshot(query.signal) as snapshot:
                return compare(snapshot, query, box)
        finally:
            self._comparing.release()

    def slowest(self, query: Query, box: Box) -> SpanReference | None:
        """Return the span in the box with the largest value, or None."""
        with self._snapshot(query.signal) as snapshot:
            return slowest(snapshot, query, box)

    # Traces and logs

    def traces(
        self,
        limit: int,
        trace_filter: TraceFilter = ALL_TRACES,
        order: str = "start",
        descending: bool = True,
        offset: int = 0,
    ) -> list[TraceSummary]:
        """Return summaries of traces. `order` is a key of summaries.ORDERS."""
        with self._snapshot() as snapshot:
            return summaries.summaries(snapshot, limit, trace_filter, order, descending, offset)

    def highlights(
        self, newest_limit: int, other_limit: int
    ) -> tuple[list[TraceSummary], list[TraceSummary], list[TraceSummary]]:
        """Return the newest traces, the slowest, and the newest with errors."""
        with self._snapshot() as snapshot:
            return summaries.highlights(snapshot, newest_limit, other_limit)

    def count_traces(self, trace_filter: TraceFilter = ALL_TRACES) -> int:
        """Return the number of matching traces."""
        with self._snapshot() as snapshot:
            return summaries.count(snapshot, trace_filter)

    def trees(self, trace_ids: Collection[str]) -> dict[str, Trace]:
        """Return the stored traces among these IDs, by ID, for rendering as trees."""
        outlines = {trace_id: self.outline(trace_id) for trace_id in trace_ids}
        return {
            trace_id: Trace(outline.summary, outline.spans, self.spans)
            for trace_id, outline in outlines.items()
            if outline
        }

    def read_trace(self, trace_id: str) -> tuple[TraceSummary, Iterator[Span]] | None:
        """Return a trace's summary and its spans in tree order, read in batches, or None if it is not stored."""
        with self._snapshot() as snapshot:
            if small := traces.read_small(snapshot, trace_id):
                return small
            outline = traces.outline(snapshot, trace_id)
            if outline is None:
                return None
            rows = [node.span.row for node in tree.walk(outline.spans)]
        return outline.summary, self.spans(rows)

    def outline(self, trace_id: str) -> Outline | None:
        """Return the outline of a trace, or None if it is not stored."""
        with self._snapshot() as snapshot:
            return traces.outline(snapshot, trace_id)

    def spans(self, rows: Sequence[int]) -> Iterator[Span]:
        """Yield the spans of these rows that are still stored, in this order, read in batches."""
        return self._read_in_batches("spans", lambda snapshot: rows, traces.read)

    def span(self, trace_id: str, span_id: str, row: int = 0) -> Span | None:
        """Return a span, or None if it is not stored. `row` selects one of several spans with the same ID."""
        with self._snapshot() as snapshot:
            return traces.span(snapshot, trace_id, span_id, row)

    def find(self, trace_id: str, text: str) -> list[int]:
        """Return the rows of a trace's spans with a value that contains this text, ignoring case."""
        with self._snapshot() as snapshot:
            return traces.find(snapshot, trace_id, text)

    def links_to(self, trace_id: str) -> list[tuple[SpanReference, str]]:
        """Return the spans of other traces that link to this trace, each with the ID of the span that it links to."""
        with self._snapshot() as snapshot:
            return traces.links_to(snapshot, trace_id)

    def trace_logs(self, trace_id: str) -> Iterator[Log]:
        """Yield the log records of a trace, ordered by time, read in batches."""
        if self.counts()[1]:
            yield from self._read_in_batches("logs", lambda snapshot: logs.rows_of_trace(snapshot, trace_id), logs.read)

    def _read_in_batches(
        self, signal: str, rows: Callable[[Snapshot], Sequence[int]], read: Callable[[Snapshot, Sequence[int]], list[T]]
    ) -> Iterator[T]:
        """Yield the results of `read`, called for one batch of rows at a time to save memory."""
        with self._snapshot(signal) as snapshot:
            batches = snapshot.batches(rows(snapshot))
        for batch in batches:
            with self._snapshot(signal) as snapshot:
                records = read(snapshot, batch)
            yield from records

    def logs(self, limit: int, log_filter: LogFilter = ALL_LOGS, offset: int = 0) -> list[Log]:
        """Return log records, newest first."""
        with self._snapshot("logs") as snapshot:
            return logs.newest(snapshot, limit, log_filter, offset)

    def logs_over_time(self, log_filter: LogFilter = ALL_LOGS, step_ns: int = 10**9) -> list[tuple[int, int, int]]:
        """Return the number of log records by time step and severity: (step since 1970, severity number, count)."""
        with self._snapshot("logs") as snapshot:
            return logs.over_time(snapshot, log_filter, step_ns)
