"""Keeps the newest spans and logs, and answers what is asked about them."""

# ruff: noqa: S608 - statements are made of our own names; whatever was sent is bound.

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

MEMORY = 512 * MEGABYTE
LONGEST_WAIT = 10.0  # seconds

T = TypeVar("T")


class Store(Writer):
    """Holds spans and logs, the oldest go first; safe between threads.

    `memory` bounds what DuckDB takes, in bytes: half of it is for what is stored, compressed, the rest for queries.
    All is in memory, or in the file `path`. Raises ValueError when that file is not one of ours or cannot be opened,
    with the reason. Every question raises duckdb.Error where the database has failed.
    """

    def __init__(self, path: str = ":memory:", memory: int = MEMORY) -> None:
        super().__init__(path, memory)
        self._comparing = threading.Lock()

    def columns(self, signal: str = "spans") -> dict[str, str]:
        """Return the fields that can be asked about, by name, each with Honeycomb's name of its type."""
        with self._snapshot(signal) as snapshot:
            return types(snapshot.columns)

    def values(self, column: str, most: int = 100, signal: str = "spans") -> list[str]:
        """Return the most frequent values of a field, as text and in order."""
        with self._snapshot(signal) as snapshot:
            rows = snapshot.rows(
                f"SELECT value::VARCHAR AS value FROM ({snapshot.source({'value': column})}) WHERE value IS NOT NULL"
                f" GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {most:d}"
            )
        return sorted(value for (value,) in rows)

    def services(self) -> list[ServiceSummary]:
        """Return what is stored of each service, by name."""
        with self._snapshot() as snapshot:
            return summaries.services(snapshot)

    # Queries

    def parse(self, specification: object, now: float | None = None, signal: str = "spans") -> Query:
        """Read a query in Honeycomb's JSON; raises query.types.Invalid with what is wrong with it.

        `now` is the end of a relative time range, in seconds since 1970.
        """
        with self._snapshot(signal) as snapshot:
            return parse(specification, snapshot.columns, now, signal)

    def query(self, query: Query) -> Answer:
        """Answer a query; raises query.types.TooExpensive."""
        with self._snapshot(query.signal) as snapshot:
            return answer(snapshot, query)

    def extent(self, query: Query) -> tuple[float, float] | None:
        """Return when the first and the last record were that the query's filters want, in seconds since 1970."""
        with self._snapshot(query.signal) as snapshot:
            return extent(snapshot, query)

    def compare(self, query: Query, box: Box) -> Comparison:
        """Return what sets the records in the box apart from the query's others; raises query.types.TooExpensive.

        One at a time: together they take more memory than there is.
        """
        if not self._comparing.acquire(timeout=LONGEST_WAIT):
            raise TooExpensive("other comparisons take all of the time; ask again")
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
        narrow: TraceFilter = ALL_TRACES,
        order: str = "start",
        descending: bool = True,
        offset: int = 0,
    ) -> list[TraceSummary]:
        """Return summaries of traces; `order` is one of those of summaries.ORDERS."""
        with self._snapshot() as snapshot:
            return summaries.summaries(snapshot, limit, narrow, order, descending, offset)

    def highlights(self, newest: int, few: int) -> tuple[list[TraceSummary], list[TraceSummary], list[TraceSummary]]:
        """Return the `newest` traces, and a `few` of the slowest and of the newest with errors."""
        with self._snapshot() as snapshot:
            return summaries.highlights(snapshot, newest, few)

    def count_traces(self, narrow: TraceFilter = ALL_TRACES) -> int:
        """Return how many traces the list has."""
        with self._snapshot() as snapshot:
            return summaries.count(snapshot, narrow)

    def trees(self, trace_ids: Collection[str]) -> dict[str, Trace]:
        """Return what is drawn of those of these traces that are in memory, by id."""
        found = {trace_id: self.outline(trace_id) for trace_id in trace_ids}
        return {trace_id: Trace(one.summary, one.spans, self.spans) for trace_id, one in found.items() if one}

    def spans_of(self, trace_id: str) -> tuple[TraceSummary, Iterator[Span]] | None:
        """Return a trace's summary, and its spans in tree order, read some at a time; None where it is not stored."""
        with self._snapshot() as snapshot:
            if whole := traces.whole(snapshot, trace_id):
                return whole
            outline = traces.outline(snapshot, trace_id)
            if outline is None:
                return None
            rows = [node.span.row for node in tree.walk(outline.spans)]
        return outline.summary, self.spans(rows)

    def outline(self, trace_id: str) -> Outline | None:
        """Return what a waterfall shows of a trace's spans, roots before others; None where it is not stored."""
        with self._snapshot() as snapshot:
            return traces.outline(snapshot, trace_id)

    def spans(self, rows: Sequence[int]) -> Iterator[Span]:
        """Yield the spans of these rows that are stored, in this order, read some at a time."""
        return self._in_portions("spans", lambda snapshot: rows, traces.spans)

    def span(self, trace_id: str, span_id: str, row: int = 0) -> Span | None:
        """Return all of one span; `row` says which, where several have its id."""
        with self._snapshot() as snapshot:
            return traces.span(snapshot, trace_id, span_id, row)

    def find(self, trace_id: str, text: str) -> list[int]:
        """Return the rows of those of a trace's spans that have this text in a value, in any case."""
        with self._snapshot() as snapshot:
            return traces.find(snapshot, trace_id, text)

    def links_to(self, trace_id: str) -> list[tuple[SpanReference, str]]:
        """Return the spans of other traces that link to this one, each with the id of the span that it links to."""
        with self._snapshot() as snapshot:
            return traces.links_to(snapshot, trace_id)

    def logs_of(self, trace_id: str) -> Iterator[Log]:
        """Yield the log records of a trace, by time, read some at a time."""
        if self.counts()[1]:
            yield from self._in_portions("logs", lambda snapshot: logs.of_trace(snapshot, trace_id), logs.logs)

    def _in_portions(
        self, signal: str, rows: Callable[[Snapshot], Sequence[int]], read: Callable[[Snapshot, Sequence[int]], list[T]]
    ) -> Iterator[T]:
        """Yield what `read` makes of some rows, a portion at a time, so that only one is in memory."""
        with self._snapshot(signal) as snapshot:
            portions = snapshot.portions(rows(snapshot))
        for portion in portions:
            with self._snapshot(signal) as snapshot:
                found = read(snapshot, portion)
            yield from found

    def logs(self, limit: int, narrow: LogFilter = ALL_LOGS, offset: int = 0) -> list[Log]:
        """Return log records, newest first."""
        with self._snapshot("logs") as snapshot:
            return logs.newest(snapshot, limit, narrow, offset)

    def logs_over_time(self, narrow: LogFilter = ALL_LOGS, step_ns: int = 10**9) -> list[tuple[int, int, int]]:
        """Return how many log records there are: the number of the step of time since 1970, severity number, count."""
        with self._snapshot("logs") as snapshot:
            return logs.over_time(snapshot, narrow, step_ns)
