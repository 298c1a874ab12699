"""Whatever the spans hold, the viewer's answers are those of the hand computation in the project's own tests."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

NUMBERS = some.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12) | some.integers(
    -(2**53), 2**53
)
# Not text that reads as a number: there the viewer counts it as one, and so does the column's type.
TEXTS = some.text(some.characters(codec="utf-8"), max_size=20).filter(lambda text: not any(c.isdigit() for c in text))
VALUES = NUMBERS | TEXTS.filter(lambda text: text.strip().lower() not in ("nan", "inf", "infinity")) | some.booleans()
OPS = ("=", "!=", "<", "<=", ">", ">=", "in", "not-in", "exists", "does-not-exist", "contains", "starts-with")
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def hand(default_project: Path) -> Iterator[ModuleType]:
    """The generated project's own tests of queries, which compute answers by hand."""
    before = sys.path[:]
    sys.path[:0] = [str(default_project), str(default_project / "tests")]
    yield importlib.import_module("test_viewer_query")
    sys.path[:] = before


def answered(hand: ModuleType, values: list[Any], specification: dict[str, Any]) -> tuple[Any, Any]:
    """The results of a query over spans with these values in app.x (None: without), here and by hand."""
    spans = [hand.span(n, n / 1000, **({} if value is None else {"app.x": value})) for n, value in enumerate(values)]
    store = hand.Store()
    try:
        store.add_spans(spans)
        answer = store.query({**specification, "start_time": hand.NOON, "limit": 1000})
    finally:
        store.close()
    return hand.by_group(answer, specification.get("breakdowns", [])), hand.by_hand(specification, spans)


@QUICK
@given(values=some.lists(NUMBERS, min_size=1, max_size=60))
def test_percentiles_and_sums_of_any_numbers(hand: ModuleType, values: list[float]) -> None:
    ops = [*hand.query.PERCENTILES, "MIN", "MAX", "COUNT_DISTINCT"]
    specification = {"calculations": [{"op": op, "column": "app.x"} for op in ops]}
    found, computed = answered(hand, values, specification)
    assert hand.same(found, computed)


@QUICK
@given(
    values=some.lists(VALUES | some.none(), min_size=1, max_size=40).filter(
        lambda values: values.count(None) < len(values)
    ),
    op=some.sampled_from(OPS),
    data=some.data(),
)
def test_filters_of_any_values(hand: ModuleType, values: list[Any], op: str, data: some.DataObject) -> None:
    known = [value for value in values if value is not None]
    one: dict[str, Any] = {"column": "app.x", "op": op}
    if op in ("in", "not-in"):
        one["value"] = data.draw(some.lists(some.sampled_from(known), max_size=4))
    elif op in ("contains", "starts-with"):
        one["value"] = hand.text(data.draw(some.sampled_from(known)))[:3]
    elif not op.endswith(("exist", "exists")):
        one["value"] = data.draw(some.sampled_from(known))
        if isinstance(one["value"], bool) and op not in ("=", "!="):
            return
    found, computed = answered(hand, values, {"calculations": [{"op": "COUNT"}], "filters": [one]})
    assert hand.same(found, computed), one
