"""Parses queries in Honeycomb's JSON format: https://docs.honeycomb.io/reference/query-specification/"""

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
MAX_GROUPS = 1000
MAX_TERMS = 100
MAX_POINTS = 1000
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
UNSUPPORTED = ("calculated_fields", "compare_time_offset_seconds")
NOUNS = {list: "a list", str: "a string", int: "an integer"}

Columns = Mapping[str, Collection[str]]
"""The columns that queries can use, with the types of their values."""


def types(columns: Columns) -> dict[str, str]:
    """Return Honeycomb's type name of each column. A column of mixed types is a string."""
    return {name: type_of(columns[name]) for name in sorted(columns)}


def type_of(seen: Collection[str]) -> str:
    return next(iter(seen)) if len(seen) == 1 else "float" if set(seen) == {"integer", "float"} else "string"


def parse(specification: object, columns: Columns, now: float | None = None, signal: str = "spans") -> Query:
    """Return the query that Honeycomb's JSON describes; raises Invalid.

    `now` is the end of a relative time range, in seconds since 1970.
    """
    fields = _object(_clean(specification), "the query", (*FIELDS, *UNSUPPORTED))
    for name in UNSUPPORTED:
        if fields.pop(name, None):
            raise Invalid(f"{name} is not supported")
    for name, value in fields.items():
        expected = FIELDS[name]
        if not isinstance(value, expected) or isinstance(value, bool):
            raise Invalid(f"{name} must be {NOUNS[expected]}, not {quoted(value)}")
        if isinstance(value, list) and len(value) > MAX_TERMS:
            raise Invalid(f"{name} has {len(value)} terms, more than {MAX_TERMS}")

    breakdowns = list(dict.fromkeys(known_column(name, columns) for name in fields.get("breakdowns", [])))
    calculations = list(dict.fromkeys(_calculation(item, columns) for item in fields.get("calculations", [])))
    calculations = calculations or [Calculation("COUNT")]
    _check_unique([*(item.name for item in calculations), *breakdowns])
    limit = fields.get("limit", DEFAULT_LIMIT)
    if not 1 <= limit <= MAX_GROUPS:
        raise Invalid(f"limit must be from 1 to {MAX_GROUPS}")
    start, end = _range(fields, time.time() if now is None else now)
    return Query(
        calculations,
        breakdowns,
        [_filter(item, columns) for item in fields.get("filters", [])],
        _combination(fields),
        [_order(item, calculations, breakdowns) for item in fields.get("orders", [])],
        [_having(item, calculations) for item in fields.get("havings", [])],
        limit,
        start,
        end,
        _granularity(fields.get("granularity"), end - start),
        signal,
    )


def quoted(value: object) -> str:
    """Return a value for an error message, as short JSON."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 100 else text[:60] + "…" + text[-39:]


def _clean(value: Any, depth: int = 0) -> Any:
    """Replace lone surrogates, which neither a page nor the database can hold."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list | dict) and depth > 10:
        raise Invalid("the query is nested too deeply")
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_clean(str(name)): _clean(item, depth + 1) for name, item in value.items()}
    return value


def _object(value: object, what: str, known: Collection[str]) -> dict[str, Any]:
    """Return the fields of an object that are not null. Raises Invalid for an unknown field."""
    if not isinstance(value, dict):
        raise Invalid(f"{what} must be an object, not {quoted(value)}")
    for name in value:
        if name not in known:
            raise Invalid(f"{what} has the unknown field {quoted(name)}; valid fields: {', '.join(known)}")
    return {name: item for name, item in value.items() if item is not None}


def _check_unique(names: Sequence[str]) -> None:
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise Invalid(f'two result columns would be named {quoted(duplicate)}: give the calculation a "name"')


def known_column(name: object, columns: Columns) -> str:
    if not isinstance(name, str):
        raise Invalid(f"a column must be a string, not {quoted(name)}")
    if name not in columns:
        raise UnknownColumn(f"unknown column {quoted(name)}: no stored record has it")
    return name


def _combination(fields: Mapping[str, Any]) -> bool:
    """Return whether matching any one filter is enough."""
    combination = fields.get("filter_combination", "AND")
    if combination not in ("AND", "OR"):
        raise Invalid(f"filter_combination must be AND or OR, not {quoted(combination)}")
    return bool(combination == "OR")


def _calculation(item: object, columns: Columns) -> Calculation:
    fields = _object(item, "a calculation", ("op", "column", "name", "filters", "filter_combination"))
    op, column, alias = fields.get("op"), fields.get("column"), fields.get("name", "")
    filters = fields.get("filters", [])
    if op not in CALCULATIONS:
        raise Invalid(f"unknown calculation {quoted(op)}; valid ones: {', '.join(CALCULATIONS)}")
    if not isinstance(alias, str):
        raise Invalid(f"the name of a calculation must be a string, not {quoted(alias)}")
    if not isinstance(filters, list) or len(filters) > MAX_TERMS:
        raise Invalid(f"the filters of a calculation must be a list of at most {MAX_TERMS}, not {quoted(filters)}")
    if column is not None:
        column = known_column(column, columns)
    elif op != "COUNT":
        raise Invalid(f"{op} needs a column")
    if column is not None and op in OF_NUMBERS and not {"integer", "float"} & set(columns[column]):
        raise Invalid(f"{op} needs numbers, and {quoted(column)} has none")
    return Calculation(op, column, alias, tuple(_filter(item, columns) for item in filters), _combination(fields))


