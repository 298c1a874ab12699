"""Makes SQL of the parts of a query. What was sent is bound to parameters, never part of a statement."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from otlp_viewer.query.operators import OF_NUMBERS, OF_TEXT, OPPOSITES
from otlp_viewer.query.types import Calculation, Filter, Query
from otlp_viewer.values import as_text

if TYPE_CHECKING:
    from otlp_viewer.store.snapshot import Snapshot

NATIVE = ("duration_ms", "status_code", "severity_number")
"""Fields that are stored as numbers. Everything else is text, in which equal numbers are equal."""
WEIGHT = "SampleRate"
NUMBERS = frozenset({"integer", "float"})
EXACT = 1 << 53
"""Below this a double has every whole number."""
LAST_SECOND = 1 << 33  # in the year 2242: a time in nanoseconds has 63 bits


class Compiled:
    """SQL over the columns of `source`, which has those that were asked for until then: ask for it last."""

    def __init__(self, snapshot: "Snapshot", query: Query) -> None:
        self._snapshot = snapshot
        self._ours: dict[str, str] = {}
        self.parameters: dict[str, Any] = {}
        self.where = (
            f"time_ns >= {self.bind(nanoseconds(query.start))} AND time_ns < {self.bind(nanoseconds(query.end))}"
        )
        if query.filters:
            self.where += f" AND {self.all_or_any(query.filters, query.any_filter)}"
        self.groups = [self.text(name) for name in query.breakdowns]
        self._weight = ""
        if snapshot.columns.get(WEIGHT, frozenset()) & NUMBERS:
            self._weight = f"greatest(coalesce({self.number(WEIGHT)}, 1), 1)"

    def source(self, more: Iterable[str] = ()) -> str:
        """Return what the rows that the query is about are selected from; `more` are columns of the table."""
        return self._snapshot.source({ours: name for name, ours in self._ours.items()}, more)

    def bind(self, value: object) -> str:
        """Return a parameter that stands for the value."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"

    def text(self, column: str) -> str:
        """Return the column as text, or as the number or the boolean it is if that is how it is stored."""
        return self._ours.setdefault(column, f"x{len(self._ours)}")

    def number(self, column: str) -> str:
        """Return the column as a number, or NULL where it is none."""
        if column in NATIVE:
            return self.text(column)
        if self._snapshot.columns[column] == {"integer"}:
            return f"CAST({self.text(column)} AS BIGINT)"
        as_double = f"TRY_CAST({self.text(column)} AS DOUBLE)"
        return f"CASE WHEN isfinite({as_double}) THEN {as_double} END"

    def all_or_any(self, filters: Sequence[Filter], any_filter: bool) -> str:
        return f"({(' OR ' if any_filter else ' AND ').join(map(self.condition, filters))})"

    def condition(self, one: Filter) -> str:
        """Return what is true of what the filter wants; a field that is missing differs from every value."""
        if one.op in OPPOSITES:
            return f"NOT {self.condition(replace(one, op=OPPOSITES[one.op]))}"
        if one.op == "exists":
            return f"({self.text(one.column)} IS NOT NULL)"
        text = f"{self.text(one.column)}::VARCHAR"
        if one.op in OF_TEXT:
            return f"coalesce({OF_TEXT[one.op]}({text}, {self.bind(one.value)}), false)"
        values = one.value if one.op == "in" else [one.value]
        if one.op in ("in", "="):
            texts = [as_text(value)[1] for value in values if self._is_text(one.column, value)]
            numbers = [value for value in values if not self._is_text(one.column, value)]
            parts = [self._compared(one.column, "=", value) for value in numbers if abs(value) >= EXACT]
            numbers = [float(value) for value in numbers if abs(value) < EXACT]
            if texts:
                parts.append(f"coalesce(list_contains({self.bind(texts)}::VARCHAR[], {text}), false)")
            if numbers:
                number = f"({self.number(one.column)})::DOUBLE"
                parts.append(f"coalesce(list_contains({self.bind(numbers)}::DOUBLE[], {number}), false)")
            return f"({' OR '.join(parts) or 'false'})"
        if isinstance(one.value, int | float) and not isinstance(one.value, bool):
            return self._compared(one.column, one.op, one.value)
        return f"coalesce({text} {one.op} {self.bind(one.value)}, false)"

    def _compared(self, column: str, op: str, value: float) -> str:
        """Return a comparison with a number; it is exact for whole numbers, whatever else the column has."""
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
            value = int(value)
        number = f"{self.number(column)} {op} {self.bind(value)}"
        types = self._snapshot.columns[column]
        if isinstance(value, int) and "integer" in types and len(types) > 1:
            whole = f"TRY_CAST(regexp_extract({self.text(column)}, '^-?[0-9]+$') AS HUGEINT)"
            return f"coalesce({whole} {op} {self.bind(value)}, {number}, false)"
        return f"coalesce({number}, false)"

    def _is_text(self, column: str, value: object) -> bool:
        """Return whether what equals the value has its text: not so for text that only reads as the same number."""
        if isinstance(value, str | bool):
            return True
        return column not in NATIVE and "string" not in self._snapshot.columns[column]

    def only(self, made: Calculation) -> str:
        """Return what is true of the records that the calculation is about; "" where that is all of them."""
        return self.all_or_any(made.filters, made.any_filter) if made.filters else ""

    def aggregate(self, made: Calculation) -> str:
        """Return the calculation as an aggregate; "" for a HEATMAP."""
        conditions = [self.only(made)] if made.filters else []
        if made.op == "COUNT":
            if made.column is not None:
                conditions.append(f"{self.text(made.column)} IS NOT NULL")
            sql = f"sum({self._weight})" if self._weight else "count(*)"
        elif made.op == "COUNT_DISTINCT" and made.column is not None:
            sql = f"count(DISTINCT {self.text(made.column)})"
        elif made.column is not None and OF_NUMBERS[made.op]:
            number = self.number(made.column)
            if self._weight and made.op in ("SUM", "AVG"):
                sql = f"sum({number} * {self._weight})"
                if made.op == "AVG":
                    total = " AND ".join([*conditions, f"{number} IS NOT NULL"])
                    return f"sum({number} * {self._weight}) FILTER ({total}) / sum({self._weight}) FILTER ({total})"
            else:
                sql = OF_NUMBERS[made.op].format(number)
        else:
            return ""
        if conditions:
            sql += f" FILTER ({' AND '.join(conditions)})"
        return f"coalesce({sql}, 0)" if made.op == "COUNT" else sql

    @property
    def weighed_count(self) -> str:
        """Return how many spans the rows stand for, as an aggregate."""
        return f"sum({self._weight})" if self._weight else "count(*)"


def nanoseconds(seconds: float) -> int:
    """Return a time since 1970 as the tables have it; the nearest one that they can have."""
    return round(min(max(seconds, 0), LAST_SECOND) * 1e9)
