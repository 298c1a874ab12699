"""Whatever the spans hold, answers are those of the calculation by hand."""

from typing import Any

from by_hand import NOON, by_group, by_hand, same, span, text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from otlp_viewer.query.operators import PERCENTILES
from otlp_viewer.store import Store
from sender import add, ask

NUMBERS = some.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12) | some.integers(
    -(2**53), 2**53
)
# Not text that reads as a number: there the viewer counts it as one, and so does the column's type.
TEXTS = some.text(some.characters(codec="utf-8"), max_size=20).filter(lambda text: not any(c.isdigit() for c in text))
VALUES = NUMBERS | TEXTS.filter(lambda text: text.strip().lower() not in ("nan", "inf", "infinity")) | some.booleans()
LARGE = some.integers(-(2**63), 2**63 - 1) | some.integers(2**53, 2**53 + 3)
OPS = ("=", "!=", "<", "<=", ">", ">=", "in", "not-in", "exists", "does-not-exist", "contains", "starts-with")
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def answered(values: list[Any], specification: dict[str, Any]) -> tuple[Any, Any]:
    """The results of a query over spans with these values in app.x (None: without), here and by hand."""
    spans = [span(n, n / 1000, **({} if value is None else {"app.x": value})) for n, value in enumerate(values)]
    store = Store()
    try:
        add(store, spans)
        response = ask(store, {**specification, "start_time": NOON, "limit": 1000})
    finally:
        store.close()
    return by_group(response, specification.get("breakdowns", [])), by_hand(specification, spans)


@QUICK
@given(values=some.lists(NUMBERS, min_size=1, max_size=60))
def test_percentiles_and_sums_of_any_numbers(values: list[float]) -> None:
    ops = [*PERCENTILES, "MIN", "MAX", "COUNT_DISTINCT"]
    specification = {"calculations": [{"op": op, "column": "app.x"} for op in ops]}
    found, computed = answered(values, specification)
    assert same(found, computed)


@QUICK
@given(
    values=some.lists(VALUES | LARGE | some.none(), min_size=1, max_size=40).filter(
        lambda values: values.count(None) < len(values)
    ),
    op=some.sampled_from(OPS),
    data=some.data(),
)
def test_filters_of_any_values(values: list[Any], op: str, data: some.DataObject) -> None:
    known = [value for value in values if value is not None]
    one: dict[str, Any] = {"column": "app.x", "op": op}
    if op in ("in", "not-in"):
        one["value"] = data.draw(some.lists(some.sampled_from(known), max_size=4))
    elif op in ("contains", "starts-with"):
        one["value"] = text(data.draw(some.sampled_from(known)))[:3]
    elif not op.endswith(("exist", "exists")):
        one["value"] = data.draw(some.sampled_from(known))
        if isinstance(one["value"], bool) and op not in ("=", "!="):
            return
    found, computed = answered(values, {"calculations": [{"op": "COUNT"}], "filters": [one]})
    assert same(found, computed), one
