"""Answers queries in Honeycomb's JSON: https://docs.honeycomb.io/reference/query-specification/"""

# ruff: noqa: S608 - statements are made of our own names; whatever was sent is bound.

import json
import math
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import duckdb

from viewer.events import Snapshot

DEFAULT_RANGE = 7200  # seconds
DEFAULT_LIMIT = 100
MOST_GROUPS = 1000
MOST_TERMS = 100
MOST_POINTS = 1000
HEATMAP_ROWS = 30
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)

PERCENTILES = {
    f"P{digits}": float(f"0.{digits}")
    for digits in ("001", "01", "05", "10", "25", "50", "75", "90", "95", "99", "999")
}
# Of what is a number; `{}` is that number.
OF_NUMBERS = {
    "SUM": "sum({})",
    "AVG": "avg({})",
    "MIN": "min({})",
    "MAX": "max({})",
    **{op: f"quantile_cont({{}}, {fraction})" for op, fraction in PERCENTILES.items()},
    "HEATMAP": "",
}
CALCULATIONS = ("COUNT", "COUNT_DISTINCT", *OF_NUMBERS)
COMPARISONS = ("=", "!=", ">", ">=", "<", "<=")
OF_TEXT = {"contains": "contains({}, ?)", "starts-with": "starts_with({}, ?)", "ends-with": "suffix({}, ?)"}
OPPOSITES = {
    "!=": "=",
    "does-not-contain": "contains",
    "does-not-start-with": "starts-with",
    "does-not-end-with": "ends-with",
    "does-not-exist": "exists",
    "not-in": "in",
}
FILTERS = (*COMPARISONS, *OF_TEXT, "exists", "in", *(op for op in OPPOSITES if op != "!="))
FIELDS = {
    "calculations": list,
    "breakdowns": list,
    "filters": list,
    "filter_combination": str,
    "orders": list,
    "havings": list,
    "limit": int,
    "time_range": int,
    "start_time": int,
    "end_time": int,
    "granularity": int,
}
# These parts of a query are filled in by Honeycomb's own pages and change nothing here.
IGNORED = ("calculated_fields", "compare_time_offset_seconds")


class Invalid(ValueError):
    """A query that cannot be answered, with what is wrong with it."""


class UnknownColumn(Invalid):
    """A query about a field that no event has, perhaps not yet."""


class Calculation(NamedTuple):
    op: str
    column: str | None

    @property
    def name(self) -> str:
        """What Honeycomb calls it in results."""
        return f"{self.op}({self.column})" if self.column is not None else self.op


class Filter(NamedTuple):
    column: str
    op: str
    value: Any


class Order(NamedTuple):
    term: Calculation | str
    """A calculation, or the breakdown of this name."""
    descending: bool


class Having(NamedTuple):
    calculation: Calculation
    op: str
    value: float


class Query(NamedTuple):
    calculations: list[Calculation]
    breakdowns: list[str]
    filters: list[Filter]
    any_filter: bool
    orders: list[Order]
    havings: list[Having]
    limit: int
    start: float
    end: float
    granularity: float
    """start, end: seconds since 1970, the end excluded. granularity: seconds."""


