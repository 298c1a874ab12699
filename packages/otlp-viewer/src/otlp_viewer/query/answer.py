"""Answers queries."""

# ruff: noqa: S608 - statements are made of our own names; whatever was sent is bound.

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import duckdb

from otlp_viewer.model import SpanReference
from otlp_viewer.query.compile import Compiled
from otlp_viewer.query.parse import LAST_SECOND, known_column, typed
from otlp_viewer.query.types import Answer, Box, Cell, Group, Heatmap, Invalid, Order, Point, Query

if TYPE_CHECKING:
    from otlp_viewer.store.events import Snapshot

HEATMAP_ROWS = 30


def answer(snapshot: "Snapshot", query: Query) -> Answer:
    """Return the groups of a query, the same for each step of time, and its heatmaps.

    Percentiles are exact, interpolated between the two nearest. Raises Invalid when it needs more memory than there is.
    """
    try:
        return _answer(snapshot, query)
    except duckdb.OutOfMemoryException:
        raise Invalid("this query needs too much memory: narrow its time range or its breakdowns") from None


def _answer(snapshot: "Snapshot", query: Query) -> Answer:
    sql = Compiled(snapshot, query)
    values = [(made, part) for made, part in zip(query.calculations, sql.aggregates, strict=True) if part]
    group_names = [f"g{number}" for number in range(len(sql.groups))]
    groups = "".join(f", {part} AS {name}" for part, name in zip(sql.groups, group_names, strict=True))
    aggregates = "".join(f", {part} AS a{number}" for number, (_, part) in enumerate(values))
    by_group = f" GROUP BY {', '.join(group_names)}" if group_names else ""
    named = {made: f"a{number}" for number, (made, _) in enumerate(values)}
    where_parameters = list(sql.parameters)

    havings = " AND ".join(f"{named[one.calculation]} {one.op} ?" for one in query.havings)
    parameters = where_parameters + [one.value for one in query.havings]
    orders = query.orders or [Order(made, True) for made, _ in values[:1]]
    order_by = []
    for order in orders:
        if isinstance(order.term, str):
            by = f"g{query.breakdowns.index(order.term)}"
            if sql.types[order.term] in ("integer", "float"):
                by = f"TRY_CAST({by} AS DOUBLE)"
        else:
            by = named[order.term]
        order_by.append(f"{by} {'DESC' if order.descending else 'ASC'} NULLS LAST")
    order_by += group_names
    top = (
        f"SELECT * FROM (SELECT count(*) AS events{groups}{aggregates} FROM {sql.source()} WHERE {sql.where}{by_group})"
        + (f" WHERE {havings}" if havings else "")
        + (f" ORDER BY {', '.join(order_by)}" if order_by else "")
        + f" LIMIT {query.limit}"
    )
    found = snapshot.rows(top, parameters)
    width = len(group_names)

    def key(row: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(typed(value, sql.types[name]) for name, value in zip(query.breakdowns, row, strict=True))

    def numbers(row: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_finite(value) for value in row)

    result = [Group(key(row[1 : 1 + width]), numbers(row[1 + width :])) for row in found]
    if not found:
        return Answer(query, [], [], {made: Heatmap([], []) for made in query.calculations if made.op == "HEATMAP"})

    # The same once more for each step of time, of the groups that were found.
    step = f"(epoch_us(time) // {round(query.granularity * 1e6)})"
    kept = [row[1 : 1 + width] for row in found]
    same = " AND ".join(f"rows.{name} IS NOT DISTINCT FROM kept.k{number}" for number, name in enumerate(group_names))
    lists = ", ".join(f"unnest(?) AS k{number}" for number in range(width))
    only = f" SEMI JOIN (SELECT {lists}) AS kept ON {same}" if group_names else ""
    kept_parameters = [list(column) for column in zip(*kept, strict=True)] if group_names else []
    keys = ", ".join(["step", *group_names])
    inner = f"SELECT {step} AS step{groups}, * FROM {sql.source()} WHERE {sql.where}"
    series = [
        Point(key(row[1 : 1 + width]), numbers(row[1 + width :]), row[0] * query.granularity)
        for row in snapshot.rows(
            f"SELECT {keys}{aggregates} FROM ({inner}) AS rows{only} GROUP BY {keys} ORDER BY {keys}",
            where_parameters + kept_parameters,
        )
    ]
    heatmaps = {}
    for made in query.calculations:
        if made.op == "HEATMAP" and made.column is not None:
            value = sql.number(made.column)
            low, high = snapshot.rows(
                f"SELECT min({value}), max({value}) FROM {sql.source()} WHERE {sql.where}", sql.parameters
            )[0]
            edges = [] if low is None else heatmap_edges(low, high)
            cells = []
            if edges:
                steps = " ".join(f"WHEN value < {edge!r} THEN {row}" for row, edge in enumerate(edges[1:-1]))
                inner = f"SELECT {step} AS step{groups}, {value} AS value FROM {sql.source()} WHERE {sql.where}"
                cells = [
                    Cell(row[0] * query.granularity, key(row[1 : 1 + width]), row[-2], row[-1])
                    for row in snapshot.rows(
                        f"SELECT {keys}, CASE {steps} ELSE {len(edges) - 2} END AS bin, count(*)"
                        f" FROM ({inner}) AS rows{only} WHERE value IS NOT NULL GROUP BY {keys}, bin"
                        f" ORDER BY {keys}, bin",
                        sql.parameters + kept_parameters,
                    )
                ]
            heatmaps[made] = Heatmap(edges, cells)
    return Answer(query, result, series, heatmaps)


def heatmap_edges(low: float, high: float) -> list[float]:
    """Return the borders between the rows of a heatmap, lowest first.

    Rows are equally high, or equally high in the logarithm where values differ by more than fifty times.
    """
    low, high = max(low, -1e300), min(high, 1e300)
    if low > 0 and high / low > 50:
        first, last = math.log10(low), math.log10(high)
        inner = [10 ** (first + (last - first) * row / HEATMAP_ROWS) for row in range(1, HEATMAP_ROWS)]
        return [float(f"{edge:.3g}") for edge in (low * 0.99, *inner, high * 1.01)]
    first = 0.0 if low >= 0 else low
    step = nice(((high if high > first else first + 1) - first) / HEATMAP_ROWS)
    rows = range(math.floor(first / step), max(math.floor(high / step), math.floor(first / step) + 1) + 2)
    return [float(f"{row * step:.12g}") for row in rows]


def nice(step: float) -> float:
    """Return the next larger of 1, 2, 2.5, 5 and 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999999)


def slowest(snapshot: "Snapshot", query: Query, box: Box) -> SpanReference | None:
    """Return the event in the box with the largest value."""
    known_column(box.column, snapshot.columns)
    sql = Compiled(snapshot, query)
    ids = f"{sql.text('trace.trace_id')}, {sql.text('trace.span_id')}, seq"
    value = sql.number(box.column)
    found = snapshot.rows(
        f"SELECT {ids} FROM {sql.source()} WHERE {sql.where} AND {value} >= ? AND {value} < ?"
        f" AND epoch_us(time) >= ? AND epoch_us(time) < ? ORDER BY {value} DESC, seq LIMIT 1",
        [*sql.parameters, box.low, box.high, box.start * 1e6, box.end * 1e6],
    )
    return SpanReference(*found[0]) if found else None


def extent(snapshot: "Snapshot", query: Query) -> tuple[float, float] | None:
    """Return when the first and the last event started that the query's filters want, in seconds since 1970."""
    sql = Compiled(snapshot, replace(query, start=0, end=LAST_SECOND))
    first, last = snapshot.rows(
        f"SELECT min(epoch_us(time)) / 1e6, max(epoch_us(time)) / 1e6 FROM {sql.source()} WHERE {sql.where}",
        sql.parameters,
    )[0]
    return None if first is None else (first, last)


def _finite(value: Any) -> Any:
    """Sums of large numbers can be infinite, which JSON cannot say."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
