"""Queries and their answers: what is asked, in Honeycomb's terms, and what comes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from otlp_viewer.values import Value


class Invalid(ValueError):
    """A query that cannot be answered, with what is wrong with it."""


class UnknownColumn(Invalid):
    """A query about a field that no event has, perhaps not yet."""


class TooExpensive(Invalid):
    """A query that takes more time or memory than one may take."""


@dataclass(frozen=True, slots=True)
class Filter:
    column: str
    op: str
    value: Value = None
    """For `in` and `not-in`, a tuple."""


@dataclass(frozen=True, slots=True)
class Calculation:
    op: str
    column: str | None = None
    alias: str = ""
    """A name of its own in the results."""
    filters: tuple[Filter, ...] = ()
    """What it counts, of what the query is about."""
    any_filter: bool = False

    @property
    def name(self) -> str:
        """What Honeycomb calls it in results."""
        return self.alias or (f"{self.op}({self.column})" if self.column is not None else self.op)


@dataclass(frozen=True, slots=True)
class Order:
    term: Calculation | str
    """A calculation, or the breakdown of this name."""
    descending: bool


@dataclass(frozen=True, slots=True)
class Having:
    calculation: Calculation
    op: str
    value: float


@dataclass(frozen=True, slots=True)
class Query:
    """start, end: seconds since 1970, the end excluded. granularity: seconds."""

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
    """What it is about: spans or logs."""

    @property
    def values(self) -> Sequence[Calculation]:
        """The calculations that have one value for each group: all but heatmaps."""
        return [one for one in self.calculations if one.op != "HEATMAP"]


@dataclass(frozen=True, slots=True)
class Group:
    """One row of results."""

    key: tuple[Value, ...]
    """A value for each of the query's breakdowns; None where the field is missing."""
    values: tuple[Value, ...]
    """One for each of `query.values`; None where no number was found."""


@dataclass(frozen=True, slots=True)
class Point(Group):
    """The same for one step of time."""

    time: float
    """When the step begins, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Cell:
    time: float
    """When its step of time begins, in seconds since 1970."""
    key: tuple[Value, ...]
    row: int
    """From edges[row] to edges[row + 1]."""
    count: int


@dataclass(frozen=True, slots=True)
class Heatmap:
    edges: Sequence[float]
    """Borders of the rows, lowest first; none when there is nothing to show."""
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Answer:
    query: Query
    groups: Sequence[Group]
    series: Sequence[Point]
    """By time, then by key; a group has a point for each step in which it has events."""
    heatmaps: Mapping[Calculation, Heatmap]


@dataclass(frozen=True, slots=True)
class Box:
    """Part of a heatmap: from `start` to `end` in seconds since 1970, and from `low` to `high` of the column's values;
    the ends excluded.
    """

    column: str
    start: float
    end: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Share:
    """How frequent a value is in a box and outside of it, from 0 to 1."""

    value: Value
    """None where the field is missing."""
    inside: float
    outside: float
    low: float | None = None
    high: float | None = None
    """From what to what, for a range of numbers, whose `value` is None."""


@dataclass(frozen=True, slots=True)
class FieldComparison:
    name: str
    values: Sequence[Share]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What sets the events in a box apart; fields and values that differ most come first."""

    inside: int
    outside: int
    """Numbers of events."""
    fields: Sequence[FieldComparison]
