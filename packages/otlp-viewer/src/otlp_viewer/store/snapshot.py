"""What is stored at one moment, for any number of questions about it."""

# ruff: noqa: S608 - statements are made of our own names; whatever was sent is bound.

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

# Fields as SQL: of a record `s` and of its origin `o`.
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


MOST_AT_ONCE = 2000
MOST_BYTES_AT_ONCE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Catalog:
    """What is known of the columns of one signal; never changed, so it can be read without a lock."""

    signal: str
    types: Mapping[str, frozenset[str]]
    """Of every field and attribute, the types of its values that were seen."""
    own: Mapping[str, Mapping[str, int]]
    """Of attributes of the records themselves, the number for each type."""
    origins: Mapping[str, Mapping[str, int]]
    """The same for attributes of their origins."""


class Snapshot:
    """Reads within one transaction, for at most `seconds` altogether; used by one thread."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, catalog: Catalog, seconds: float) -> None:
        self._cursor = cursor
        self._catalog = catalog
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def columns(self) -> Mapping[str, frozenset[str]]:
        """Every field that can be asked about, with the types that were seen in it."""
        return self._catalog.types

    @property
    def signal(self) -> str:
        return self._catalog.signal

    @property
    def table(self) -> str:
        """Return records `s` with their origins `o`, as SQL."""
        return f"stored.{self.signal} AS s JOIN stored.{self.signal}_origins AS o ON o.number = s.origin"

    @property
    def fields(self) -> Collection[str]:
        """The fields of the records themselves, which are no attributes."""
        return FIELDS[self._catalog.signal]

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of an attribute's name, one for each type; records and origins share them."""
        if name in self.fields:
            return []
        return sorted({*self._catalog.own.get(name, {}).values(), *self._catalog.origins.get(name, {}).values()})

    def source(self, fields: Mapping[str, str], more: Iterable[str] = ()) -> str:
        """Return a query for all records with `row`, `time_ns`, and a column for each of `fields`: its name here, and
        the name of the field. Attributes are text. What a record does not have is NULL. `more` are the table's own.
        """
        expressions = {ours: self.expression(name) for ours, name in fields.items()}
        table = self.table if any("o." in sql for sql in expressions.values()) else f"stored.{self.signal} AS s"
        return (
            "SELECT s.row, s.time_ns"
            + "".join(f", s.{name}" for name in more)
            + "".join(f", {sql} AS {ours}" for ours, sql in expressions.items())
            + f" FROM {table}"
        )

    def expression(self, name: str) -> str:
        """Return a field as SQL, of a record `s` and of its origin `o`."""
        if name in FIELDS[self._catalog.signal]:
            return FIELDS[self._catalog.signal][name]
        parts = [
            f"{table}.attributes[{numbers[type_]}]"
            for table, numbers in (
                ("s", self._catalog.own.get(name, {})),
                ("o", self._catalog.origins.get(name, {})),
            )
            for type_ in TYPES
            if type_ in numbers
        ]
        return f"coalesce({', '.join(parts)})" if len(parts) > 1 else parts[0] if parts else "NULL"

    def contains(self, needle: str) -> str:
        """Return what is true of a record `s` with this text, in lower case, in one of its values."""
        own = {"spans": "s.name, s.status_message, s.others", "logs": "s.body, s.severity_text, s.event_name"}
        values = f"{own[self._catalog.signal]}, o.service, o.scope_name"
        maps = "".join(f", array_to_string(map_values({one}.attributes), chr(10))" for one in ("s", "o"))
        return f"contains(lower(concat_ws(chr(10), {values}{maps})), {needle})"

    def portions(self, rows: Sequence[int]) -> list[list[int]]:
        """Return these rows in parts whose records fit into memory."""
        sizes = dict(
            self.rows(
                f"SELECT row, octet_length(record) FROM stored.{self.signal}"
                " WHERE row IN (SELECT unnest($rows::BIGINT[]))",
                {"rows": rows},
            )
        )
        found: list[list[int]] = []
        room = 0
        for row in filter(sizes.__contains__, rows):
            room -= sizes[row]
            if room < 0 or len(found[-1]) == MOST_AT_ONCE:
                found.append([])
                room = MOST_BYTES_AT_ONCE - sizes[row]
            found[-1].append(row)
        return found

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Return what a statement finds; of the parameters it gets those that it names, such as $p1.

        Raises TooExpensive when it takes too long, or more memory than there is.
        """
        used = {name: value for name, value in (parameters or {}).items() if re.search(rf"\${name}\b", sql)}
        try:
            if time.monotonic() > self._end:
                raise duckdb.InterruptException
            return self._cursor.execute(sql, used).fetchall()
        except duckdb.InterruptException:
            raise TooExpensive(
                f"this takes longer than {self._seconds:g} s: narrow the time range, or ask with fewer parts"
            ) from None
        except duckdb.OutOfMemoryException:
            raise TooExpensive(
                "this takes more memory than there is: narrow the time range, or start with a larger --memory"
            ) from None