def _filter(item: object, columns: Columns) -> Filter:
    fields = _object(item, "a filter", ("column", "op", "value"))
    column = known_column(fields.get("column"), columns)
    op, value = fields.get("op"), fields.get("value")
    if op not in FILTERS:
        raise Invalid(f"unknown operator {quoted(op)}; valid ones: {', '.join(FILTERS)}")
    type_ = type_of(columns[column])
    positive_op = OPPOSITES.get(op, op)
    if positive_op == "exists":
        if value is not None:
            raise Invalid(f"{op} takes no value")
    elif positive_op == "in":
        if not isinstance(value, list):
            raise Invalid(f"{op} needs a list of values, not {quoted(value)}")
        if len(value) > MAX_TERMS:
            raise Invalid(f"{op} has {len(value)} values, more than {MAX_TERMS}")
        value = tuple(_value(item, op, type_) for item in value)
    elif positive_op in OF_TEXT:
        if not isinstance(value, str):
            raise Invalid(f"{op} needs a string, not {quoted(value)}")
    else:
        value = _value(value, op, type_)
        if isinstance(value, bool) and positive_op != "=":
            raise Invalid(f"{op} needs a number or a string, not {quoted(value)}")
    return Filter(column, op, value)


def _value(value: object, op: str, type_: str) -> Any:
    """Convert a value to the column's type: a string from a form becomes a number."""
    if not isinstance(value, str | int | float):
        raise Invalid(f"{op} needs a value: a string, a number, true or false, not {quoted(value)}")
    if type_ in ("integer", "float") and isinstance(value, str):
        try:
            number = float(value)
            is_integer = value.strip().lstrip("+-").isdigit() and len(value) < 30
            return _bounded(int(value) if is_integer else number, op)
        except ValueError as error:
            if isinstance(error, Invalid):
                raise
            raise Invalid(f"the column contains numbers, and {quoted(value)} is not a number") from None
    if type_ == "boolean" and value in ("true", "false"):
        return value == "true"
    return value if isinstance(value, str | bool) else _bounded(value, op)


def _bounded(value: int | float, op: str) -> int | float:
    """Return a number if the database has a type for it, else raise Invalid."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Invalid(f"{op} needs a number of at most 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid(f"{op} needs a finite number")
    return value


def _order(item: object, calculations: Sequence[Calculation], breakdowns: Sequence[str]) -> Order:
    fields = _object(item, "an order", ("op", "column", "order"))
    op, column, order = fields.get("op"), fields.get("column"), fields.get("order", "ascending")
    if order not in ("ascending", "descending"):
        raise Invalid(f"order must be ascending or descending, not {quoted(order)}")
    term = _single(calculations, op, column) if op is not None else column if column in breakdowns else None
    if term is None:
        raise Invalid(f"orders: {quoted(item)} is neither a breakdown nor a calculation with a single value")
    return Order(term, order == "descending")


def _having(item: object, calculations: Sequence[Calculation]) -> Having:
    fields = _object(item, "a having", ("calculate_op", "column", "op", "value"))
    calculation = _single(calculations, fields.get("calculate_op"), fields.get("column"))
    if calculation is None:
        raise Invalid(f"havings: {quoted(item)} matches no calculation of the query with a single value")
    op, value = fields.get("op"), fields.get("value")
    if op not in COMPARISONS:
        raise Invalid(f"unknown operator {quoted(op)}; valid ones: {', '.join(COMPARISONS)}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Invalid(f"a having needs a number, not {quoted(value)}")
    return Having(calculation, op, _bounded(value, op))


def _single(calculations: Sequence[Calculation], op: object, column: object) -> Calculation | None:
    """Return the query's calculation with this op and column, if it has one value for each group."""
    return next((c for c in calculations if (c.op, c.column) == (op, column) and op != "HEATMAP"), None)


def _range(fields: Mapping[str, Any], now: float) -> tuple[float, float]:
    start, end, length = fields.get("start_time"), fields.get("end_time"), fields.get("time_range")
    if start is not None and end is not None:
        if length is not None:
            raise Invalid("set at most two of time_range, start_time and end_time")
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


def _granularity(requested: int | None, length: float) -> float:
    if requested is None:
        return next((step for step in STEPS if step * 120 >= length), math.ceil(length / 120))
    if not (requested >= 1 and length / MAX_POINTS <= requested <= length):
        raise Invalid(f"granularity must be from 1/{MAX_POINTS} of the time range to all of it, in whole seconds")
    return requested
