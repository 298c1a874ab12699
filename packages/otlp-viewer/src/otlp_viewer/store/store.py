"""Keeps the newest spans and logs, and answers what is asked about them."""

# ruff: noqa: S608 - statements are made of our own names; whatever was sent is bound.

import contextlib
import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import duckdb

from otlp_viewer import tree
from otlp_viewer.model import (
    ALL_LOGS,
    ALL_TRACES,
    Health,
    Log,
    LogFilter,
    Outline,
    ServiceSummary,
    Span,
    SpanReference,
    Trace,
    TraceFilter,
    TraceSummary,
)
from otlp_viewer.query.answer import answer, extent, slowest
from otlp_viewer.query.compare import compare
from otlp_viewer.query.parse import parse, types
from otlp_viewer.query.types import Answer, Box, Comparison, Query
from otlp_viewer.receive.records import Problems, Records
from otlp_viewer.store import logs, traces
from otlp_viewer.store.snapshot import FIELD_TYPES, Catalog, Snapshot
from otlp_viewer.store.tables import Table

LAYOUT = 2  # of the tables; raise it when they change
MEGABYTE = 1024 * 1024
MEMORY = 512 * MEGABYTE
SMALLEST_MEMORY = 64 * MEGABYTE
LONGEST_QUERY = 10.0  # seconds
WAITING_RECORDS = 4096
WAITING_BYTES = 4 * MEGABYTE
WAITING_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Added:
    """What became of the records of one request."""

    trace_ids: Collection[str] = ()
    rejected: int = 0
    reason: str = ""
    """Why they were rejected or changed; "" when none was."""


