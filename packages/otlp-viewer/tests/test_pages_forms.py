"""The query builder's form: a query becomes form fields, and the same query again."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from otlp_viewer.query.operators import CALCULATIONS, FILTERS
from otlp_viewer.web import forms
from werkzeug.datastructures import MultiDict

RANGES = (60, 600, 3600)
COLUMNS = {"duration_ms": "float", "http.response.status_code": "integer", "name": "string", "trace.trace_id": "string"}

names = st.one_of(st.sampled_from([*COLUMNS, "a b", '"quoted"', "", " padded "]), st.text(max_size=8))
scalars = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["5", "true", '"5"', "b,c", "1e3", "null", "a, b", "\ud800", "line\nend", "1e999", "[1]"]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
)
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(st.text(max_size=3), scalars, max_size=2))


def items(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    whole = st.fixed_dictionaries({}, optional={**fields, "extra": values})
    return st.lists(st.one_of(whole, whole, whole, values), max_size=4)


ways = st.sampled_from(["ascending", "descending"])
queries = st.fixed_dictionaries(
    {},
    optional={
        "calculations": items(op=st.sampled_from(CALCULATIONS), column=names, name=names),
        "filters": items(column=names, op=st.sampled_from(FILTERS), value=values),
        "filter_combination": st.sampled_from(["AND", "OR", None, 7]),
        "breakdowns": st.lists(names, max_size=3),
        "orders": items(op=st.sampled_from(CALCULATIONS), column=names, order=ways),
        "havings": items(calculate_op=st.sampled_from(CALCULATIONS), column=names, op=st.just(">"), value=values),
        "limit": values,
        "time_range": st.one_of(st.sampled_from(RANGES), values),
        "start_time": values,
        "end_time": values,
        "granularity": values,
        "calculated_fields": values,
    },
)


def submitted(form: forms.Form) -> MultiDict[str, str]:
    """What a browser sends when nothing in the form was changed: the rows, and an empty one after them."""
    fields: list[tuple[str, str]] = [
        ("any", "OR" if form.any_filter else "AND"),
        ("limit", form.limit),
        ("range", form.time),
    ]
    for rows, keys in (
        ([*form.calculations, ("", "")], ("calculation", "of")),
        ([*form.filters, ("", "=", "")], ("where", "is", "value")),
        ([*form.breakdowns, ("",)], ("by",)),
        ([*form.orders, ("", "descending")], ("order", "way")),
        ([*form.havings, ("", ">", "")], ("having", "having_is", "having_value")),
    ):
        fields += [(key, text) for row in rows for key, text in zip(keys, row, strict=True)]
    return MultiDict(fields)


@settings(max_examples=500, deadline=None)
@given(queries)
def test_an_unchanged_form_keeps_the_query(query: dict[str, Any]) -> None:
    again = forms.to_query(submitted(forms.form_of(query, RANGES)), query, COLUMNS, RANGES)
    assert again == query
    assert list(again) == list(query)


@settings(max_examples=300, deadline=None)
@given(queries)
def test_changing_one_part_keeps_the_others(query: dict[str, Any]) -> None:
    fields = submitted(forms.form_of(query, RANGES))
    fields.setlist("by", ["service.name"])
    again = forms.to_query(fields, query, COLUMNS, RANGES)
    assert again.pop("breakdowns") == ["service.name"]
    query.pop("breakdowns", None)
    assert again == query


@settings(max_examples=500, deadline=None)
@given(scalars.filter(lambda value: value is not None))
def test_each_form_text_represents_one_value(value: Any) -> None:
    query = {
        "filters": [{"column": "app.x", "op": "=", "value": value}, {"column": "app.x", "op": "in", "value": [value]}]
    }
    fields = submitted(forms.form_of(query, RANGES))
    again = forms.to_query(fields, {}, {}, RANGES)["filters"]
    assert [one["value"] for one in again] == [value, [value]]
    assert [type(one["value"]) for one in again] == [type(value), list]


@pytest.mark.parametrize(
    ("column", "op", "text", "value"),
    [
        ("http.response.status_code", ">=", "500", 500),
        ("duration_ms", ">", "1.5", 1.5),
        ("app.unknown", ">", "5", 5),
        ("name", "=", "5", "5"),
        ("trace.trace_id", "=", "12345678901234567890123456789012", "12345678901234567890123456789012"),
        ("name", "contains", "5", "5"),
        ("name", "in", "a, b", ["a", "b"]),
        ("name", "in", '"b,c", d', ["b,c", "d"]),
        ("http.response.status_code", "in", "500, 502", [500, 502]),
        ("app.unknown", "=", "true", True),
        ("app.unknown", "=", '"true"', "true"),
    ],
)
def test_a_typed_value_is_converted_to_the_type_of_its_column(column: str, op: str, text: str, value: Any) -> None:
    fields = MultiDict([("where", column), ("is", op), ("value", text)])
    assert forms.to_query(fields, {}, COLUMNS, RANGES) == {"filters": [{"column": column, "op": op, "value": value}]}


def test_an_unchanged_item_keeps_properties_without_form_fields() -> None:
    stored = {"op": "COUNT", "name": "errors", "filters": [{"column": "error", "op": "=", "value": True}]}
    query = {"calculations": [stored, {"op": "MAX", "column": "duration_ms"}], "granularity": 60}
    fields = submitted(forms.form_of(query, RANGES))
    fields.setlist("calculation", ["COUNT", "P90", ""])
    fields.setlist("of", ["", "duration_ms", ""])
    again = forms.to_query(fields, query, COLUMNS, RANGES)
    assert again == {"calculations": [stored, {"op": "P90", "column": "duration_ms"}], "granularity": 60}
    assert forms.form_of(query, RANGES).carried == {"granularity": 60}
    assert "errors" in forms.form_of(query, RANGES).details[0]


def test_a_new_range_replaces_start_and_end() -> None:
    query = {"start_time": 5, "end_time": 9, "havings": []}
    fields = submitted(forms.form_of(query, RANGES))
    assert fields["range"] == forms.UNCHANGED
    fields["range"] = "600"
    assert forms.to_query(fields, query, COLUMNS, RANGES) == {"havings": [], "time_range": 600}
    fields["range"] = ""
    assert forms.to_query(fields, query, COLUMNS, RANGES) == {"havings": []}


def test_invalid_numbers_are_kept_in_the_form() -> None:
    fields = MultiDict([("limit", "many"), ("order", "nowhere"), ("way", "descending")])
    fields.setlist("having", ["COUNT"])
    fields.setlist("having_is", [">"])
    fields.setlist("having_value", ["few"])
    assert forms.to_query(fields, {}, COLUMNS, RANGES) == {
        "limit": "many",
        "orders": [{"column": "nowhere", "order": "descending"}],
        "havings": [{"calculate_op": "COUNT", "op": ">", "value": "few"}],
    }
