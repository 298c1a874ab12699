"""Keeps wide events, whatever columns they have, in DuckDB: the newest of them, oldest first out."""

# ruff: noqa: S608 - statements are made of our own names; whatever was sent is bound.

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any, NamedTuple

import duckdb

from otlp_viewer.store.wide import PARTS, Event

MOST_BYTES = 256 * 1024 * 1024
MOST_COLUMNS = 300
LONGEST_TEXT = 1_000
CHUNKS = 10

# Why it is built this way. DuckDB takes 500 rows/s one by one (executemany), 17,000 as a list for each column,
# and 31,000 when the events come as one list of JSON that it takes apart itself. A query that takes them apart
# when it is asked needs 100 ms for a column of 100,000 events; a column of its own needs 5 ms. So an attribute
# becomes a column at first sight. All are text, so that none has to change its type: a number is read from its
# text where one is needed. Columns are c0, c1, ... because DuckDB's names ignore case and attributes' do not, and
# because then nothing that was sent is ever part of a statement. Deleted rows keep their memory, dropped tables
# do not: so there are CHUNKS tables, and the oldest is dropped. An old table takes the columns that nobody sends
# any more with it.


class Column(NamedTuple):
    """Where a table has a field: `sql` is one of our own names, `types` Honeycomb's names of what was seen."""

    sql: str
    types: frozenset[str]


class Chunk:
    """One of the tables."""

    def __init__(self, number: int, columns: Mapping[str, Column]) -> None:
        self.number = number
        self.columns = columns  # replaced, never changed: who reads keeps what it found
        self.rows = 0
        self.bytes = 0
        self.keys: set[int] = set()


