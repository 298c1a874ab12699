"""The tables that records are stored in, and what goes when they are full."""

# ruff: noqa: S608 - statements are made of our own names; whatever was sent is bound.

import duckdb

from otlp_viewer.model import LOG_FIELDS, SPAN_FIELDS
from otlp_viewer.store import columns
from otlp_viewer.store.database import transaction
from otlp_viewer.store.vocabulary import Vocabulary

COMMON = (
    "row BIGINT, origin INTEGER, time_ns BIGINT, trace_id VARCHAR, span_id VARCHAR,"
    " attributes MAP(INTEGER, VARCHAR), record BLOB"
)
TYPES = {
    "spans": COMMON + ", duration_ms DOUBLE, parent_id VARCHAR, name VARCHAR, kind UTINYINT, status_code UTINYINT,"
    " status_message VARCHAR, event_times BIGINT[], others VARCHAR, linked VARCHAR, identity UBIGINT",
    "logs": COMMON + ", body VARCHAR, severity_number INTEGER, severity_text VARCHAR, event_name VARCHAR",
}
# What an empty text stands for in the columns as they come.
MISSING = {
    "spans": ("parent_id", "status_message", "others", "linked"),
    "logs": ("trace_id", "span_id", "severity_text", "event_name"),
}
IDENTITY = "hash(trace_id, span_id, kind, time_ns, service)"


