"""Queries in Honeycomb's terms, and their results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from otlp_viewer.values import Value


class Invalid(ValueError):
    """An invalid query; the message says why."""


class UnknownColumn(Invalid):
    """A query with a field that no record has yet."""


class TooExpensive(Invalid):
    """A query that exceeds the limits on time or memory."""


@dataclass(frozen=True, slots=True)
class Filter:
    column: str
    op: str
    value: Value = None
    """A tuple for `in` and `not-in`."""


@dataclass(frozen=True, slots=True)
class Calculation:
    op: str
    column: str | None = None
    alias: str = ""
    """Its name in the results, if not the default."""
    filters: tuple[Filter, ...] = ()
    """Further filters, for this calculation only."""
    any_filter: bool = False

    @property
    def name(self) -> str:
        """Its column name in the results, as in Honeycomb."""
        return self.alias or (f"{self.op}({self.column})" if self.column is not None else self.op)


@dataclass(frozen=True, slots=True)
class Order:
    term: Calculation | str
    """A calculation, or the name of a breakdown."""
    descending: bool


@dataclass(frozen=True, slots=True)
class Having:
    calculation: Calculation
    op: str
    value: float


@dataclass(frozen=True, slots=True)
class Query:
    """start, end: seconds since 1970; end is exclusive. granularity: seconds."""

    calculations: Sequence[Calculation]
    breakdowns: Sequence[str]
    filters: Sequence[Filter]
    any_filter: bool
    orders: Sequence[Order]
    havings: Sequence[Having]
    limit: int
    start: float
    end: float
    granularity: float
    signal: str = "spans"
    """spans or logs."""

    @property
    def values(self) -> Sequence[Calculation]:
        """The calculations with one value for each group: all except heatmaps."""
        return [calculation for calculation in self.calculations if calculation.op != "HEATMAP"]


@dataclass(frozen=True, slots=True)
class Group:
    """One row of results."""

    key: tuple[Value, ...]
    """A value for each breakdown of the query; None for a missing field."""
    values: tuple[Value, ...]
    """A value for each of `query.values`; None without numbers."""


@dataclass(frozen=True, slots=True)
class Point(Group):
    """A group in one step of a time series."""

    time: float
    """Start of the step, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Cell:
    time: float
    """Start of its time step, in seconds since 1970."""
    key: tuple[Value, ...]
    row: int
    """From edges[row] to edges[row + 1]."""
    count: int


@dataclass(frozen=True, slots=True)
class Heatmap:
    edges: Sequence[float]
    """Edges of the rows in ascending order; empty without values."""
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Answer:
    query: Query
    groups: Sequence[Group]
    series: Sequence[Point]
    """Ordered by time, then key. A group has a point for each step with records."""
    heatmaps: Mapping[Calculation, Heatmap]


@dataclass(frozen=True, slots=True)
class Box:
    """Part of a heatmap: from `start` to `end` in seconds since 1970, and from `low` to `high` in the column's values.

    The upper limits are exclusive.
    """

    column: str
    start: float
    end: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Share:
    """The frequency of a value inside and outside a box, from 0 to 1."""

    value: Value
    """None for a missing field."""
    inside: float
    outside: float
    low: float | None = None
    high: float | None = None
    """Limits of a range of numbers; its `value` is None."""


@dataclass(frozen=True, slots=True)
class FieldComparison:
    name: str
    values: Sequence[Share]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the records in a box differ from the others. The largest differences come first."""

    inside: int
    outside: int
    """Numbers of records."""
    fields: Sequence[FieldComparison]