class Snapshot:
    """What was kept at one moment, for any number of queries; used by one thread."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, table: str, chunks: list[Chunk], newest: int) -> None:
        self._cursor = cursor
        self._table = table
        self._chunks = [(chunk.number, chunk.columns) for chunk in chunks]
        self._newest = newest

    @property
    def columns(self) -> dict[str, frozenset[str]]:
        """Every field that can be asked about, with the types that were seen in it."""
        found: dict[str, frozenset[str]] = {}
        for _, columns in self._chunks:
            for name, column in columns.items():
                found[name] = found.get(name, frozenset()) | column.types
        return found

    def source(self, **fields: str) -> str:
        """Return a query for all events with `seq`, `time`, and a column for each of `fields`: its name here, and
        the name of the field. What a table does not have is NULL.
        """
        return " UNION ALL ".join(
            "SELECT seq, time"
            + "".join(
                f", {columns[name].sql if name in columns else 'NULL'} AS {ours}" for ours, name in fields.items()
            )
            + f" FROM {self._table}_{number} WHERE seq > {self._newest}"
            for number, columns in self._chunks
        )

    def matching(self, text: str) -> tuple[str, list[str]]:
        """Return a query, and its parameters, for the `seq` of all events with this text in a value, in any case."""
        needle = text.lower()
        quick = json.dumps(needle, ensure_ascii=False)[1:-1]
        queries = []
        for number, columns in self._chunks:
            values = ", ".join(column.sql for name, column in columns.items() if name != "time")
            values += "".join(f", event->>'$.{name}'" for name in (*NEVER_COLUMNS, "others"))
            queries.append(
                f"SELECT seq FROM {self._table}_{number}"
                f" WHERE contains(lower(event), ?) AND contains(lower(concat_ws(chr(10), {values})), ?)"
            )
        return " UNION ALL ".join(queries), [quick, needle] * len(queries)

    def rows(self, sql: str, parameters: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        return self._cursor.execute(sql, list(parameters)).fetchall()

    def events(
        self, where: str, parameters: Iterable[Any] = (), order: str = "time, seq", limit: int = 0
    ) -> list[tuple[int, Event]]:
        """Return events, each with its seq; `where` and `order` are SQL over seq, time, event, trace_id, span_id."""
        found = self.rows(
            "SELECT chunk, seq, event FROM ("
            + " UNION ALL ".join(
                f"SELECT {number} AS chunk, seq, time, event, trace_id, span_id FROM {self._table}_{number}"
                f" WHERE seq > {self._newest}"
                for number, _ in self._chunks
            )
            + f") WHERE {where} ORDER BY {order}"
            + (f" LIMIT {limit:d}" if limit else ""),
            parameters,
        )
        names = {number: {column.sql: name for name, column in columns.items()} for number, columns in self._chunks}
        return [(seq, _from_json(event, names[chunk])) for chunk, seq, event in found]


class Events:
    """A table of at most `most` wide events, in `database`; safe between threads that share `lock`.

    `fixed` are the fields that every table has, with their own SQL names and types: time, trace and span ids.
    With `key`, an event replaces the one of the same trace and span. MOST_BYTES bounds the events' JSON, and
    MOST_COLUMNS the attributes of each table that can be asked about: what is beyond is kept, not asked about.
    """

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        lock: Lock,
        table: str,
        most: int,
        fixed: Mapping[str, str],
        key: bool = False,
    ) -> None:
        self._database = database.cursor()
        self._lock = lock
        self._table = table
        self._most = most
        self._fixed = {
            name: Column(name.removeprefix("trace."), frozenset({"float" if type_ == "DOUBLE" else "string"}))
            for name, type_ in fixed.items()
        }
        self._types = {self._fixed[name].sql: type_ for name, type_ in fixed.items()}
        self._key = key
        self._chunks: list[Chunk] = []
        self._seq = 0  # of the newest event
        self._open()

    def add(self, events: Iterable[Event]) -> None:
        """Keep events; raises duckdb.Error, and keeps none of them, where the database cannot."""
        rows = list(events)
        if self._key:  # the last of those with the same ids
            rows = list({(row["trace.trace_id"], row["trace.span_id"]): row for row in rows}.values())
        size = max(self._most // CHUNKS, 1)
        with self._lock:
            for first in range(0, len(rows), size):
                self._add(rows[first : first + size], size)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        with self._lock:
            cursor = self._database.cursor()
            # A transaction sees the tables as they are when it first reads, dropped ones included.
            cursor.begin()
            cursor.execute("SELECT 1 FROM chunks LIMIT 0").fetchall()
            snapshot = Snapshot(cursor, self._table, list(self._chunks), self._seq - self._most)
        try:
            yield snapshot
        finally:
            cursor.close()

    def count(self) -> int:
        with self.snapshot() as snapshot:
            return int(snapshot.rows(f"SELECT count(*) FROM ({snapshot.source()})")[0][0])

    @property
    def version(self) -> int:
        """Grows with every event that is added."""
        return self._seq

    def _open(self) -> None:
        """Take up what a database file has, or begin."""
        kept = "SELECT number, columns FROM chunks WHERE kind = ? ORDER BY number"
        for number, columns in self._database.execute(kept, [self._table]).fetchall():
            named = {name: Column(sql, frozenset(types)) for name, (sql, types) in json.loads(columns).items()}
            chunk = Chunk(number, self._fixed | named)
            rows, size, newest, keys = self._database.execute(
                "SELECT count(*), coalesce(sum(strlen(event)), 0), coalesce(max(seq), 0), coalesce(list(span_id), [])"
                f" FROM {self._table}_{number}"
            ).fetchall()[0]
            chunk.rows, chunk.bytes = rows, int(size)
            chunk.keys = {int(key, 16) for key in keys} if self._key else set()
            self._chunks.append(chunk)
            self._seq = max(self._seq, newest)
        if not self._chunks:
            self._database.begin()
            chunk = self._create(0)
            self._database.commit()
            self._chunks.append(chunk)

    def _create(self, number: int) -> Chunk:
        types = "".join(f", {sql} {type_}" for sql, type_ in self._types.items())
        self._database.execute(f"CREATE TABLE {self._table}_{number} (seq BIGINT, event VARCHAR{types})")
        self._database.execute("INSERT INTO chunks VALUES (?, ?, '{}')", [self._table, number])
        return Chunk(number, self._fixed)

    def _add(self, rows: list[Event], size: int) -> None:
        """Add up to `size` rows in one transaction."""
        chunks = list(self._chunks)
        self._database.begin()
        try:
            chunk = chunks[-1]
            if chunk.rows and (chunk.rows + len(rows) > size or chunk.bytes > MOST_BYTES // CHUNKS):
                chunk = self._create(chunk.number + 1)
                chunks.append(chunk)
            columns = self._widen(chunk, rows)
            keys = {int(row["trace.span_id"], 16) for row in rows} if self._key else set()
            self._forget(chunks, rows, keys)
            texts = [_to_json(row, columns) for row in rows]
            self._insert(chunk, texts, columns, rows)
            bytes_ = chunk.bytes + sum(map(len, texts))

            # Nothing of a table whose newest event is too old can be seen any more.
            behind = sum(kept.rows for kept in chunks[1:-1]) + (chunk.rows + len(rows))
            weight = sum(kept.bytes for kept in chunks[:-1]) + bytes_
            dropped = 0
            while dropped < len(chunks) - 1 and (behind >= self._most or weight > MOST_BYTES):
                self._database.execute(f"DROP TABLE {self._table}_{chunks[dropped].number}")
                self._database.execute(
                    "DELETE FROM chunks WHERE kind = ? AND number = ?", [self._table, chunks[dropped].number]
                )
                weight -= chunks[dropped].bytes
                dropped += 1
                behind -= chunks[dropped].rows
            self._database.commit()
        except BaseException:
            self._database.rollback()
            raise
        chunk.columns = columns
        chunk.rows += len(rows)
        chunk.bytes = bytes_
        chunk.keys |= keys
        self._chunks = chunks[dropped:]
        self._seq += len(rows)

    def _widen(self, chunk: Chunk, rows: list[Event]) -> Mapping[str, Column]:
        """Return the table's columns with those of the rows, added to the table."""
        seen: dict[str, set[type]] = {}
        for row in rows:
            for name, value in row.items():
                if name in seen:
                    seen[name].add(type(value))
                else:
                    seen[name] = {type(value)}
        columns = dict(chunk.columns)
        new = False
        for name, values in seen.items():
            if name in self._fixed or name in NEVER_COLUMNS or name in PARTS:
                continue
            types = frozenset(TYPES.get(value, "string") for value in values if value is not type(None))
            if name in columns:
                new |= not types <= columns[name].types
                columns[name] = columns[name]._replace(types=columns[name].types | types)
            elif types and len(columns) < MOST_COLUMNS + len(self._fixed):
                columns[name] = Column(f"c{len(columns) - len(self._fixed)}", types)
                self._database.execute(
                    f"ALTER TABLE {self._table}_{chunk.number} ADD COLUMN {columns[name].sql} VARCHAR"
                )
                new = True
        if new:
            self._database.execute(
                "UPDATE chunks SET columns = ? WHERE kind = ? AND number = ?",
                [
                    json.dumps({name: (at.sql, sorted(at.types)) for name, at in columns.items() if at.sql[0] == "c"}),
                    self._table,
                    chunk.number,
                ],
            )
        return columns

    def _forget(self, chunks: list[Chunk], rows: list[Event], keys: set[int]) -> None:
        """Delete what the rows replace."""
        for chunk in chunks:
            again = keys & chunk.keys
            if again:
                ids = [row for row in rows if int(row["trace.span_id"], 16) in again]
                self._database.execute(
                    f"DELETE FROM {self._table}_{chunk.number} WHERE (trace_id, span_id) IN"
                    " (SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[]))",
                    [[row["trace.trace_id"] for row in ids], [row["trace.span_id"] for row in ids]],
                )

    def _insert(self, chunk: Chunk, texts: list[str], columns: Mapping[str, Column], rows: list[Event]) -> None:
        used: dict[str, bool] = {}
        for row in rows:
            for name, value in row.items():
                if name in columns:
                    long = len(value) > LONGEST_TEXT if type(value) is str else type(value) in (list, dict)
                    used[name] = used.get(name, False) or long
        names = [columns[name].sql for name in used]
        values = [
            f"left(fields.{columns[name].sql}, {LONGEST_TEXT})" if long else f"fields.{columns[name].sql}"
            for name, long in used.items()
        ]
        shape = json.dumps({name: self._types.get(name, "VARCHAR") for name in names})
        self._database.execute(
            f"INSERT INTO {self._table}_{chunk.number} (seq, event, {', '.join(names)})"
            f" SELECT seq, event, {', '.join(values)} FROM ("
            f"SELECT seq, event, json_transform(event, '{shape}') AS fields"
            " FROM (SELECT unnest(?::VARCHAR[]) AS event, unnest(range(?, ?)) AS seq))",
            [texts, self._seq + 1, self._seq + 1 + len(texts)],
        )


# Lists of maps; what is in them is shown with its span.
NEVER_COLUMNS = ("events", "links")
TYPES = {bool: "boolean", int: "integer", float: "float"}


def _to_json(event: Event, columns: Mapping[str, Column]) -> str:
    """Return the event as JSON with our names of its columns; fields that are none go into a map of their own."""
    fields, others = {}, {}
    for name, value in event.items():
        if name in columns:
            fields[columns[name].sql] = value
        else:
            others[name] = value
    if others:
        fields["others"] = others
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def _from_json(event: str, names: Mapping[str, str]) -> Event:
    fields = json.loads(event)
    others = fields.pop("others", {})
    return {**{names[sql]: value for sql, value in fields.items()}, **others}
