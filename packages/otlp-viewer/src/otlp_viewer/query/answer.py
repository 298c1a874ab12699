"""Runs queries."""

# ruff: noqa: S608 - statements contain only generated names; user input is bound.

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from otlp_viewer.model import SpanReference
from otlp_viewer.query.compile import LAST_SECOND, NUMBERS, Compiled, nanoseconds
from otlp_viewer.query.parse import known_column
from otlp_viewer.query.types import Answer, Box, Calculation, Cell, Group, Heatmap, Order, Point, Query
from otlp_viewer.values import from_text

if TYPE_CHECKING:
    from otlp_viewer.store.snapshot import Snapshot

HEATMAP_ROWS = 30


def answer(snapshot: "Snapshot", query: Query) -> Answer:
    """Return the groups of a query, their time series, and its heatmaps.

    Percentiles are exact, interpolated between the two nearest values. Raises TooExpensive.
    """
    sql = Compiled(snapshot, query)
    values = [(calculation, part) for calculation in query.calculations if (part := sql.aggregate(calculation))]
    heatmaps = [
        (calculation, sql.number(calculation.column), sql.own_condition(calculation))
        for calculation in query.calculations
        if calculation.op == "HEATMAP" and calculation.column is not None
    ]
    # Select the rows once for all statements below.
    step = f"time_ns // {round(query.granularity * 1e9)} AS step"
    rows = f"SELECT {step}, * FROM ({sql.source()}) WHERE {sql.where}"
    snapshot.rows(f"CREATE TEMP TABLE selected AS {rows}", sql.parameters)
    width = len(sql.groups)

    def key(row: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(
            from_text(value, snapshot.columns[name]) for name, value in zip(query.breakdowns, row, strict=True)
        )

    result_rows = _groups(snapshot, query, sql, values)
    groups = [Group(key(row[:width]), tuple(map(_finite, row[width : width + len(values)]))) for row in result_rows]
    only = ""
    if width and (len(result_rows) == query.limit or query.havings):
        columns = [sql.bind(list(column)) for column in zip(*(row[:width] for row in result_rows), strict=True)]
        types = ["VARCHAR[]" if all(isinstance(x, str | None) for x in sql.parameters[c[1:]]) else "" for c in columns]
        lists = ", ".join(
            f"unnest({column}{'::' + type_ if type_ else ''}) AS k{number}"
            for number, (column, type_) in enumerate(zip(columns, types, strict=True))
        )
        same = " AND ".join(f"{part} IS NOT DISTINCT FROM k{number}" for number, part in enumerate(sql.groups))
        only = f" SEMI JOIN (SELECT {lists}) ON {same}"
    keys = ", ".join(["step", *sql.groups])
    aggregates = "".join(f", {part}" for _, part in values)
    series = [
        Point(key(row[1 : 1 + width]), tuple(map(_finite, row[1 + width :])), row[0] * query.granularity)
        for row in (
            snapshot.rows(
                f"SELECT {keys}{aggregates} FROM selected{only} GROUP BY {keys} ORDER BY {keys}", sql.parameters
            )
            if result_rows
            else []
        )
    ]
    results: dict[Calculation, Heatmap] = {}
    for calculation, number, condition in heatmaps:
        where = f" WHERE {number} IS NOT NULL" + (f" AND {condition}" if condition else "")
        low, high = snapshot.rows(f"SELECT min({number}), max({number}) FROM selected{where}", sql.parameters)[0]
        edges = [] if low is None or not result_rows else heatmap_edges(low, high)
        steps = " ".join(f"WHEN {number} < {edge!r} THEN {row}" for row, edge in enumerate(edges[1:-1]))
        cells = [
            Cell(row[0] * query.granularity, key(row[1 : 1 + width]), row[-2], _finite(row[-1]))
            for row in (
                snapshot.rows(
                    f"SELECT {keys}, CASE {steps} ELSE {len(edges) - 2} END AS bin, {sql.weighted_count}"
                    f" FROM selected{only}{where} GROUP BY {keys}, bin ORDER BY {keys}, bin",
                    sql.parameters,
                )
                if edges
                else []
            )
        ]
        results[calculation] = Heatmap(edges, cells)
    return Answer(query, groups, series, results)


def _groups(
    snapshot: "Snapshot", query: Query, sql: Compiled, values: list[tuple[Calculation, str]]
) -> list[tuple[Any, ...]]:
    """Return the rows of the result: the values of breakdowns, then those of calculations."""
    alias_of = {calculation: f"a{number}" for number, (calculation, _) in enumerate(values)}
    names = [f"g{number}" for number in range(len(sql.groups))]
    havings = " AND ".join(f"{alias_of[h.calculation]} {h.op} {sql.bind(h.value)}" for h in query.havings)
    order_by = []
    for order in query.orders or [Order(calculation, True) for calculation, _ in values[:1]]:
        if isinstance(order.term, str):
            by = f"g{query.breakdowns.index(order.term)}"
            if snapshot.columns[order.term] <= NUMBERS:
                by = f"TRY_CAST({by} AS {'BIGINT' if snapshot.columns[order.term] == {'integer'} else 'DOUBLE'})"
        else:
            by = alias_of[order.term]
        order_by.append(f"{by} {'DESC' if order.descending else 'ASC'} NULLS LAST")
    order_by += names
    columns = [f"{expression} AS g{number}" for number, expression in enumerate(sql.groups)]
    columns += [f"{expression} AS {alias_of[calculation]}" for calculation, expression in values]
    return snapshot.rows(
        f"SELECT * FROM (SELECT {', '.join(columns) or '1 AS unused'} FROM selected"
        + (f" GROUP BY {', '.join(names)})" if names else ")")
        + (f" WHERE {havings}" if havings else "")
        + (f" ORDER BY {', '.join(order_by)}" if order_by else "")
        + f" LIMIT {query.limit}",
        sql.parameters,
    )


def heatmap_edges(low: float, high: float) -> list[float]:
    """Return the edges of the rows of a heatmap in ascending order.

    The scale is linear, or logarithmic if the largest value is more than fifty times the smallest.
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
    """Round up to 1, 2, 2.5, 5 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999999)


