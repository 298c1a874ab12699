"""The query builder's form: converts a query to form fields and back.

The form includes the original query. Parts that did not change, or that the form cannot show, are taken from it.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Json = dict[str, Any]
Row = tuple[str, ...]

LISTS = ("in", "not-in")
WITHOUT_VALUE = ("exists", "does-not-exist")
TEXTUAL = ("contains", "does-not-contain", "starts-with", "does-not-start-with", "ends-with", "does-not-end-with")
TIMES = ("time_range", "start_time", "end_time")
IN_FORM = ("calculations", "filters", "filter_combination", "breakdowns", "orders", "havings", "limit", *TIMES)
UNCHANGED = "unchanged"


class Fields(Protocol):
    """Submitted form fields, such as werkzeug's MultiDict."""

    def getlist(self, key: str) -> list[str]: ...


@dataclass(frozen=True)
class Form:
    """The builder's fields for a query. A row contains the texts of its fields from left to right."""

    calculations: Sequence[Row]
    """Operation, column."""
    filters: Sequence[Row]
    """Column, operator, value."""
    any_filter: bool
    breakdowns: Sequence[Row]
    orders: Sequence[Row]
    """Term, direction."""
    havings: Sequence[Row]
    """Term, operator, value."""
    limit: str
    time: str
    """Seconds of a relative range, UNCHANGED for a range that the form does not offer, "" for none."""
    carried: Mapping[str, Any]
    """Parts of the query without form fields."""
    details: Sequence[str]
    """Other properties of items, as text."""


def form_of(query: Mapping[str, Any], ranges: Sequence[int]) -> Form:
    """Return the form for any query, even an invalid one. `ranges` are the relative ranges to offer, in seconds."""
    times = {name: query.get(name) for name in TIMES}
    time = ""
    if any(value is not None for value in times.values()):
        only_range = times["start_time"] is None and times["end_time"] is None
        offered = only_range and type(times["time_range"]) is int and times["time_range"] in ranges
        time = str(times["time_range"]) if offered else UNCHANGED
    return Form(
        [_calculation(item) for item in _items(query, "calculations")],
        [_filter(item) for item in _items(query, "filters")],
        query.get("filter_combination") == "OR",
        [(_column(item),) for item in _items(query, "breakdowns")],
        [_order(item) for item in _items(query, "orders")],
        [_having(item) for item in _items(query, "havings")],
        _text(query.get("limit")),
        time,
        {name: value for name, value in query.items() if name not in IN_FORM},
        [*_details(query, "calculations", ("op", "column")), *_details(query, "filters", ("column", "op", "value"))],
    )


def to_query(fields: Fields, original: Mapping[str, Any], columns: Mapping[str, str], ranges: Sequence[int]) -> Json:
    """Return the query that the submitted fields describe.

    `original` is the query that the form showed; `columns` are the types of the columns, for reading values.
    """
    form = form_of(original, ranges)
    query = dict(original)

    def take(name: str, rows: list[Row], before: Sequence[Row], make: Callable[[Row], Any]) -> None:
        if rows == [row for row in before if row[0]]:
            return
        items = _merge(rows, before, _items(original, name), make)
        if items:
            query[name] = items
        else:
            query.pop(name, None)

    take(
        "calculations",
        _rows(fields, "calculation", "of"),
        form.calculations,
        lambda row: {"op": row[0]} | ({"column": _name(row[1])} if row[1] else {}),
    )
    take("filters", _rows(fields, "where", "is", "value"), form.filters, lambda row: _make_filter(row, columns))
    take("breakdowns", _rows(fields, "by"), form.breakdowns, lambda row: _name(row[0]))
    take("orders", _rows(fields, "order", "way"), form.orders, _make_order(query))
    take("havings", _rows(fields, "having", "having_is", "having_value"), form.havings, _make_having)

    combination = fields.getlist("any")
    if combination and (combination[0] == "OR") != form.any_filter:
        query.pop("filter_combination", None)
        if combination[0] == "OR":
            query["filter_combination"] = "OR"
    limits = fields.getlist("limit")
    if limits and limits[0] != form.limit:
        query.pop("limit", None)
        if limits[0].strip():
            text = limits[0].strip()
            query["limit"] = int(text) if re.fullmatch("[0-9]{1,9}", text) else text
    times = fields.getlist("range")
    if times and times[0] not in (form.time, UNCHANGED):
        for name in TIMES:
            query.pop(name, None)
        if re.fullmatch("[0-9]{1,9}", times[0]):
            query["time_range"] = int(times[0])
    return query


def _rows(fields: Fields, first: str, *more: str) -> list[Row]:
    """Return the submitted rows whose first field is not empty."""
    rows = zip(*(fields.getlist(name) for name in (first, *more)), strict=False)
    return [row for row in rows if row[0]]


def _merge(rows: Sequence[Row], before: Sequence[Row], items: Sequence[Any], make: Callable[[Row], Any]) -> list[Any]:
    """Return an item for each row: the original item if the row did not change, else a new one."""
    remaining: list[tuple[Row, Any]] = list(zip(before, items, strict=True))
    merged = []
    for row in rows:
        index = next((number for number, (old_row, _) in enumerate(remaining) if old_row == row), None)
        merged.append(make(row) if index is None else remaining.pop(index)[1])
    return merged