def types(columns: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Return Honeycomb's name of each column's type; one that holds different things is a string."""
    named = {}
    for name in sorted(columns):
        seen = set(columns[name])
        named[name] = "float" if seen == {"integer", "float"} else seen.pop() if len(seen) == 1 else "string"
    named.pop("time", None)  # has its own place in a query
    return named


def typed(value: str | float | None, type_: str) -> Any:
    """Return the text of a column of this type as what it was."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if type_ in ("integer", "float", "boolean") else value


# Reading a query


def parse(specification: object, columns: Mapping[str, Collection[str]], now: float | None = None) -> Query:
    """Return the query that Honeycomb's JSON describes; raises Invalid.

    `columns` are those that can be asked about, with the types that were seen in them.
    """
    given = _object(specification, "the query")
    for name, value in given.items():
        if name in IGNORED and not value:
            continue
        if name not in FIELDS:
            raise Invalid(f"unknown field {_shown(name)}; known are {', '.join(FIELDS)}")
        wanted = FIELDS[name]
        if value is not None and (not isinstance(value, wanted) or isinstance(value, bool)):
            raise Invalid(f"{name} must be {NOUNS[wanted]}, not {_shown(value)}")
        if isinstance(value, list) and len(value) > MOST_TERMS:
            raise Invalid(f"{name} has {len(value)} terms, more than {MOST_TERMS}")
    given = {name: value for name, value in given.items() if value is not None}

    breakdowns = [_column(name, columns) for name in given.get("breakdowns", [])]
    calculations = [_calculation(item, columns) for item in given.get("calculations", [])]
    calculations = list(dict.fromkeys(calculations)) or [Calculation("COUNT", None)]
    combination = given.get("filter_combination", "AND")
    if combination not in ("AND", "OR"):
        raise Invalid(f"filter_combination must be AND or OR, not {_shown(combination)}")
    limit = given.get("limit", DEFAULT_LIMIT)
    if not 1 <= limit <= MOST_GROUPS:
        raise Invalid(f"limit must be from 1 to {MOST_GROUPS}")
    start, end = _range(given, time.time() if now is None else now)
    length = end - start
    granularity = given.get("granularity")
    if granularity is None:
        granularity = next((step for step in STEPS if step * 120 >= length), math.ceil(length / 120))
    elif not (granularity >= 1 and length / MOST_POINTS <= granularity <= length):
        raise Invalid(f"granularity must be from a {MOST_POINTS}th of the time range to all of it, in whole seconds")
    return Query(
        calculations,
        list(dict.fromkeys(breakdowns)),
        [_filter(item, columns) for item in given.get("filters", [])],
        combination == "OR",
        [_order(item, calculations, breakdowns) for item in given.get("orders", [])],
        [_having(item, calculations) for item in given.get("havings", [])],
        limit,
        start,
        end,
        granularity,
    )


NOUNS = {list: "a list", str: "a text", int: "a whole number"}


def _shown(value: object) -> str:
    """Return a value as an error message has it: as JSON, and short."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 100 else text[:99] + "…"


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"{what} must be an object, not {_shown(value)}")
    return value


def _column(name: object, columns: Mapping[str, Collection[str]]) -> str:
    if not isinstance(name, str):
        raise Invalid(f"a column is a text, not {_shown(name)}")
    if name not in columns or name == "time":
        raise UnknownColumn(f"unknown column {_shown(name)}: no span that is kept has it")
    return name


def _calculation(item: object, columns: Mapping[str, Collection[str]]) -> Calculation:
    given = _object(item, "a calculation")
    op, column = given.get("op"), given.get("column")
    if op not in CALCULATIONS:
        raise Invalid(f"unknown calculation {_shown(op)}; known are {', '.join(CALCULATIONS)}")
    if op == "COUNT":
        if column is not None:
            raise Invalid("COUNT counts events and takes no column; COUNT_DISTINCT takes one")
        return Calculation(op, None)
    if column is None:
        raise Invalid(f"{op} needs a column")
    column = _column(column, columns)
    if op in OF_NUMBERS and not {"integer", "float"} & set(columns[column]):
        raise Invalid(f"{op} needs numbers, and {_shown(column)} has none")
    return Calculation(op, column)


def _filter(item: object, columns: Mapping[str, Collection[str]]) -> Filter:
    given = _object(item, "a filter")
    column = _column(given.get("column"), columns)
    op, value = given.get("op"), given.get("value")
    if op not in FILTERS:
        raise Invalid(f"unknown operator {_shown(op)}; known are {', '.join(FILTERS)}")
    type_ = types({column: columns[column]})[column]
    plain = OPPOSITES.get(op, op)
    if plain == "exists":
        if value is not None:
            raise Invalid(f"{op} takes no value")
    elif plain == "in":
        if not isinstance(value, list):
            raise Invalid(f"{op} needs a list of values, not {_shown(value)}")
        if len(value) > MOST_TERMS:
            raise Invalid(f"{op} has {len(value)} values, more than {MOST_TERMS}")
        value = [_value(one, op, type_) for one in value]
    elif plain in OF_TEXT:
        if not isinstance(value, str):
            raise Invalid(f"{op} needs a text, not {_shown(value)}")
    else:
        value = _value(value, op, type_)
        if isinstance(value, bool) and plain != "=":
            raise Invalid(f"{op} needs a number or a text, not {_shown(value)}")
    return Filter(column, op, value)


def _value(value: object, op: str, type_: str) -> Any:
    """Return a value as what the column's type makes of it: text from a form becomes a number."""
    if not isinstance(value, str | int | float):
        raise Invalid(f"{op} needs a value: a text, a number, true or false, not {_shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid(f"{op} needs a finite number")
    if type_ in ("integer", "float") and isinstance(value, str):
        try:
            number = float(value)
            return int(value) if value.strip().lstrip("+-").isdigit() else number
        except ValueError:
            raise Invalid(f"the column holds numbers, and {_shown(value)} is none") from None
    if type_ == "boolean" and value in ("true", "false"):
        return value == "true"
    return value


def _order(item: object, calculations: list[Calculation], breakdowns: list[str]) -> Order:
    given = _object(item, "an order")
    op, column, order = given.get("op"), given.get("column"), given.get("order", "ascending")
    if order not in ("ascending", "descending"):
        raise Invalid(f"order must be ascending or descending, not {_shown(order)}")
    term = _single(calculations, op, column) if op is not None else column if column in breakdowns else None
    if term is None:
        wanted = _shown(column) if op is None else f"{op}({column})" if column is not None else str(op)
        raise Invalid(f"orders: {wanted[:100]} is neither a breakdown nor a calculation that has one value")
    return Order(term, order == "descending")


def _having(item: object, calculations: list[Calculation]) -> Having:
    given = _object(item, "a having")
    calculation = _single(calculations, given.get("calculate_op"), given.get("column"))
    if calculation is None:
        raise Invalid(f"havings: {_shown(item)} names no calculation of the query that has one value")
    op, value = given.get("op"), given.get("value")
    if op not in COMPARISONS:
        raise Invalid(f"unknown operator {_shown(op)}; known are {', '.join(COMPARISONS)}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Invalid(f"a having needs a number, not {_shown(value)}")
    return Having(calculation, op, value)


def _single(calculations: list[Calculation], op: object, column: object) -> Calculation | None:
    """Return the query's own calculation of this op and column, if it has one value for each group."""
    return next((made for made in calculations if (made.op, made.column) == (op, column) and op != "HEATMAP"), None)


def _range(given: Mapping[str, Any], now: float) -> tuple[float, float]:
    start, end, length = given.get("start_time"), given.get("end_time"), given.get("time_range")
    if start is not None and end is not None:
        if length is not None:
            raise Invalid("give two of time_range, start_time and end_time, not all three")
    else:
        length = DEFAULT_RANGE if length is None else length
        if length < 1:
            raise Invalid("time_range must be a second or more")
        if start is not None:
            end = start + length
        else:
            end = now if end is None else end
            start = end - length
    if not 0 <= end <= LAST_SECOND:
        raise Invalid("end_time must be in seconds since 1970")
    start = max(start, 0)
    if start >= end:
        raise Invalid("start_time must be before end_time")
    return start, end


LAST_SECOND = 1 << 34  # in the year 2514, as far as OTLP's nanoseconds reach

# Answering it


class Compiled:
    """The parts of SQL that a query is made of, each over the columns of `source`."""

    def __init__(self, snapshot: Snapshot, query: Query) -> None:
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
            return f"NOT {self.condition(one._replace(op=OPPOSITES[one.op]), parameters)}"
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


def answer(snapshot: Snapshot, query: Query) -> dict[str, Any]:
    """Return Honeycomb's form of a query's results, and under `query` the time it is about.

    `results` has one entry for each group; `series` one for each group and step of time in which it has events.
    A missing field is null, and what no number was found for. Percentiles are exact, interpolated between the two
    nearest. A HEATMAP is in the series alone, as Honeycomb has it, there as a list of [from, to, count]; `heatmaps`
    has the borders between all of its rows.
    Raises Invalid when it needs more memory than there is.
    """
    try:
        return _answer(snapshot, query)
    except duckdb.OutOfMemoryException:
        raise Invalid("this query needs too much memory: narrow its time range or its breakdowns") from None


def _answer(snapshot: Snapshot, query: Query) -> dict[str, Any]:
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

    def shaped(row: tuple[Any, ...]) -> dict[str, Any]:
        """A row of group values and then aggregates."""
        data = {name: typed(value, sql.types[name]) for name, value in zip(query.breakdowns, row, strict=False)}
        for (made, _), value in zip(values, row[len(query.breakdowns) :], strict=True):
            data[made.name] = _finite(value)
        return data

    results = [{"data": shaped(row[1:])} for row in found]

    # The same once more for each step of time, of the groups that were found.
    step = f"(epoch_us(time) // {round(query.granularity * 1e6)})"
    kept = [row[1 : 1 + len(group_names)] for row in found]
    same = " AND ".join(f"rows.{name} IS NOT DISTINCT FROM kept.k{number}" for number, name in enumerate(group_names))
    lists = ", ".join(f"unnest(?) AS k{number}" for number in range(len(group_names)))
    only = f" SEMI JOIN (SELECT {lists}) AS kept ON {same}" if group_names else ""
    kept_parameters = [list(column) for column in zip(*kept, strict=True)] if group_names else []
    series: dict[tuple[Any, ...], dict[str, Any]] = {}
    heatmaps: dict[str, list[float]] = {}
    keys = ", ".join(["step", *group_names])
    if found:
        inner = f"SELECT {step} AS step{groups}, * FROM {sql.source()} WHERE {sql.where}"
        for row in snapshot.rows(
            f"SELECT {keys}{aggregates} FROM ({inner}) AS rows{only} GROUP BY {keys} ORDER BY {keys}",
            where_parameters + kept_parameters,
        ):
            series[row[: 1 + len(group_names)]] = shaped(row[1:])
        for made in query.calculations:
            if made.op == "HEATMAP" and made.column is not None:
                parts = (step, groups, keys, only, kept_parameters)
                heatmaps[made.name] = _add_heatmap(snapshot, query, sql, made.column, parts, series)
    return {
        "query": {"start_time": query.start, "end_time": query.end, "granularity": query.granularity},
        "heatmaps": heatmaps,
        "complete": True,
        "data": {
            "results": results,
            "series": [
                {"time": _iso(key[0] * query.granularity), "data": data}
                for key, data in sorted(series.items(), key=lambda item: item[0][0])
            ],
        },
    }


def _add_heatmap(
    snapshot: Snapshot,
    query: Query,
    sql: Compiled,
    column: str,
    parts: tuple[str, str, str, str, list[Any]],
    series: Mapping[tuple[Any, ...], dict[str, Any]],
) -> list[float]:
    """Put the numbers of events in each range of values into the series; return the borders of the ranges."""
    step, groups, keys, only, kept = parts
    value = sql.number(column)
    low, high = snapshot.rows(
        f"SELECT min({value}), max({value}) FROM {sql.source()} WHERE {sql.where}",
        sql.parameters,
    )[0]
    for data in series.values():
        data[f"HEATMAP({column})"] = []
    if low is None:
        return []
    edges = heatmap_edges(low, high)
    rows_of_values = " ".join(f"WHEN value < {edge!r} THEN {row}" for row, edge in enumerate(edges[1:-1]))
    inner = f"SELECT {step} AS step{groups}, {value} AS value FROM {sql.source()} WHERE {sql.where}"
    for *key, row, count in snapshot.rows(
        f"SELECT {keys}, CASE {rows_of_values} ELSE {len(edges) - 2} END AS bin, count(*) FROM ({inner}) AS rows{only}"
        f" WHERE value IS NOT NULL GROUP BY {keys}, bin ORDER BY {keys}, bin",
        sql.parameters + kept,
    ):
        series[tuple(key)][f"HEATMAP({column})"].append([edges[row], edges[row + 1], count])
    return edges


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


# What a box on the heatmap sets apart


class Box(NamedTuple):
    """Part of a heatmap: from `start` to `end` in seconds since 1970, and from `low` to `high` of the column's values;
    the ends excluded.
    """

    column: str
    start: float
    end: float
    low: float
    high: float


def compare(snapshot: Snapshot, query: Query, box: Box) -> dict[str, Any]:
    """Return which values are more, or less, frequent in the box than in the rest of what the query is about.

    `inside` and `outside` are numbers of events; `fields` has those that differ most first, each with its `name`
    and its `values`, again those that differ most first: `value` (null where the field is missing; `from` and `to`
    for a range of numbers), and its shares `inside` and `outside`. Raises Invalid as `answer` does.
    """
    _column(box.column, snapshot.columns)
    sql = Compiled(snapshot, query)
    names = [name for name in sql.types if name not in (*IDS, box.column)]
    numeric = {name: sql.number(name) for name in names if sql.types[name] in ("integer", "float")}
    texts = {name: sql.text(name) for name in names}
    value = sql.number(box.column)
    inside = f"({value} >= ? AND {value} < ? AND epoch_us(time) >= ? AND epoch_us(time) < ?)"
    parts = "".join(f", {numeric.get(name, texts[name])} AS v{number}" for number, name in enumerate(names))
    rows = f"(SELECT coalesce({inside}, false) AS inside{parts} FROM {sql.source()} WHERE {sql.where})"
    parameters = [box.low, box.high, box.start * 1e6, box.end * 1e6, *sql.parameters]
    try:
        snapshot.rows(f"CREATE OR REPLACE TEMP TABLE compared AS SELECT * FROM {rows}", parameters)
        counts = "".join(f", count(v{n}), count(DISTINCT v{n})" for n in range(len(names)))
        total, within, *each = snapshot.rows(f"SELECT count(*), count(*) FILTER (inside){counts} FROM compared")[0]
        fields = []
        for number, name in enumerate(names):
            filled, distinct = each[2 * number : 2 * number + 2]
            if not within or within == total or distinct == 0 or (distinct == filled > MOST_RANGES):
                continue  # nothing to compare, or an id: it says which event, not which kind of event
            ranges = distinct > MOST_RANGES and name in numeric
            fields.append(_compared(snapshot, number, name, ranges, within, total - within))
    except duckdb.OutOfMemoryException:
        raise Invalid("this comparison needs too much memory: narrow the time range") from None
    finally:
        snapshot.rows("DROP TABLE IF EXISTS compared")
    fields = [field for field in fields if field["values"] and abs(_difference(field["values"][0])) >= 0.05]
    fields.sort(key=lambda field: -abs(_difference(field["values"][0])))
    for field in fields:
        for one in field["values"]:
            whole = isinstance(one["value"], float) and sql.types[field["name"]] == "integer"
            one["value"] = int(one["value"]) if whole else typed(one["value"], sql.types[field["name"]])
    return {"inside": within, "outside": total - within, "fields": fields[:MOST_FIELDS]}


IDS = ("trace.trace_id", "trace.span_id", "trace.parent_id")
MOST_RANGES = 12
MOST_FIELDS = 12


def _difference(value: Mapping[str, Any]) -> float:
    return float(value["inside"]) - float(value["outside"])


def _compared(snapshot: Snapshot, number: int, name: str, ranges: bool, inside: int, outside: int) -> dict[str, Any]:
    value, lowest, highest = f"v{number}", "NULL", "NULL"
    if ranges:
        borders = snapshot.rows(f"SELECT quantile_cont(v{number}, [0.2, 0.4, 0.6, 0.8]) FROM compared")[0][0]
        borders = sorted(set(borders))
        steps = " ".join(f"WHEN v{number} < {border!r} THEN {row}" for row, border in enumerate(borders))
        value = f"CASE WHEN v{number} IS NULL THEN NULL {steps} ELSE {len(borders)} END"
        lowest, highest = f"min(v{number})", f"max(v{number})"
    rows = snapshot.rows(
        f"SELECT {value} AS value, {lowest}, {highest}, count(*) FILTER (inside) / ? AS a,"
        f" count(*) FILTER (NOT inside) / ? AS b"
        " FROM compared GROUP BY value ORDER BY abs(a - b) DESC, value NULLS LAST LIMIT 5",
        [inside, outside],
    )
    return {
        "name": name,
        "values": [
            {"value": None if ranges else found, "inside": a, "outside": b}
            | ({"from": low, "to": high} if ranges and low is not None else {})
            for found, low, high, a, b in rows
        ],
    }


def slowest(snapshot: Snapshot, query: Query, box: Box) -> tuple[str, str] | None:
    """Return the trace and the span id of the event in the box with the largest value."""
    _column(box.column, snapshot.columns)
    sql = Compiled(snapshot, query)
    ids = f"{sql.text('trace.trace_id')}, {sql.text('trace.span_id')}"
    value = sql.number(box.column)
    found = snapshot.rows(
        f"SELECT {ids} FROM {sql.source()} WHERE {sql.where} AND {value} >= ? AND {value} < ?"
        f" AND epoch_us(time) >= ? AND epoch_us(time) < ? ORDER BY {value} DESC, seq LIMIT 1",
        [*sql.parameters, box.low, box.high, box.start * 1e6, box.end * 1e6],
    )
    return found[0] if found else None


def extent(snapshot: Snapshot, query: Query) -> tuple[float, float] | None:
    """Return when the first and the last event started that the query's filters want, in seconds since 1970."""
    sql = Compiled(snapshot, query._replace(start=0, end=LAST_SECOND))
    first, last = snapshot.rows(
        f"SELECT min(epoch_us(time)) / 1e6, max(epoch_us(time)) / 1e6 FROM {sql.source()} WHERE {sql.where}",
        sql.parameters,
    )[0]
    return None if first is None else (first, last)


def _finite(value: Any) -> Any:
    """Sums of large numbers can be infinite, which JSON cannot say."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
