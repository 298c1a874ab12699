"""Makes SQL of a query."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from otlp_viewer.query.parse import OF_NUMBERS, OF_TEXT, OPPOSITES, types
from otlp_viewer.query.types import Calculation, Filter, Query

if TYPE_CHECKING:
    from otlp_viewer.store.events import Snapshot


class Compiled:
    """The parts of SQL that a query is made of, each over the columns of `source`."""

    def __init__(self, snapshot: "Snapshot", query: Query) -> None:
        self._snapshot = snapshot
        self.types = types(snapshot.columns)
        self._ours: dict[str, str] = {}
        self.groups = [self.text(name) for name in query.breakdowns]
        self.aggregates = [self._aggregate(made) for made in query.calculations]
        self.parameters: list[Any] = [query.start * 1e6, query.end * 1e6]
        self.where = "epoch_us(time) >= ? AND epoch_us(time) < ?"
        if query.filters:
            both = " OR " if query.any_filter else " AND "
            self.where += f" AND ({both.join(self.condition(one, self.parameters) for one in query.filters)})"

    def source(self) -> str:
        """Where the rows come from. Ask for it last: it has the columns that were asked for until then."""
        return "(" + self._snapshot.source(**{ours: name for name, ours in self._ours.items()}) + ")"

    def text(self, column: str) -> str:
        """The column as text, or as the number it is if that is how it is kept."""
        return self._ours.setdefault(column, f"x{len(self._ours)}")

    def number(self, column: str) -> str:
        """The column as a number, or NULL where it is none."""
        if column == "duration_ms":
            return self.text(column)
        as_double = f"TRY_CAST({self.text(column)} AS DOUBLE)"
        return f"CASE WHEN isfinite({as_double}) THEN {as_double} END"

    def condition(self, one: Filter, parameters: list[Any]) -> str:
        """What is true of the events that the filter wants; a field that is missing differs from every value."""
        if one.op in OPPOSITES:
            return f"NOT {self.condition(replace(one, op=OPPOSITES[one.op]), parameters)}"
        if one.op == "exists":
            return f"({self.text(one.column)} IS NOT NULL)"
        if one.op == "in":
            each = (self.condition(Filter(one.column, "=", value), parameters) for value in one.value)
            return f"({' OR '.join(each) or 'false'})"
        text = f"{self.text(one.column)}::VARCHAR"
        if one.op in OF_TEXT:
            parameters.append(one.value)
            return f"coalesce({OF_TEXT[one.op].format(text)}, false)"
        value, sql = one.value, text
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, int) and self.types[one.column] == "integer" and one.op == "=":
            value = str(value)  # exact, where a double is not
        elif isinstance(value, int | float):
            value, sql = float(value), self.number(one.column)
        parameters.append(value)
        return f"coalesce({sql} {one.op} ?, false)"

    def _aggregate(self, made: Calculation) -> str:
        if made.column is None:
            return "count(*)"
        if made.op == "COUNT_DISTINCT":
            return f"count(DISTINCT {self.text(made.column)})"
        return OF_NUMBERS[made.op].format(self.number(made.column))