# A query's items as rows


def _items(query: Mapping[str, Any], name: str) -> list[Any]:
    value = query.get(name)
    return value if isinstance(value, list) else []


def _calculation(item: Any) -> Row:
    return (_text(item.get("op")), _column(item.get("column"))) if isinstance(item, dict) else (_text(item), "")


def _filter(item: Any) -> Row:
    if not isinstance(item, dict):
        return (_text(item), "=", "")
    return (_column(item.get("column")), _text(item.get("op")), _text(item.get("value")))


def _order(item: Any) -> Row:
    if not isinstance(item, dict):
        return (_text(item), "ascending")
    way = item.get("order")
    return (_term(item.get("op"), item.get("column")), way if way == "descending" else "ascending")


def _having(item: Any) -> Row:
    if not isinstance(item, dict):
        return (_text(item), "=", "")
    return (_term(item.get("calculate_op"), item.get("column")), _text(item.get("op")), _text(item.get("value")))


def _term(op: Any, column: Any) -> str:
    if op is None:
        return _column(column)
    return f"{_text(op)}({_column(column)})" if column is not None else _text(op)


def _details(query: Mapping[str, Any], name: str, known: Sequence[str]) -> list[str]:
    """Describe properties of items that have no form fields."""
    details = []
    for item in _items(query, name):
        if isinstance(item, dict):
            rest = {key: value for key, value in item.items() if key not in known and value not in (None, [], {})}
            if rest:
                row = _calculation(item) if name == "calculations" else _filter(item)
                term = f"{row[0]}({row[1]})" if name == "calculations" and row[1] else row[0]
                details.append(f"{term}: {json.dumps(rest)}")
    return details


# Rows as a query's items


def _make_filter(row: Row, columns: Mapping[str, str]) -> Json:
    column, op, text = _name(row[0]), row[1], row[2]
    result: Json = {"column": column, "op": op}
    if op in WITHOUT_VALUE:
        return result
    type_ = "string" if op in TEXTUAL else columns.get(column, "")
    if op in LISTS:
        parts = re.findall(r'\s*("(?:[^"\\]|\\.)*"|[^,]*)\s*(?:,|$)', text)
        return result | {"value": [_value(part.strip(), type_) for part in (parts[:-1] if not parts[-1] else parts)]}
    return result | {"value": _value(text, type_)}


def _make_order(query: Mapping[str, Any]) -> Callable[[Row], Json]:
    def make(row: Row) -> Json:
        names = [_column(item) for item in _items(query, "breakdowns")]
        op, column = (None, _name(row[0])) if row[0] in names else _split_term(row[0])
        result: Json = {} if op is None else {"op": op}
        return result | ({} if column is None else {"column": column}) | {"order": row[1]}

    return make


def _make_having(row: Row) -> Json:
    op, column = _split_term(row[0])
    result: Json = {"calculate_op": op} | ({} if column is None else {"column": column})
    return result | {"op": row[1], "value": _value(row[2], "")}


def _split_term(term: str) -> tuple[str | None, str | None]:
    """Return the operation and the column of "P90(duration_ms)", "COUNT" or a column's name."""
    match = re.fullmatch(r"([A-Z][A-Z0-9_]*)(?:\((.*)\))?", term)
    if match is None:
        return None, _name(term)
    return match[1], None if match[2] is None else _name(match[2])


# Values as text, and back: each value has a distinct text


def _text(value: Any) -> str:
    """Return a value as text that `_value` converts back to the same value."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(_quoted(item) if isinstance(item, str) and "," in item else _text(item) for item in value)
    if isinstance(value, str):
        return value if _needs_no_quotes(value) else _quoted(value)
    return json.dumps(value)


def _column(name: Any) -> str:
    """Return the name of a column for the form, quoted if a form field would change it."""
    if not isinstance(name, str):
        return _text(name)
    return name if name and name.isprintable() and name == name.strip() and name[0] != '"' else _quoted(name)


def _name(text: str) -> str:
    """Return the name of a column from the form's text for it."""
    text = text.strip()
    unquoted = _load_json(text) if text[:1] == '"' else None
    return unquoted if isinstance(unquoted, str) else text


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=not value.isprintable())


def _needs_no_quotes(text: str) -> bool:
    return bool(text) and text.isprintable() and text == text.strip() and text[0] != '"' and _scalar(text) is None


def _scalar(text: str) -> bool | int | float | None:
    """Return the number or boolean that the text represents in JSON, or None."""
    if not re.fullmatch(r"true|false|-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?", text):
        return None
    value = _load_json(text)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _value(text: str, type_: str) -> Any:
    """Convert user input to a value for a column of this type ("" if unknown)."""
    if text[:1] == '"' and isinstance(unquoted := _load_json(text), str):
        return unquoted
    if type_ == "string":
        return text
    value = _scalar(text.strip())
    return text if value is None else value


def _load_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
