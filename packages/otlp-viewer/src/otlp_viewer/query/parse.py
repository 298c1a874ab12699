"""Reads queries in Honeycomb's JSON: https://docs.honeycomb.io/reference/query-specification/"""

import json
import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from otlp_viewer.query.compile import LAST_SECOND
from otlp_viewer.query.operators import (
    CALCULATIONS,
    COMPARISONS,
    FILTERS,
    OF_NUMBERS,
    OF_TEXT,
    OPPOSITES,
)
from otlp_viewer.query.types import Calculation, Filter, Having, Invalid, Order, Query, UnknownColumn

DEFAULT_RANGE = 7200  # seconds
DEFAULT_LIMIT = 100
MOST_GROUPS = 1000
MOST_TERMS = 100
MOST_POINTS = 1000
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)

FIELDS: dict[str, type] = {
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
# Honeycomb's own pages send these, mostly empty.
NOT_HERE = ("calculated_fields", "compare_time_offset_seconds")
NOUNS = {list: "a list", str: "a text", int: "a whole number"}

Columns = Mapping[str, Collection[str]]
"""The columns that can be asked about, with the types that were seen in them."""


def types(columns: Columns) -> dict[str, str]:
    """Return Honeycomb's name of each column's type; one that holds different things is a string."""
    return {name: type_of(columns[name]) for name in sorted(columns)}


def type_of(seen: Collection[str]) -> str:
    return next(iter(seen)) if len(seen) == 1 else "float" if set(seen) == {"integer", "float"} else "string"


def parse(specification: object, columns: Columns, now: float | None = None, signal: str = "spans") -> Query:
    """Return the query that Honeycomb's JSON describes; raises Invalid.

    `now` is the end of a relative time range, in seconds since 1970.
    """
    given = _object(_clean(specification), "the query", (*FIELDS, *NOT_HERE))
    for name in NOT_HERE:
        if given.pop(name, None):
            raise Invalid(f"{name} cannot be used here")
    for name, value in given.items():
        wanted = FIELDS[name]
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise Invalid(f"{name} must be {NOUNS[wanted]}, not {quoted(value)}")
        if isinstance(value, list) and len(value) > MOST_TERMS:
            raise Invalid(f"{name} has {len(value)} terms, more than {MOST_TERMS}")

    breakdowns = list(dict.fromkeys(known_column(name, columns) for name in given.get("breakdowns", [])))
    calculations = list(dict.fromkeys(_calculation(item, columns) for item in given.get("calculations", [])))
    calculations = calculations or [Calculation("COUNT")]
    _names_differ([*(one.name for one in calculations), *breakdowns])
    limit = given.get("limit", DEFAULT_LIMIT)
    if not 1 <= limit <= MOST_GROUPS:
        raise Invalid(f"limit must be from 1 to {MOST_GROUPS}")
    start, end = _range(given, time.time() if now is None else now)
    return Query(
        calculations,
        breakdowns,
        [_filter(item, columns) for item in given.get("filters", [])],
        _combination(given),
        [_order(item, calculations, breakdowns) for item in given.get("orders", [])],
        [_having(item, calculations) for item in given.get("havings", [])],
        limit,
        start,
        end,
        _granularity(given.get("granularity"), end - start),
        signal,
    )


def quoted(value: object) -> str:
    """Return a value as an error message has it: as JSON, and short."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 100 else text[:60] + "…" + text[-39:]


def _clean(value: Any, depth: int = 0) -> Any:
    """Return JSON without what neither a page nor the database can hold: half of a surrogate pair."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list | dict) and depth > 10:
        raise Invalid("the query is nested too deeply")
    if isinstance(value, list):
        return [_clean(one, depth + 1) for one in value]
    if isinstance(value, dict):
        return {_clean(str(name)): _clean(one, depth + 1) for name, one in value.items()}
    return value


def _object(value: object, what: str, known: Collection[str]) -> dict[str, Any]:
    """Return an object's fields but those that are null; raises Invalid where there is one that is not known."""
    if not isinstance(value, dict):
        raise Invalid(f"{what} must be an object, not {quoted(value)}")
    for name in value:
        if name not in known:
            raise Invalid(f"{what} has the unknown field {quoted(name)}; known are {', '.join(known)}")
    return {name: one for name, one in value.items() if one is not None}


def _names_differ(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Invalid(f'two parts of the answer would be called {quoted(twice)}: give the calculation a "name"')


def known_column(name: object, columns: Columns) -> str:
    if not isinstance(name, str):
        raise Invalid(f"a column is a text, not {quoted(name)}")
    if name not in columns:
        raise UnknownColumn(f"unknown column {quoted(name)}: nothing that is stored has it")
    return name


def _combination(given: Mapping[str, Any]) -> bool:
    """Return whether one of the filters is enough."""
    combination = given.get("filter_combination", "AND")
    if combination not in ("AND", "OR"):
        raise Invalid(f"filter_combination must be AND or OR, not {quoted(combination)}")
    return bool(combination == "OR")


def _calculation(item: object, columns: Columns) -> Calculation:
    given = _object(item, "a calculation", ("op", "column", "name", "filters", "filter_combination"))
    op, column, alias, filters = given.get("op"), given.get("column"), given.get("name", ""), given.get("filters", [])
    if op not in CALCULATIONS:
        raise Invalid(f"unknown calculation {quoted(op)}; known are {', '.join(CALCULATIONS)}")
    if not isinstance(alias, str):
        raise Invalid(f"the name of a calculation is a text, not {quoted(alias)}")
    if not isinstance(filters, list) or len(filters) > MOST_TERMS:
        raise Invalid(f"the filters of a calculation are a list of at most {MOST_TERMS}, not {quoted(filters)}")
    if column is not None:
        column = known_column(column, columns)
    elif op != "COUNT":
        raise Invalid(f"{op} needs a column")
    if column is not None and op in OF_NUMBERS and not {"integer", "float"} & set(columns[column]):
        raise Invalid(f"{op} needs numbers, and {quoted(column)} has none")
    return Calculation(op, column, alias, tuple(_filter(one, columns) for one in filters), _combination(given))


def _filter(item: object, columns: Columns) -> Filter:
    given = _object(item, "a filter", ("column", "op", "value"))
    column = known_column(given.get("column"), columns)
    op, value = given.get("op"), given.get("value")
    if op not in FILTERS:
        raise Invalid(f"unknown operator {quoted(op)}; known are {', '.join(FILTERS)}")
    type_ = type_of(columns[column])
    plain = OPPOSITES.get(op, op)
    if plain == "exists":
        if value is not None:
            raise Invalid(f"{op} takes no value")
    elif plain == "in":
        if not isinstance(value, list):
            raise Invalid(f"{op} needs a list of values, not {quoted(value)}")
        if len(value) > MOST_TERMS:
            raise Invalid(f"{op} has {len(value)} values, more than {MOST_TERMS}")
        value = tuple(_value(one, op, type_) for one in value)
    elif plain in OF_TEXT:
        if not isinstance(value, str):
            raise Invalid(f"{op} needs a text, not {quoted(value)}")
    else:
        value = _value(value, op, type_)
        if isinstance(value, bool) and plain != "=":
            raise Invalid(f"{op} needs a number or a text, not {quoted(value)}")
    return Filter(column, op, value)


def _value(value: object, op: str, type_: str) -> Any:
    """Return a value as what the column's type makes of it: text from a form becomes a number."""
    if not isinstance(value, str | int | float):
        raise Invalid(f"{op} needs a value: a text, a number, true or false, not {quoted(value)}")
    if type_ in ("integer", "float") and isinstance(value, str):
        try:
            number = float(value)
            whole = value.strip().lstrip("+-").isdigit() and len(value) < 30
            return _bounded(int(value) if whole else number, op)
        except ValueError as error:
            if isinstance(error, Invalid):
                raise
            raise Invalid(f"the column holds numbers, and {quoted(value)} is none") from None
    if type_ == "boolean" and value in ("true", "false"):
        return value == "true"
    return value if isinstance(value, str | bool) else _bounded(value, op)


def _bounded(value: int | float, op: str) -> int | float:
    """Return a number that the database has a type for."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Invalid(f"{op} needs a number of at most 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid(f"{op} needs a finite number")
    return value


def _order(item: object, calculations: Sequence[Calculation], breakdowns: Sequence[str]) -> Order:
    given = _object(item, "an order", ("op", "column", "order"))
    op, column, order = given.get("op"), given.get("column"), given.get("order", "ascending")
    if order not in ("ascending", "descending"):
        raise Invalid(f"order must be ascending or descending, not {quoted(order)}")
    term = _single(calculations, op, column) if op is not None else column if column in breakdowns else None
    if term is None:
        raise Invalid(f"orders: {quoted(item)} is neither a breakdown nor a calculation that has one value")
    return Order(term, order == "descending")


def _having(item: object, calculations: Sequence[Calculation]) -> Having:
    given = _object(item, "a having", ("calculate_op", "column", "op", "value"))
    calculation = _single(calculations, given.get("calculate_op"), given.get("column"))
    if calculation is None:
        raise Invalid(f"havings: {quoted(item)} names no calculation of the query that has one value")
    op, value = given.get("op"), given.get("value")
    if op not in COMPARISONS:
        raise Invalid(f"unknown operator {quoted(op)}; known are {', '.join(COMPARISONS)}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Invalid(f"a having needs a number, not {quoted(value)}")
    return Having(calculation, op, _bounded(value, op))


def _single(calculations: Sequence[Calculation], op: object, column: object) -> Calculation | None:
    """Return the query's own calculation of this op and column, if it has one value for each group."""
    return next((made for made in calculations if (made.op, made.column) == (op, column) and op != "HEATMAP"), None)


def _range(given: Mapping[str, Any], now: float) -> tuple[float, float]:
    start, end, length = given.get("start_time"), given.get("end_time"), given.get("time_range")
    if start is not None and end is not None:
        if length is not None:
            raise Invalid("give two of time_range, start_time and end_time, not all three")
    else:
        length = min(DEFAULT_RANGE if length is None else length, LAST_SECOND)
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


def _granularity(given: int | None, length: float) -> float:
    if given is None:
        return next((step for step in STEPS if step * 120 >= length), math.ceil(length / 120))
    if not (given >= 1 and length / MOST_POINTS <= given <= length):
        raise Invalid(f"granularity must be from a {MOST_POINTS}th of the time range to all of it, in whole seconds")
    return given