class Store:
    """Holds spans and logs, the oldest go first; safe between threads.

    `memory` bounds what DuckDB takes, in bytes: half of it is for what is kept, compressed, the rest for queries.
    All is in memory, or in the file `path`. Raises ValueError when that file is not one of ours or cannot be opened,
    with the reason.

    Records wait a moment, and are written many at a time: before anything is asked, or after WAITING_SECONDS.
    """

    def __init__(self, path: str = ":memory:", memory: int = MEMORY) -> None:
        self._lock = threading.RLock()
        self._capacity = max(memory, SMALLEST_MEMORY) // 2
        self._honeycomb_pages: dict[str, str] = {}
        self._timer: threading.Timer | None = None
        self._version = {"spans": 0, "logs": 0}
        self._catalogs: dict[str, Catalog] = {}
        try:
            self._database = duckdb.connect(
                config={
                    "autoinstall_known_extensions": "false",
                    "autoload_known_extensions": "false",
                    "memory_limit": f"{max(memory, SMALLEST_MEMORY) // MEGABYTE}MiB",
                    "temp_directory": "",
                    "threads": "2",
                },
            )
            in_memory = path == ":memory:"
            options = "ROW_GROUP_SIZE 30720" + (", COMPRESS" if in_memory else "")
            self._database.execute(f"ATTACH '{path.replace(chr(39), chr(39) * 2)}' AS kept ({options})")
            # Nothing that is asked may read or write files, or the network.
            self._database.execute("SET enable_external_access = false")
            self._check_layout(path)
            self._spans = Table(self._database, "spans", self._capacity // 4)
            self._logs = Table(self._database, "logs", self._capacity // 4)
            self._uncompressed = 0
            self._readers = 0
            self._version = {"spans": self._spans.last_row, "logs": self._logs.last_row}
            self._used_bytes = (
                "SELECT coalesce(sum(memory_usage_bytes), 0) FROM duckdb_memory()"
                " WHERE tag IN ('BASE_TABLE', 'IN_MEMORY_TABLE', 'OVERFLOW_STRINGS')"
                if in_memory
                else "SELECT block_size * used_blocks FROM pragma_database_size() WHERE database_name = 'kept'"
            )
        except duckdb.Error as error:
            raise ValueError(str(error).splitlines()[0]) from error

    def _check_layout(self, path: str) -> None:
        tables = self._database.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'kept'"
        ).fetchall()
        if not tables:
            self._database.execute(
                "CREATE TABLE kept.layout (version INTEGER); CREATE TABLE kept.chunks (signal VARCHAR, number INTEGER)"
            )
            self._database.execute("INSERT INTO kept.layout VALUES (?)", [LAYOUT])
        elif ("layout",) not in tables:
            raise ValueError(f"{path} is a database of something else")
        elif self._database.execute("SELECT version FROM kept.layout").fetchall() != [(LAYOUT,)]:
            raise ValueError(f"another version of the viewer wrote {path}; move it away")

    def close(self) -> None:
        with self._lock:
            with contextlib.suppress(duckdb.Error):
                self._write()
            self._database.close()

    # What comes in

    def add_spans(self, given: Iterable[Records], problems: Problems | None = None, honeycomb_page: str = "") -> Added:
        """Keep spans. The same span sent again is kept once; different spans with one id are all kept.

        `problems` are those that were found until now. `honeycomb_page` is where Honeycomb shows the traces of the
        services that sent them, but for the trace's id. Raises duckdb.Error when nothing can be kept now.
        """
        problems = problems or Problems()
        with self._lock:
            first, origins = self._add(self._spans, given, problems)
            for origin in origins:
                self._honeycomb_pages[self._spans.vocabulary.origins[origin].service] = honeycomb_page
            trace_ids = self._spans.pending.trace_ids(first)
        return Added(trace_ids, problems.rejected, problems.sentence())

    def add_logs(self, given: Iterable[Records], problems: Problems | None = None) -> Added:
        """Keep log records. Raises duckdb.Error when nothing can be kept now."""
        problems = problems or Problems()
        with self._lock:
            self._add(self._logs, given, problems)
        return Added((), problems.rejected, problems.sentence())

    def _add(self, table: Table, given: Iterable[Records], problems: Problems) -> tuple[int, set[int]]:
        """Add records to what waits; return how much waited before, and the origins."""
        if table.pending.count >= WAITING_RECORDS or table.pending.size >= WAITING_BYTES:
            self._write()
        waiting = table.pending.count
        origins = {table.pending.add(records, problems) for records in given}
        self._version[table.signal] += table.pending.count - waiting
        if table.pending.count and self._timer is None:
            self._timer = threading.Timer(WAITING_SECONDS, self._write_later)
            self._timer.daemon = True
            self._timer.start()
        return waiting, origins

    def _write_later(self) -> None:
        with self._lock, contextlib.suppress(duckdb.Error):  # what waits goes on waiting, and a sender is told
            self._write()

    def _write(self) -> None:
        """Write what waits, and drop what is oldest where it is too much. Raises duckdb.Error."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = [table for table in (self._spans, self._logs) if table.pending.count]
        for table in waiting:
            self._uncompressed += table.pending.size
            try:
                table.write()
            except duckdb.OutOfMemoryException:
                if not self._drop_oldest():
                    raise
                table.write()
            self._catalogs.pop(table.signal, None)
        if waiting and self._uncompressed > self._capacity // (16 if self._readers == 0 else 4):
            self._compress()
        while waiting and self._used() > self._capacity and self._drop_oldest():
            pass

    def _drop_oldest(self) -> bool:
        """Drop some of the oldest spans or logs, whichever take more; return whether there were any to drop."""
        self._catalogs.clear()
        larger, smaller = sorted((self._spans, self._logs), key=lambda table: -table.size)
        return larger.drop_oldest() or smaller.drop_oldest()

    def _compress(self) -> None:
        """Have DuckDB compress what came. It loses everything where memory is short while it does, so none is."""
        self._database.execute(f"SET memory_limit = '{8 * self._capacity // MEGABYTE}MiB'")
        try:
            self._database.execute("CHECKPOINT kept")
            self._uncompressed = 0
        except duckdb.TransactionException:
            pass  # somebody reads; the next write tries again
        finally:
            with contextlib.suppress(duckdb.Error):  # queries that run have more than they may; they end soon
                self._database.execute(f"SET memory_limit = '{2 * self._capacity // MEGABYTE}MiB'")

    def _used(self) -> int:
        return int(self._database.execute(self._used_bytes).fetchall()[0][0])

    def clear(self) -> None:
        """Forget everything that is kept."""
        with self._lock:
            self._write()
            for table in (self._spans, self._logs):
                table.clear()
            self._catalogs.clear()

    # What is kept

    def counts(self) -> tuple[int, int]:
        """Return how many spans and how many logs are kept."""
        with self._lock:
            self._write()
            return self._spans.rows, self._logs.rows

    def health(self) -> Health:
        """Return what is kept, how much room it takes, and what had to go."""
        spans, logs = self.counts()
        with self._lock:
            return Health(spans, logs, self._used(), self._capacity, self._spans.dropped, self._logs.dropped)

    @property
    def version(self) -> tuple[int, int]:
        """Of spans and of logs: changes whenever there is something new; 0 while there was none."""
        return self._version["spans"], self._version["logs"]

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
        """Return what is kept of each service, by name."""
        with self._snapshot() as snapshot:
            return traces.services(snapshot)

    def honeycomb_page(self, service: str) -> str:
        """Return where Honeycomb shows a trace of this service, but for the trace's id; "" where that is unknown."""
        return self._honeycomb_pages.get(service, "")

    @contextlib.contextmanager
    def _snapshot(self, signal: str = "spans") -> Iterator[Snapshot]:
        with self._lock:
            self._write()
            catalog = self._catalog(signal)
            cursor = self._database.cursor()
            # A transaction sees what is there when it first reads, dropped tables included.
            cursor.begin()
            cursor.execute("SELECT 1 FROM kept.chunks LIMIT 0").fetchall()
            self._readers += 1
        interrupt = threading.Timer(LONGEST_QUERY, cursor.interrupt)
        interrupt.daemon = True
        interrupt.start()
        try:
            yield Snapshot(cursor, catalog, LONGEST_QUERY)
        finally:
            interrupt.cancel()
            cursor.close()
            with self._lock:
                self._readers -= 1

    def _catalog(self, signal: str) -> Catalog:
        if signal not in self._catalogs:
            table = self._spans if signal == "spans" else self._logs
            names = table.vocabulary.names
            own: dict[str, dict[str, int]] = {}
            origins: dict[str, dict[str, int]] = {}
            for found, numbers in ((own, table.names), (origins, table.origin_names)):
                for number in numbers:
                    name, type_ = names[number]
                    found.setdefault(name, {})[type_] = number
            seen = {name: frozenset({*own.get(name, ()), *origins.get(name, ())}) for name in {**own, **origins}}
            self._catalogs[signal] = Catalog(signal, {**seen, **FIELD_TYPES[signal]}, own, origins)
        return self._catalogs[signal]

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
        """Return what sets the records in the box apart from the query's others."""
        with self._snapshot(query.signal) as snapshot:
            return compare(snapshot, query, box)

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
        """Return summaries of traces; `order` is one of traces.ORDERS: start, duration, spans, errors or name."""
        with self._snapshot() as snapshot:
            return traces.summaries(snapshot, limit, narrow, order, descending, offset)

    def highlights(self, newest: int, few: int) -> tuple[list[TraceSummary], list[TraceSummary], list[TraceSummary]]:
        """Return the `newest` traces, and a `few` of the slowest and of the newest with errors."""
        with self._snapshot() as snapshot:
            return traces.highlights(snapshot, newest, few)

    def count_traces(self, narrow: TraceFilter = ALL_TRACES) -> int:
        """Return how many traces the list has."""
        with self._snapshot() as snapshot:
            return traces.count(snapshot, narrow)

    def trace(self, trace_id: str) -> Trace | None:
        """Return a trace with its spans in tree order and its logs by time, or None."""
        found = self.trees([trace_id]).get(trace_id)
        if found is None:
            return None
        return Trace(found.summary, found.spans, self.logs_of(trace_id))

    def trees(self, trace_ids: Collection[str], most: int = 0) -> dict[str, Trace]:
        """Return those of these traces that are kept, by id, with their spans in tree order and without logs.

        With `most`, at most so many spans of each.
        """
        with self._snapshot() as snapshot:
            return traces.trees(snapshot, trace_ids, most)

    def spans_of(self, trace_id: str) -> tuple[TraceSummary, Iterator[Span]] | None:
        """Return a trace's summary, and its spans in tree order, read some at a time; None where it is not kept."""
        outline = self.outline(trace_id)
        if outline is None:
            return None
        rows = [node.span.row for node in tree.walk(outline.spans)]

        def read() -> Iterator[Span]:
            for first in range(0, len(rows), traces.READ_AT_ONCE):
                with self._snapshot() as snapshot:
                    yield from traces.spans(snapshot, rows[first : first + traces.READ_AT_ONCE])

        return outline.summary, read()

    def outline(self, trace_id: str, most: int = 0) -> Outline | None:
        """Return what a waterfall shows of a trace's spans (with `most`: of so many), roots before others."""
        with self._snapshot() as snapshot:
            return traces.outline(snapshot, trace_id, most)

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

    def logs_of(self, trace_id: str) -> list[Log]:
        """Return the log records of a trace, by time."""
        with self._snapshot("logs") as snapshot:
            return logs.of_trace(snapshot, trace_id)

    def logs(self, limit: int, narrow: LogFilter = ALL_LOGS, offset: int = 0) -> list[Log]:
        """Return log records, newest first."""
        with self._snapshot("logs") as snapshot:
            return logs.newest(snapshot, limit, narrow, offset)
