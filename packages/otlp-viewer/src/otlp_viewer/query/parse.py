"""Reads queries in Honeycomb's JSON: https://docs.honeycomb.io/reference/query-specification/"""

import json
import math
import time
from collections.abc import Collection, Mapping
from typing import Any

from otlp_viewer.query.types import Calculation, Filter, Having, Invalid, Order, Query, UnknownColumn

DEFAULT_RANGE = 7200  # seconds
DEFAULT_LIMIT = 100
MOST_GROUPS = 1000
MOST_TERMS = 100
MOST_POINTS = 1000
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

    breakdowns = [known_column(name, columns) for name in given.get("breakdowns", [])]
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


def known_column(name: object, columns: Mapping[str, Collection[str]]) -> str:
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
    column = known_column(column, columns)
    if op in OF_NUMBERS and not {"integer", "float"} & set(columns[column]):
        raise Invalid(f"{op} needs numbers, and {_shown(column)} has none")
    return Calculation(op, column)


def _filter(item: object, columns: Mapping[str, Collection[str]]) -> Filter:
    given = _object(item, "a filter")
    column = known_column(given.get("column"), columns)
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
