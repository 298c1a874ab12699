"""The tables of spans and logs. Each is split into chunks, so that the oldest can be dropped."""

# ruff: noqa: S608 - statements contain only generated names; user input is bound.

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
# Columns in which an empty string becomes NULL.
NULL_IF_EMPTY = {
    "spans": ("parent_id", "status_message", "others", "linked"),
    "logs": ("trace_id", "span_id", "severity_text", "event_name"),
}
IDENTITY = "hash(trace_id, span_id, kind, time_ns, service)"


class Chunk:
    """A table with part of the rows. Dropping it frees its memory at once; deleting rows does not."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.rows = 0
        self.size = 0
        """Total size of the records in bytes."""
        self.names: set[int] = set()
        self.origins: set[int] = set()


class Table:
    """All spans or all logs: the view stored.<signal> of all chunks, and pending records. Rows are numbered from 1.

    Callers must hold the store's lock.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection, signal: str, max_chunk_size: int) -> None:
        self._database = database
        self.signal = signal
        self._max_chunk_size = max_chunk_size
        self.vocabulary = Vocabulary(database, signal, SPAN_FIELDS if signal == "spans" else LOG_FIELDS)
        self.pending = self._columns()
        self.chunks: list[Chunk] = []
        self.last_row = 0
        """Number of the last row that was written."""
        self.dropped = 0
        for (number,) in database.execute(
            "SELECT number FROM stored.chunks WHERE signal = ? ORDER BY number", [signal]
        ).fetchall():
            self.chunks.append(self._open_chunk(number))
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
        """The numbers of the attribute names in the records."""
        return {name for chunk in self.chunks for name in chunk.names}

    @property
    def origin_names(self) -> set[int]:
        """The numbers of the attribute names in the origins of the records."""
        origins = {origin for chunk in self.chunks for origin in chunk.origins}
        return {name for origin in origins for name in self.vocabulary.origins[origin].attributes}

    def write(self) -> None:
        """Write the pending records. If this raises duckdb.Error, they stay pending."""
        pending = self.pending
        if not pending.count:
            return
        self._database.register("incoming", pending.table(self.last_row + 1))
        chunks_before = list(self.chunks)
        try:
            with transaction(self._database):
                if self.chunks[-1].size > self._max_chunk_size:
                    self._create(Chunk(self.chunks[-1].number + 1))
                chunk = self.chunks[-1]
                self.vocabulary.save(self._database)
                skipped = self._deduplicate(pending) if isinstance(pending, columns.Spans) else []
                self._insert(chunk, skipped)
        except BaseException:
            self.chunks = chunks_before
            raise
        finally:
            self._database.unregister("incoming")
        self.vocabulary.mark_saved()
        chunk.rows += pending.count - len(skipped)
        chunk.size += pending.size
        chunk.names |= pending.names
        chunk.origins |= pending.origins
        self.last_row += pending.count
        self.pending = self._columns()

    def drop_oldest(self) -> bool:
        """Drop the oldest chunk unless it is the only one. Return whether it was dropped."""
        if len(self.chunks) < 2:
            return False
        oldest, *rest = self.chunks
        origins = {origin for chunk in rest for origin in chunk.origins} | self.pending.origins
        names = {name for chunk in rest for name in chunk.names} | self.pending.names
        self.vocabulary.save(self._database)
        with transaction(self._database):
            self._create_view(rest)
            self._database.execute(f"DROP TABLE stored.{self.signal}_{oldest.number}")
            self._database.execute(
                "DELETE FROM stored.chunks WHERE signal = ? AND number = ?", [self.signal, oldest.number]
            )
            self.vocabulary.prune(self._database, names, origins)
        self.chunks = rest
        self.dropped += oldest.rows
        return True

    def clear(self) -> None:
        """Drop all records that were written."""
        self._create(Chunk(self.chunks[-1].number + 1))
        while self.drop_oldest():
            pass
        self.dropped = 0

    def _deduplicate(self, pending: columns.Spans) -> list[int]:
        """Return the rows of pending spans to skip: duplicates, and spans that are stored already.

        Deletes stored spans that a changed version replaces.
        """
        skipped = [self.last_row + 1 + index for index in pending.duplicates()]
        pairs = self._database.execute(
            f"SELECT sent.row, existing.row FROM (SELECT row, {IDENTITY} AS identity FROM incoming"
            f" JOIN stored.spans_origins AS origins ON origins.number = origin) AS sent"
            " JOIN (SELECT row, identity FROM stored.spans) AS existing USING (identity)"
        ).fetchall()
        if pairs:
            unchanged = self._database.execute(
                "SELECT sent.row, existing.row"
                " FROM (SELECT unnest(?::BIGINT[]) AS row, unnest(?::BIGINT[]) AS existing_row) AS pairs"
                " JOIN incoming AS sent USING (row) JOIN stored.spans AS existing ON existing.row = existing_row"
                " WHERE sent.record = existing.record",
                [list(rows) for rows in zip(*pairs, strict=True)],
            ).fetchall()
            skipped += [row for row, _ in unchanged]
            self._delete({row for _, row in pairs} - {row for _, row in unchanged})
        return list(set(skipped))

    def _delete(self, rows: set[int]) -> None:
        for chunk in self.chunks if rows else ():
            deleted = self._database.execute(
                f"DELETE FROM stored.{self.signal}_{chunk.number} WHERE row IN (SELECT unnest(?::BIGINT[]))"
                " RETURNING row",
                [list(rows)],
            ).fetchall()
            chunk.rows -= len(deleted)

    def _insert(self, chunk: Chunk, skipped: list[int]) -> None:
        replacements = ", ".join(f"nullif({name}, '') AS {name}" for name in NULL_IF_EMPTY[self.signal])
        source, identity = "incoming", ""
        if self.signal == "spans":
            replacements += ", CASE WHEN len(event_times) > 0 THEN event_times END AS event_times"
            source += " JOIN stored.spans_origins AS origins ON origins.number = origin"
            identity = f", {IDENTITY} AS identity"
        self._database.execute(
            f"INSERT INTO stored.{self.signal}_{chunk.number} BY NAME"
            f" SELECT incoming.* REPLACE ({replacements}){identity} FROM {source}"
            + (" WHERE row NOT IN (SELECT unnest(?::BIGINT[]))" if skipped else ""),
            [skipped] if skipped else [],
        )

    def _create(self, chunk: Chunk) -> None:
        self._database.execute(f"CREATE TABLE stored.{self.signal}_{chunk.number} ({TYPES[self.signal]})")
        self._database.execute("INSERT INTO stored.chunks VALUES (?, ?)", [self.signal, chunk.number])
        self._create_view([*self.chunks, chunk])
        self.chunks.append(chunk)

    def _create_view(self, chunks: list[Chunk]) -> None:
        tables = " UNION ALL ".join(f"FROM stored.{self.signal}_{chunk.number}" for chunk in chunks)
        self._database.execute(f"CREATE OR REPLACE VIEW stored.{self.signal} AS {tables}")

    def _open_chunk(self, number: int) -> Chunk:
        chunk = Chunk(number)
        table = f"stored.{self.signal}_{number}"
        chunk.rows, chunk.size, last_row = self._database.execute(
            f"SELECT count(*), coalesce(sum(octet_length(record)), 0), coalesce(max(row), 0) FROM {table}"
        ).fetchall()[0]
        self.last_row = max(self.last_row, last_row)
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
