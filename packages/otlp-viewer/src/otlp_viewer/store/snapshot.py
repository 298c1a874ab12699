"""A consistent view of the stored records, for any number of queries."""

# ruff: noqa: S608 - statements contain only generated names; user input is bound.

import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from otlp_viewer.messages import KINDS
from otlp_viewer.model import LOG_FIELDS, SPAN_FIELDS
from otlp_viewer.query.types import TooExpensive
from otlp_viewer.values import TYPES

# SQL expressions for the fields of a record `s` and its origin `o`.
SHARED = {
    "trace.trace_id": "s.trace_id",
    "trace.span_id": "s.span_id",
    "service.name": "o.service",
    "library.name": "o.scope_name",
    "library.version": "o.scope_version",
}
FIELDS = {
    "spans": SHARED
    | {
        "name": "s.name",
        "duration_ms": "s.duration_ms",
        "trace.parent_id": "s.parent_id",
        "span.kind": f"{list(KINDS)}[s.kind + 1]",
        "status_code": "s.status_code",
        "status_message": "s.status_message",
        "error": "(s.status_code = 2)",
    },
    "logs": SHARED
    | {
        "body": "s.body",
        "severity_text": "s.severity_text",
        "severity_number": "s.severity_number",
        "event.name": "s.event_name",
    },
}
FIELD_TYPES = {
    "spans": {name: frozenset({type_}) for name, type_ in SPAN_FIELDS.items()},
    "logs": {name: frozenset({type_}) for name, type_ in LOG_FIELDS.items()},
}

MAX_BATCH_ROWS = 2000
MAX_BATCH_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Catalog:
    """The columns of a signal. It is immutable, so it can be read without a lock."""

    signal: str
    types: Mapping[str, frozenset[str]]
    """The types of the values of each field and attribute."""
    record_numbers: Mapping[str, Mapping[str, int]]
    """For each attribute of a record, its numbers by type."""
    origin_numbers: Mapping[str, Mapping[str, int]]
    """For each attribute of an origin, its numbers by type."""


class Snapshot:
    """Reads in a single transaction, for at most `seconds` in total. Not thread-safe."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, catalog: Catalog, seconds: float) -> None:
        self._cursor = cursor
        self._catalog = catalog
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def columns(self) -> Mapping[str, frozenset[str]]:
        """Every field and attribute, with the types of its values."""
        return self._catalog.types

    @property
    def signal(self) -> str:
        return self._catalog.signal

    @property
    def table(self) -> str:
        """SQL for the records `s`, joined with their origins `o`."""
        return f"stored.{self.signal} AS s JOIN stored.{self.signal}_origins AS o ON o.number = s.origin"

    @property
    def fields(self) -> Collection[str]:
        """The names of fields that are not attributes."""
        return FIELDS[self._catalog.signal]

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of an attribute, one for each type. Records and origins share them."""
        if name in self.fields:
            return []
        catalog = self._catalog
        return sorted({*catalog.record_numbers.get(name, {}).values(), *catalog.origin_numbers.get(name, {}).values()})

    def source(self, fields: Mapping[str, str], columns: Iterable[str] = ()) -> str:
        """Return a query for `row`, `time_ns`, `columns` of the table, and `fields` of all records.

        `fields` maps the names of the query's columns to fields. Attributes are text. A missing field is NULL.
        """
        expressions = {alias: self.expression(name) for alias, name in fields.items()}
        table = self.table if any("o." in sql for sql in expressions.values()) else f"stored.{self.signal} AS s"
        return (
            "SELECT s.row, s.time_ns"
            + "".join(f", s.{name}" for name in columns)
            + "".join(f", {sql} AS {alias}" for alias, sql in expressions.items())
            + f" FROM {table}"
        )

    def expression(self, name: str) -> str:
        """Return SQL for a field of a record `s` and its origin `o`."""
        if name in FIELDS[self._catalog.signal]:
            return FIELDS[self._catalog.signal][name]
        parts = [
            f"{table}.attributes[{numbers[type_]}]"
            for table, numbers in (
                ("s", self._catalog.record_numbers.get(name, {})),
                ("o", self._catalog.origin_numbers.get(name, {})),
            )
            for type_ in TYPES
            if type_ in numbers
        ]
        return f"coalesce({', '.join(parts)})" if len(parts) > 1 else parts[0] if parts else "NULL"

    def contains(self, needle: str) -> str:
        """Return the SQL condition for records `s` that contain a text. `needle` is SQL for the text in lowercase."""
        fields = {"spans": "s.name, s.status_message, s.others", "logs": "s.body, s.severity_text, s.event_name"}
        values = f"{fields[self._catalog.signal]}, o.service, o.scope_name"
        maps = "".join(f", array_to_string(map_values({table}.attributes), chr(10))" for table in ("s", "o"))
        return f"contains(lower(concat_ws(chr(10), {values}{maps})), {needle})"

    def batches(self, rows: Sequence[int]) -> list[list[int]]:
        """Split rows into batches whose records fit into memory. Leaves out rows that are not stored."""
        sizes = dict(
            self.rows(
                f"SELECT row, octet_length(record) FROM stored.{self.signal}"
                " WHERE row IN (SELECT unnest($rows::BIGINT[]))",
                {"rows": rows},
            )
        )
        batches: list[list[int]] = []
        remaining = 0
        for row in filter(sizes.__contains__, rows):
            remaining -= sizes[row]
            if remaining < 0 or len(batches[-1]) == MAX_BATCH_ROWS:
                batches.append([])
                remaining = MAX_BATCH_BYTES - sizes[row]
            batches[-1].append(row)
        return batches

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows. Passes only the parameters that it contains, such as $p1.

        Raises TooExpensive if it takes too much time or memory.
        """
        used = {name: value for name, value in (parameters or {}).items() if re.search(rf"\${name}\b", sql)}
        try:
            if time.monotonic() > self._end:
                raise duckdb.InterruptException
            return self._cursor.execute(sql, used).fetchall()
        except duckdb.InterruptException:
            raise TooExpensive(
                f"the query takes longer than {self._seconds:g} s: use a shorter time range or a simpler query"
            ) from None
        except duckdb.OutOfMemoryException:
            raise TooExpensive(
                "the query needs more memory than is available: use a shorter time range, or start the viewer"
                " with a larger --memory"
            ) from None