def slowest(snapshot: "Snapshot", query: Query, box: Box) -> SpanReference | None:
    """Return the span in the box with the largest value."""
    known_column(box.column, snapshot.columns)
    sql = Compiled(snapshot, query)
    names = ("trace.trace_id", "trace.span_id", "name", "service.name")
    trace_id, span_id, name, service = map(sql.text, names)
    value, inside = in_box(sql, box)
    rows = snapshot.rows(
        f"SELECT {trace_id}, {span_id}, row, {name}, {service} FROM ({sql.source()})"
        f" WHERE {sql.where} AND {inside} ORDER BY {value} DESC, row LIMIT 1",
        sql.parameters,
    )
    return SpanReference(*rows[0]) if rows else None


def in_box(sql: Compiled, box: Box) -> tuple[str, str]:
    """Return SQL for the value that the box selects by, and for the condition of being inside."""
    value = sql.number(box.column)
    low, high, start, end = map(sql.bind, (box.low, box.high, nanoseconds(box.start), nanoseconds(box.end)))
    return value, f"({value} >= {low} AND {value} < {high} AND time_ns >= {start} AND time_ns < {end})"


def extent(snapshot: "Snapshot", query: Query) -> tuple[float, float] | None:
    """Return the times of the first and last record that match the query's filters, in seconds since 1970."""
    sql = Compiled(snapshot, replace(query, start=0, end=LAST_SECOND))
    first, last = snapshot.rows(
        f"SELECT min(time_ns) / 1e9, max(time_ns) / 1e9 FROM ({sql.source()}) WHERE {sql.where}", sql.parameters
    )[0]
    return None if first is None else (first, last)


def _finite(value: Any) -> Any:
    """Replace infinite and NaN values, such as overflowing sums, with None, since JSON has neither."""
    if isinstance(value, float):
        return None if not math.isfinite(value) else value
    return value
