"""Adds records, writes them in batches, and drops the oldest."""

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import duckdb

from otlp_viewer.model import Health
from otlp_viewer.query.types import TooExpensive
from otlp_viewer.receive.records import Problems, Records
from otlp_viewer.store.database import MEGABYTE, Database, reason
from otlp_viewer.store.snapshot import FIELD_TYPES, Catalog, Snapshot
from otlp_viewer.store.tables import Table

MAX_PENDING_RECORDS = 4096
MAX_PENDING_BYTES = 4 * MEGABYTE
WRITE_DELAY = 0.2  # seconds
RETRY_DELAY = 1.0  # seconds
MAX_QUERY_TIME = 10.0  # seconds
READER_BYTES = 32 * MEGABYTE
"""Memory for a query, even if little is stored: DuckDB's joins with a list of traces take half of it."""
MAX_PAUSE = 1.0
"""Seconds for which new queries wait for the running ones to end, so that memory can be freed."""
SIGNALS = ("spans", "logs")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AddResult:
    """The result of adding the records of a request."""

    trace_ids: Collection[str] = ()
    rejected: int = 0
    reason: str = ""
    """Why records were rejected or changed; "" if none were."""


class Writer:
    """Collects records and writes them in batches: before each read, or after WRITE_DELAY. Thread-safe.

    Reopens the database after DuckDB has failed. Pending records and those in a file survive that; those in memory
    are lost.
    """

    def __init__(self, path: str, memory: int) -> None:
        self._lock = threading.RLock()
        self._readers_changed = threading.Condition(self._lock)
        self._path = path
        self._memory = memory
        self._timer: threading.Timer | None = None
        self._readers = 0
        self._pausing = False
        """Whether `_pause` is waiting. New queries and writes then wait too."""
        self._next_pause = 0.0
        self._catalogs: dict[str, Catalog] = {}
        self._honeycomb_pages: dict[str, str] = {}
        self._broken = False
        """Whether the database must be reopened."""
        self._failure: duckdb.Error | None = None
        """The error that broke the database last."""
        self._retry_at = 0.0
        """When to try to write again."""
        self._open()
        self._version = dict.fromkeys(SIGNALS, time.time_ns())

    def _open(self) -> None:
        """Open the database. Raises ValueError."""
        self._database = Database(self._path, self._memory)
        self._max_pending_bytes = min(MAX_PENDING_BYTES, self._database.capacity // 64)
        self._max_readers = max(self._database.capacity // READER_BYTES, 1)
        self._uncompressed = 0
        try:
            self._tables = {
                signal: Table(self._database.connection, signal, self._database.capacity // 12) for signal in SIGNALS
            }
        except duckdb.Error as error:
            self._database.close()
            raise ValueError(reason(error)) from error

    def close(self) -> None:
        with self._lock:
            self._retry_at = 0
            try:
                self._write()
            except duckdb.Error as error:
                pending = sum(table.pending.count for table in self._tables.values())
                logger.error("The last %d spans and logs are lost: %s", pending, reason(error))
            self._database.close()

    # Adding records

    def add_spans(
        self, batches: Iterable[Records], problems: Problems | None = None, honeycomb_page: str = ""
    ) -> AddResult:
        """Store spans. A span that is sent twice is stored once; different spans with the same ID are all stored.

        `problems` are those found so far. `honeycomb_page` is the Honeycomb URL of the services' traces, without the
        trace ID. Raises duckdb.Error if nothing can be stored now.
        """
        problems = problems or Problems()
        with self._lock:
            table = self._tables["spans"]
            start, origins = self._add(table, batches, problems)
            for origin in origins:
                self._honeycomb_pages[table.vocabulary.origins[origin].service] = honeycomb_page
            trace_ids = table.pending.trace_ids(start)
        return AddResult(trace_ids, problems.rejected, problems.sentence())

    def add_logs(self, batches: Iterable[Records], problems: Problems | None = None) -> AddResult:
        """Store log records. Raises duckdb.Error if nothing can be stored now."""
        problems = problems or Problems()
        with self._lock:
            self._add(self._tables["logs"], batches, problems)
        return AddResult((), problems.rejected, problems.sentence())

    def _add(self, table: Table, batches: Iterable[Records], problems: Problems) -> tuple[int, set[int]]:
        """Add pending records. Return the index of the first one, and their origins."""
        if table.pending.count >= MAX_PENDING_RECORDS or table.pending.size >= self._max_pending_bytes:
            self._write()
            table = self._tables[table.signal]
        start = table.pending.count
        origins = {table.pending.add(records, problems) for records in batches}
        self._version[table.signal] += table.pending.count - start
        if table.pending.count and self._timer is None:
            self._timer = threading.Timer(WRITE_DELAY, self._write_delayed)
            self._timer.daemon = True
            self._timer.start()
        return start, origins

    def _write_delayed(self) -> None:
        with self._lock, contextlib.suppress(duckdb.Error):  # records stay pending, and the next sender gets the error
            self._timer = None
            self._write()

    def _write(self) -> None:
        """Write pending records, and drop the oldest if memory is full. Raises duckdb.Error."""
        self._readers_changed.wait_for(lambda: not self._pausing)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._failure is not None and time.monotonic() < self._retry_at:
            raise self._failure
        if self._broken:
            self._reopen()
        try:
            self._write_tables([table for table in self._tables.values() if table.pending.count])
        except duckdb.FatalException as error:
            self._broken, self._failure = True, error
            self._retry_at = time.monotonic() + RETRY_DELAY
            raise

    def _write_tables(self, tables: list[Table]) -> None:
        for table in tables:
            self._uncompressed += table.pending.size
            try:
                table.write()
            except (duckdb.OutOfMemoryException, MemoryError) as error:
                if not (self._pause() and self._drop_oldest()):
                    raise duckdb.OutOfMemoryException(reason(error)) from error
                table.write()
            self._catalogs.pop(table.signal, None)
        if tables:
            self._free_memory()

    def _free_memory(self) -> None:
        """Compress new rows once there are many, and drop the oldest if memory is full.

        Both free memory only while no query is running.
        """
        database = self._database
        compress = self._uncompressed > database.capacity // 16
        if (compress or database.used() > database.capacity) and self._pause():
            if compress and database.compress():
                self._uncompressed = 0
            while database.used() > database.capacity and self._drop_oldest() and database.compress():
                self._uncompressed = 0  # in a file, this also frees the space of dropped rows

    def _pause(self) -> bool:
        """Wait for running queries to end while new ones wait. Return whether all have ended.

        If that takes longer than MAX_PAUSE, it does not wait again for as long, so that queries get half of the time.
        """
        if self._readers and time.monotonic() >= self._next_pause:
            self._pausing = True
            self._readers_changed.wait_for(lambda: not self._readers, MAX_PAUSE)
            self._pausing = False
            self._readers_changed.notify_all()
            self._next_pause = time.monotonic() + (MAX_PAUSE if self._readers else 0)
        return not self._readers

    def _drop_oldest(self) -> bool:
        """Drop some of the oldest records of the larger table, or else of the other. Return whether there were any."""
        self._catalogs.clear()
        larger, smaller = sorted(self._tables.values(), key=lambda table: -table.size)
        return larger.drop_oldest() or smaller.drop_oldest()

    def clear(self) -> None:
        """Delete all records."""
        with self._lock:
            self._write()
            for signal, table in self._tables.items():
                table.clear()
                self._version[signal] += 1
            self._catalogs.clear()

    # Recovery

    def _reopen(self) -> None:
        """Reopen the database after a failure. Pending records stay pending. Raises duckdb.Error."""
        if self._readers:  # they keep the file open, but soon fail too
            raise duckdb.ConnectionException("the database has failed and is being reopened")
        failed = self._tables
        self._database.close()
        self._catalogs.clear()
        try:
            self._open()
        except ValueError as error:
            raise duckdb.IOException(f"the database has failed and cannot be reopened: {error}") from error
        lost = {signal: table.rows - self._tables[signal].rows for signal, table in failed.items()}
        for signal, table in failed.items():
            for records in table.pending.batches:
                self._tables[signal].pending.add(records, Problems())
            self._tables[signal].dropped = table.dropped + max(lost[signal], 0)
            self._version[signal] += 1
        if any(lost.values()):
            logger.error(
                "DuckDB has failed, and %d spans and %d logs are lost: %s",
                lost["spans"],
                lost["logs"],
                reason(self._failure or duckdb.Error()),
            )
        self._broken = False

    # Reading

    @contextlib.contextmanager
    def _snapshot(self, signal: str = "spans") -> Iterator[Snapshot]:
        """Open a snapshot. Raises duckdb.Error if the database has failed, or TooExpensive if it is overloaded."""
        with self._lock:
            with contextlib.suppress(duckdb.Error):  # pending records cannot be written now; others can be read
                self._write()
            if not self._readers_changed.wait_for(
                lambda: not self._pausing and self._readers < self._max_readers, MAX_QUERY_TIME
            ):
                raise TooExpensive("other queries use all of the memory; try again")
            if self._broken:
                self._reopen()
            catalog = self._catalog(signal)
            cursor = self._database.connection.cursor()
            # A transaction sees the data as of its first read, including tables that are dropped later.
            cursor.begin()
            cursor.execute("SELECT 1 FROM stored.chunks LIMIT 0").fetchall()
            self._readers += 1
        interrupt = threading.Timer(MAX_QUERY_TIME, cursor.interrupt)
        interrupt.daemon = True
        interrupt.start()
        try:
            yield Snapshot(cursor, catalog, MAX_QUERY_TIME)
        except duckdb.FatalException as error:
            with self._lock:
                self._broken, self._failure = True, error
            raise
        finally:
            interrupt.cancel()
            cursor.close()
            with self._lock:
                self._readers -= 1
                self._readers_changed.notify_all()

    def _catalog(self, signal: str) -> Catalog:
        if signal not in self._catalogs:
            table = self._tables[signal]
            names = table.vocabulary.names
            of_records: dict[str, dict[str, int]] = {}
            of_origins: dict[str, dict[str, int]] = {}
            for by_name, numbers in ((of_records, table.names), (of_origins, table.origin_names)):
                for number in numbers:
                    name, type_ = names[number]
                    by_name.setdefault(name, {})[type_] = number
            types = {
                name: frozenset({*of_records.get(name, ()), *of_origins.get(name, ())})
                for name in {**of_records, **of_origins}
            }
            self._catalogs[signal] = Catalog(signal, {**types, **FIELD_TYPES[signal]}, of_records, of_origins)
        return self._catalogs[signal]

    def counts(self) -> tuple[int, int]:
        """Return the numbers of stored spans and logs."""
        with self._lock:
            with contextlib.suppress(duckdb.Error):
                self._write()
            return self._tables["spans"].rows, self._tables["logs"].rows

    def health(self) -> Health:
        """Return the numbers of stored and dropped records, and their size."""
        with self._lock:
            spans, logs = self.counts()
            dropped = [self._tables[signal].dropped for signal in SIGNALS]
            used = 0
            with contextlib.suppress(duckdb.Error):
                used = self._database.used()
            return Health(spans, logs, used, self._database.capacity, *dropped)

    @property
    def version(self) -> tuple[int, int]:
        """Version numbers of the spans and the logs. They change with the records, and differ between processes."""
        return self._version["spans"], self._version["logs"]

    def honeycomb_page(self, service: str) -> str:
        """Return the Honeycomb URL of the service's traces, without the trace ID; "" if it is unknown."""
        return self._honeycomb_pages.get(service, "")