class Chunk:
    """One of the tables; a view has all of them. Dropping a table frees its memory at once, deleting rows does not."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.rows = 0
        self.size = 0
        """Bytes of the records."""
        self.names: set[int] = set()
        self.origins: set[int] = set()


class Table:
    """All spans, or all logs: the view stored.<signal>, and what waits to be written. Rows are numbered from 1.

    Used under the store's lock.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection, signal: str, largest_chunk: int) -> None:
        self._database = database
        self.signal = signal
        self._largest_chunk = largest_chunk
        self.vocabulary = Vocabulary(database, signal, SPAN_FIELDS if signal == "spans" else LOG_FIELDS)
        self.pending = self._columns()
        self.chunks: list[Chunk] = []
        self.last_row = 0
        """Of what is written."""
        self.dropped = 0
        for (number,) in database.execute(
            "SELECT number FROM stored.chunks WHERE signal = ? ORDER BY number", [signal]
        ).fetchall():
            self.chunks.append(self._opened(number))
        if not self.chunks:
            self._create(Chunk(1))

    def _columns(self) -> columns.Spans | columns.Logs:
        return (columns.Spans if self.signal == "spans" else columns.Logs)(self.vocabulary)

    @property
    def rows(self) -> int:
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def size(self) -> int:
        return sum(chunk.size for chunk in self.chunks)

    @property
    def names(self) -> set[int]:
        """The numbers of the names of the records' attributes."""
        return {name for chunk in self.chunks for name in chunk.names}

    @property
    def origin_names(self) -> set[int]:
        """The same of their origins' attributes."""
        origins = {origin for chunk in self.chunks for origin in chunk.origins}
        return {name for origin in origins for name in self.vocabulary.origins[origin].attributes}

    def write(self) -> None:
        """Write what waits. Raises duckdb.Error, and everything goes on waiting, where that is not possible."""
        sent = self.pending
        if not sent.count:
            return
        self._database.register("incoming", sent.table(self.last_row + 1))
        before = list(self.chunks)
        try:
            with transaction(self._database):
                if self.chunks[-1].size > self._largest_chunk:
                    self._create(Chunk(self.chunks[-1].number + 1))
                chunk = self.chunks[-1]
                self.vocabulary.save(self._database)
                skipped = self._known(sent) if isinstance(sent, columns.Spans) else []
                self._insert(chunk, skipped)
        except BaseException:
            self.chunks = before
            raise
        finally:
            self._database.unregister("incoming")
        self.vocabulary.saved()
        chunk.rows += sent.count - len(skipped)
        chunk.size += sent.size
        chunk.names |= sent.names
        chunk.origins |= sent.origins
        self.last_row += sent.count
        self.pending = self._columns()

    def drop_oldest(self) -> bool:
        """Drop the oldest chunk, unless it is the only one; return whether it was dropped."""
        if len(self.chunks) < 2:
            return False
        oldest, *rest = self.chunks
        origins = {origin for chunk in rest for origin in chunk.origins} | self.pending.origins
        names = {name for chunk in rest for name in chunk.names} | self.pending.names
        self.vocabulary.save(self._database)
        with transaction(self._database):
            self._view(rest)
            self._database.execute(f"DROP TABLE stored.{self.signal}_{oldest.number}")
            self._database.execute(
                "DELETE FROM stored.chunks WHERE signal = ? AND number = ?", [self.signal, oldest.number]
            )
            self.vocabulary.forget(self._database, names, origins)
        self.chunks = rest
        self.dropped += oldest.rows
        return True

    def clear(self) -> None:
        """Drop everything that is written."""
        self._create(Chunk(self.chunks[-1].number + 1))
        while self.drop_oldest():
            pass
        self.dropped = 0

    def _known(self, sent: columns.Spans) -> list[int]:
        """Return the rows of what is sent that are not to be written: spans that are stored already.

        One that has changed since takes the place of the one that is stored.
        """
        skipped = [self.last_row + 1 + number for number in sent.repeated()]
        pairs = self._database.execute(
            f"SELECT sent.row, known.row FROM (SELECT row, {IDENTITY} AS identity FROM incoming"
            f" JOIN stored.spans_origins AS origins ON origins.number = origin) AS sent"
            " JOIN (SELECT row, identity FROM stored.spans) AS known USING (identity)"
        ).fetchall()
        if pairs:
            same = self._database.execute(
                "SELECT sent.row, known.row FROM (SELECT unnest(?::BIGINT[]) AS row, unnest(?::BIGINT[]) AS known_row)"
                " AS pairs JOIN incoming AS sent USING (row) JOIN stored.spans AS known ON known.row = known_row"
                " WHERE sent.record = known.record",
                [list(rows) for rows in zip(*pairs, strict=True)],
            ).fetchall()
            skipped += [row for row, _ in same]
            self._replace({row for _, row in pairs} - {row for _, row in same})
        return list(set(skipped))

    def _replace(self, rows: set[int]) -> None:
        for chunk in self.chunks if rows else ():
            deleted = self._database.execute(
                f"DELETE FROM stored.{self.signal}_{chunk.number} WHERE row IN (SELECT unnest(?::BIGINT[]))"
                " RETURNING row",
                [list(rows)],
            ).fetchall()
            chunk.rows -= len(deleted)

    def _insert(self, chunk: Chunk, skipped: list[int]) -> None:
        missing = ", ".join(f"nullif({name}, '') AS {name}" for name in MISSING[self.signal])
        source, more = "incoming", ""
        if self.signal == "spans":
            missing += ", CASE WHEN len(event_times) > 0 THEN event_times END AS event_times"
            source += " JOIN stored.spans_origins AS origins ON origins.number = origin"
            more = f", {IDENTITY} AS identity"
        self._database.execute(
            f"INSERT INTO stored.{self.signal}_{chunk.number} BY NAME"
            f" SELECT incoming.* REPLACE ({missing}){more} FROM {source}"
            + (" WHERE row NOT IN (SELECT unnest(?::BIGINT[]))" if skipped else ""),
            [skipped] if skipped else [],
        )

    def _create(self, chunk: Chunk) -> None:
        self._database.execute(f"CREATE TABLE stored.{self.signal}_{chunk.number} ({TYPES[self.signal]})")
        self._database.execute("INSERT INTO stored.chunks VALUES (?, ?)", [self.signal, chunk.number])
        self._view([*self.chunks, chunk])
        self.chunks.append(chunk)

    def _view(self, chunks: list[Chunk]) -> None:
        tables = " UNION ALL ".join(f"FROM stored.{self.signal}_{chunk.number}" for chunk in chunks)
        self._database.execute(f"CREATE OR REPLACE VIEW stored.{self.signal} AS {tables}")

    def _opened(self, number: int) -> Chunk:
        chunk = Chunk(number)
        table = f"stored.{self.signal}_{number}"
        chunk.rows, chunk.size, last = self._database.execute(
            f"SELECT count(*), coalesce(sum(octet_length(record)), 0), coalesce(max(row), 0) FROM {table}"
        ).fetchall()[0]
        self.last_row = max(self.last_row, last)
        chunk.names = {
            name
            for (name,) in self._database.execute(
                f"SELECT DISTINCT unnest(map_keys(attributes)) FROM {table}"
            ).fetchall()
        }
        chunk.origins = {
            origin for (origin,) in self._database.execute(f"SELECT DISTINCT origin FROM {table}").fetchall()
        }
        return chunk
