"""Takes records in, writes them many at a time, and lets the oldest go."""

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

WAITING_RECORDS = 4096
WAITING_BYTES = 4 * MEGABYTE
WAITING_SECONDS = 0.2
RETRY_SECONDS = 1.0
LONGEST_QUERY = 10.0  # seconds
READER_BYTES = 32 * MEGABYTE
"""What a question may take, however little is stored: DuckDB's joins of a list of traces take half of it."""
LONGEST_PAUSE = 1.0
"""Seconds that those who come to read wait until the others have ended, so that memory can be freed."""
SIGNALS = ("spans", "logs")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Added:
    """What became of the records of one request."""

    trace_ids: Collection[str] = ()
    rejected: int = 0
    reason: str = ""
    """Why they were rejected or changed; "" when none was."""


class Writer:
    """Records wait a moment, and are written many at a time: before anything is read, or after WAITING_SECONDS.

    Safe between threads. When DuckDB has failed, the database is opened again: what is in a file is still there, what
    was in memory is lost, and what waits is written then.
    """

    def __init__(self, path: str, memory: int) -> None:
        self._lock = threading.RLock()
        self._readers_changed = threading.Condition(self._lock)
        self._path = path
        self._memory = memory
        self._timer: threading.Timer | None = None
        self._readers = 0
        self._pausing = False
        """Nobody begins to read or to write: someone waits until all have ended."""
        self._next_pause = 0.0
        self._catalogs: dict[str, Catalog] = {}
        self._honeycomb_pages: dict[str, str] = {}
        self._broken = False
        """The database must be opened again."""
        self._failure: duckdb.Error | None = None
        """Why that was so last."""
        self._retry = 0.0
        """When to write again."""
        self._open()
        self._version = {signal: table.last_row for signal, table in self._tables.items()}

    def _open(self) -> None:
        """Raises ValueError."""
        self._database = Database(self._path, self._memory)
        self._most_waiting = min(WAITING_BYTES, self._database.capacity // 64)
        self._most_readers = max(self._database.capacity // READER_BYTES, 1)
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
            self._retry = 0
            try:
                self._write()
            except duckdb.Error as error:
                waiting = sum(table.pending.count for table in self._tables.values())
                logger.error("%d spans and logs that came last are lost: %s", waiting, reason(error))
            self._database.close()

    # What comes in

    def add_spans(self, given: Iterable[Records], problems: Problems | None = None, honeycomb_page: str = "") -> Added:
        """Store spans. The same span sent again is stored once; different spans with one id are all stored.

        `problems` are those that were found until now. `honeycomb_page` is where Honeycomb shows the traces of the
        services that sent them, but for the trace's id. Raises duckdb.Error when nothing can be stored now.
        """
        problems = problems or Problems()
        with self._lock:
            table = self._tables["spans"]
            first, origins = self._add(table, given, problems)
            for origin in origins:
                self._honeycomb_pages[table.vocabulary.origins[origin].service] = honeycomb_page
            trace_ids = table.pending.trace_ids(first)
        return Added(trace_ids, problems.rejected, problems.sentence())

    def add_logs(self, given: Iterable[Records], problems: Problems | None = None) -> Added:
        """Store log records. Raises duckdb.Error when nothing can be stored now."""
        problems = problems or Problems()
        with self._lock:
            self._add(self._tables["logs"], given, problems)
        return Added((), problems.rejected, problems.sentence())

    def _add(self, table: Table, given: Iterable[Records], problems: Problems) -> tuple[int, set[int]]:
        """Add records to what waits; return how much waited before, and the origins."""
        if table.pending.count >= WAITING_RECORDS or table.pending.size >= self._most_waiting:
            self._write()
            table = self._tables[table.signal]
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
            self._timer = None
            self._write()

    def _write(self) -> None:
        """Write what waits, and drop what is oldest where it is too much. Raises duckdb.Error."""
        self._readers_changed.wait_for(lambda: not self._pausing)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._failure is not None and time.monotonic() < self._retry:
            raise self._failure
        if self._broken:
            self._open_again()
        try:
            self._write_tables([table for table in self._tables.values() if table.pending.count])
        except duckdb.FatalException as error:
            self._broken, self._failure = True, error
            self._retry = time.monotonic() + RETRY_SECONDS
            raise

    def _write_tables(self, waiting: list[Table]) -> None:
        for table in waiting:
            self._uncompressed += table.pending.size
            try:
                table.write()
            except (duckdb.OutOfMemoryException, MemoryError) as error:
                if not (self._pause() and self._drop_oldest()):
                    raise duckdb.OutOfMemoryException(reason(error)) from error
                table.write()
            self._catalogs.pop(table.signal, None)
        if waiting:
            self._make_room()

    def _make_room(self) -> None:
        """Compress what came, and drop what is oldest, once it is much: only while nobody reads is memory freed."""
        database = self._database
        much = self._uncompressed > database.capacity // 16
        if (much or database.used() > database.capacity) and self._pause():
            if much and database.compress():
                self._uncompressed = 0
            while database.used() > database.capacity and self._drop_oldest() and database.compress():
                self._uncompressed = 0  # and in a file, the room of what went is free

    def _pause(self) -> bool:
        """Wait for those who read to end, and let nobody begin meanwhile; return whether nobody reads.

        Half of the time at most goes to waiting for one who reads for long.
        """
        if self._readers and time.monotonic() >= self._next_pause:
            self._pausing = True
            self._readers_changed.wait_for(lambda: not self._readers, LONGEST_PAUSE)
            self._pausing = False
            self._readers_changed.notify_all()
            self._next_pause = time.monotonic() + (LONGEST_PAUSE if self._readers else 0)
        return not self._readers

    def _drop_oldest(self) -> bool:
        """Drop some of the oldest spans or logs, whichever take more; return whether there were any to drop."""
        self._catalogs.clear()
        larger, smaller = sorted(self._tables.values(), key=lambda table: -table.size)
        return larger.drop_oldest() or smaller.drop_oldest()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._write()
            for table in self._tables.values():
                table.clear()
            self._catalogs.clear()

    # When DuckDB fails

    def _open_again(self) -> None:
        """Open the database again after a failure; what waits goes on waiting. Raises duckdb.Error."""
        if self._readers:  # they hold the file; the broken database ends their questions soon
            raise duckdb.ConnectionException("the database has failed and is being opened again")
        failed = self._tables
        self._database.close()
        self._catalogs.clear()
        try:
            self._open()
        except ValueError as error:
            raise duckdb.IOException(f"the database has failed and cannot be opened again: {error}") from error
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

    # What is stored

    @contextlib.contextmanager
    def _snapshot(self, signal: str = "spans") -> Iterator[Snapshot]:
        """Give what is stored at this moment. Raises duckdb.Error where the database has failed, or TooExpensive."""
        with self._lock:
            with contextlib.suppress(duckdb.Error):  # what waits cannot be written now; all else can be read
                self._write()
            if not self._readers_changed.wait_for(
                lambda: not self._pausing and self._readers < self._most_readers, LONGEST_QUERY
            ):
                raise TooExpensive("other questions take all of the memory: ask again")
            if self._broken:
                self._open_again()
            catalog = self._catalog(signal)
            cursor = self._database.connection.cursor()
            # A transaction sees what is there when it first reads, dropped tables included.
            cursor.begin()
            cursor.execute("SELECT 1 FROM stored.chunks LIMIT 0").fetchall()
            self._readers += 1
        interrupt = threading.Timer(LONGEST_QUERY, cursor.interrupt)
        interrupt.daemon = True
        interrupt.start()
        try:
            yield Snapshot(cursor, catalog, LONGEST_QUERY)
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
            own: dict[str, dict[str, int]] = {}
            origins: dict[str, dict[str, int]] = {}
            for found, numbers in ((own, table.names), (origins, table.origin_names)):
                for number in numbers:
                    name, type_ = names[number]
                    found.setdefault(name, {})[type_] = number
            seen = {name: frozenset({*own.get(name, ()), *origins.get(name, ())}) for name in {**own, **origins}}
            self._catalogs[signal] = Catalog(signal, {**seen, **FIELD_TYPES[signal]}, own, origins)
        return self._catalogs[signal]

    def counts(self) -> tuple[int, int]:
        """Return how many spans and how many logs are stored."""
        with self._lock:
            with contextlib.suppress(duckdb.Error):
                self._write()
            return self._tables["spans"].rows, self._tables["logs"].rows

    def health(self) -> Health:
        """Return what is stored, how much room it takes, and what had to go."""
        with self._lock:
            spans, logs = self.counts()
            dropped = [self._tables[signal].dropped for signal in SIGNALS]
            used = 0
            with contextlib.suppress(duckdb.Error):
                used = self._database.used()
            return Health(spans, logs, used, self._database.capacity, *dropped)

    @property
    def version(self) -> tuple[int, int]:
        """Of spans and of logs: changes whenever there is something new; 0 while there was none."""
        return self._version["spans"], self._version["logs"]

    def honeycomb_page(self, service: str) -> str:
        """Return where Honeycomb shows a trace of this service, but for the trace's id; "" where that is unknown."""
        return self._honeycomb_pages.get(service, "")
