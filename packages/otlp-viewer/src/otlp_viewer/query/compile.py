"""Compiles the parts of a query to SQL. User input is bound to parameters, never part of a statement."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from otlp_viewer.query.operators import OF_NUMBERS, OF_TEXT, OPPOSITES
from otlp_viewer.query.types import Calculation, Filter, Query
from otlp_viewer.values import as_text

if TYPE_CHECKING:
    from otlp_viewer.store.snapshot import Snapshot

NATIVE = ("duration_ms", "status_code", "severity_number")
"""Fields stored as numbers. All others are stored as text, the same for equal numbers."""
WEIGHT = "SampleRate"
NUMBERS = frozenset({"integer", "float"})
EXACT = 1 << 53
"""Doubles represent all integers below this exactly."""
LAST_SECOND = 1 << 33  # in the year 2242: times in nanoseconds have 63 bits


class Compiled:
    """SQL over the columns of `source`. Call `source` last: it contains the columns used until then."""

    def __init__(self, snapshot: "Snapshot", query: Query) -> None:
        self._snapshot = snapshot
        self._columns: dict[str, str] = {}
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
        """Return the FROM clause of the query. `more` names additional columns of the table."""
        return self._snapshot.source({alias: name for name, alias in self._columns.items()}, more)

    def bind(self, value: object) -> str:
        """Bind a value to a new parameter; return the placeholder."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"

    def text(self, column: str) -> str:
        """Return SQL for a column in its stored type."""
        return self._columns.setdefault(column, f"x{len(self._columns)}")

    def number(self, column: str) -> str:
        """Return SQL for a column as a number, NULL where it is not one."""
        if column in NATIVE:
            return self.text(column)
        if self._snapshot.columns[column] == {"integer"}:
            return f"CAST({self.text(column)} AS BIGINT)"
        as_double = f"TRY_CAST({self.text(column)} AS DOUBLE)"
        return f"CASE WHEN isfinite({as_double}) THEN {as_double} END"

    def all_or_any(self, filters: Sequence[Filter], any_filter: bool) -> str:
        return f"({(' OR ' if any_filter else ' AND ').join(map(self.condition, filters))})"

    def condition(self, filter_: Filter) -> str:
        """Return the condition of a filter. A missing field differs from every value."""
        if filter_.op in OPPOSITES:
            return f"NOT {self.condition(replace(filter_, op=OPPOSITES[filter_.op]))}"
        if filter_.op == "exists":
            return f"({self.text(filter_.column)} IS NOT NULL)"
        text = f"{self.text(filter_.column)}::VARCHAR"
        if filter_.op in OF_TEXT:
            return f"coalesce({OF_TEXT[filter_.op]}({text}, {self.bind(filter_.value)}), false)"
        values = filter_.value if filter_.op == "in" else [filter_.value]
        if filter_.op in ("in", "="):
            texts = [as_text(value)[1] for value in values if self._is_text(filter_.column, value)]
            numbers = [value for value in values if not self._is_text(filter_.column, value)]
            parts = [self._compared(filter_.column, "=", value) for value in numbers if abs(value) >= EXACT]
            numbers = [float(value) for value in numbers if abs(value) < EXACT]
            if texts:
                parts.append(f"coalesce(list_contains({self.bind(texts)}::VARCHAR[], {text}), false)")
            if numbers:
                number = f"({self.number(filter_.column)})::DOUBLE"
                parts.append(f"coalesce(list_contains({self.bind(numbers)}::DOUBLE[], {number}), false)")
            return f"({' OR '.join(parts) or 'false'})"
        if isinstance(filter_.value, int | float) and not isinstance(filter_.value, bool):
            return self._compared(filter_.column, filter_.op, filter_.value)
        return f"coalesce({text} {filter_.op} {self.bind(filter_.value)}, false)"

    def _compared(self, column: str, op: str, value: float) -> str:
        """Return a comparison with a number. It is exact for integers, even if the column has mixed types."""
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
            value = int(value)
        number = f"{self.number(column)} {op} {self.bind(value)}"
        types = self._snapshot.columns[column]
        if isinstance(value, int) and "integer" in types and len(types) > 1:
            integer = f"TRY_CAST(regexp_extract({self.text(column)}, '^-?[0-9]+$') AS HUGEINT)"
            return f"coalesce({integer} {op} {self.bind(value)}, {number}, false)"
        return f"coalesce({number}, false)"

    def _is_text(self, column: str, value: object) -> bool:
        """Return whether to compare texts to find equal values: text that only looks like the number is not equal."""
        if isinstance(value, str | bool):
            return True
        return column not in NATIVE and "string" not in self._snapshot.columns[column]

    def own_condition(self, calculation: Calculation) -> str:
        """Return the condition of the calculation's own filters, or "" if it has none."""
        return self.all_or_any(calculation.filters, calculation.any_filter) if calculation.filters else ""

    def aggregate(self, calculation: Calculation) -> str:
        """Return the calculation as an SQL aggregate, or "" for a HEATMAP."""
        conditions = [self.own_condition(calculation)] if calculation.filters else []
        if calculation.op == "COUNT":
            if calculation.column is not None:
                conditions.append(f"{self.text(calculation.column)} IS NOT NULL")
            sql = f"sum({self._weight})" if self._weight else "count(*)"
        elif calculation.op == "COUNT_DISTINCT" and calculation.column is not None:
            sql = f"count(DISTINCT {self.text(calculation.column)})"
        elif calculation.column is not None and OF_NUMBERS[calculation.op]:
            number = self.number(calculation.column)
            if self._weight and calculation.op in ("SUM", "AVG"):
                sql = f"sum({number} * {self._weight})"
                if calculation.op == "AVG":
                    total = " AND ".join([*conditions, f"{number} IS NOT NULL"])
                    return f"sum({number} * {self._weight}) FILTER ({total}) / sum({self._weight}) FILTER ({total})"
            else:
                sql = OF_NUMBERS[calculation.op].format(number)
        else:
            return ""
        if conditions:
            sql += f" FILTER ({' AND '.join(conditions)})"
        return f"coalesce({sql}, 0)" if calculation.op == "COUNT" else sql

    @property
    def weighted_count(self) -> str:
        """Return an SQL aggregate for the number of spans that the rows represent."""
        return f"sum({self._weight})" if self._weight else "count(*)"


def nanoseconds(seconds: float) -> int:
    """Convert a time since 1970 to nanoseconds, clamped to the range of the tables."""
    return round(min(max(seconds, 0), LAST_SECOND) * 1e9)
