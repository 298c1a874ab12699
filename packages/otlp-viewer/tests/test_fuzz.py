"""Whatever is asked, the answer is 200 or 400 with a reason."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from by_hand import generated
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from otlp_viewer.query.operators import CALCULATIONS, FILTERS
from otlp_viewer.query.parse import FIELDS
from otlp_viewer.store import Store
from otlp_viewer.web.app import create_app
from sender import add, add_logs

TRIES = int(os.environ.get("FUZZ_TRIES", "300"))
THOROUGH = settings(
    max_examples=TRIES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, database=None
)
COLUMNS = ("app.x", "app.mixed", "app.text", "app.whole", "app.yes", "duration_ms", "name", "error", "status_code",
           "time", "trace.trace_id", "SampleRate", "nowhere", "", "\ud800", "COUNT", "a'b\"c")  # fmt: skip
TEXTS = some.sampled_from(COLUMNS) | some.text(some.characters(), max_size=8)
NUMBERS = (
    some.integers()
    | some.floats()
    | some.sampled_from([10**400, -(10**400), 2**53, 2**63, -(2**63), 2**64, 1e308, -0.0, 0.1])
)
SCALARS = some.none() | some.booleans() | NUMBERS | TEXTS
ANYTHING = some.recursive(SCALARS, lambda one: some.lists(one, max_size=4) | some.dictionaries(TEXTS, one, max_size=4))


def mostly(right: some.SearchStrategy[Any]) -> some.SearchStrategy[Any]:
    return some.one_of(right, right, right, right, ANYTHING)


def objects(**fields: some.SearchStrategy[Any]) -> some.SearchStrategy[Any]:
    return mostly(some.fixed_dictionaries({}, optional={name: mostly(value) for name, value in fields.items()}))


OPS = some.sampled_from(CALCULATIONS)
FILTER = objects(column=TEXTS, op=some.sampled_from(FILTERS), value=SCALARS | some.lists(SCALARS, max_size=5))
COMBINATION = some.sampled_from(["AND", "OR"])
QUERY = some.fixed_dictionaries(
    {},
    optional={
        "calculations": mostly(
            some.lists(
                objects(
                    op=OPS,
                    column=TEXTS,
                    name=TEXTS,
                    filters=some.lists(FILTER, max_size=2),
                    filter_combination=COMBINATION,
                ),
                max_size=4,
            )
        ),
        "breakdowns": mostly(some.lists(TEXTS, max_size=4)),
        "filters": mostly(some.lists(FILTER, max_size=4)),
        "filter_combination": mostly(COMBINATION),
        "orders": mostly(
            some.lists(objects(op=OPS, column=TEXTS, order=some.sampled_from(["ascending", "descending"])), max_size=3)
        ),
        "havings": mostly(
            some.lists(
                objects(calculate_op=OPS, column=TEXTS, op=some.sampled_from(["=", ">", "<="]), value=NUMBERS),
                max_size=2,
            )
        ),
        **{
            name: mostly(some.integers(0, 2**33) | some.sampled_from([1, 60, 3600, 1_767_355_200, 1_767_355_300]))
            for name, kind in FIELDS.items()
            if kind is int
        },
    },
)


@pytest.fixture(scope="module")
def filled() -> Iterator[FlaskClient]:
    store = Store()
    spans = generated(40, seed=1)
    for number, made in enumerate(spans):
        made |= {"app.x": [1, 1.5, "x", True, None][number % 5], "SampleRate": number % 3, "a'b\"c": "\0"}
    add(store, spans)
    add_logs(store, [{"time": "2026-01-02T12:00:00Z", "body": "b", "app.x": 1, "severity_number": 9}])
    yield create_app(store).test_client()
    store.close()


@THOROUGH
@given(query=QUERY | ANYTHING, signal=some.sampled_from(["spans", "logs"]))
def test_any_query_is_answered_or_refused_with_a_reason(filled: FlaskClient, query: Any, signal: str) -> None:
    try:
        body = json.dumps(query)
    except ValueError:  # digits beyond what the interpreter writes
        return
    answer = filled.post(f"/api/query?signal={signal}", data=body, content_type="application/json")
    assert answer.status_code in (200, 400), (answer.status_code, body)
    if answer.status_code == 400:
        assert answer.get_json()["error"].strip()
    else:
        json.loads(answer.data, parse_constant=pytest.fail)


@THOROUGH
@given(
    body=some.binary(max_size=200) | ANYTHING.map(lambda value: json.dumps(value).encode()),
    path=some.sampled_from(["/v1/traces", "/v1/logs", "/v1/metrics", "/api/query"]),
    kind=some.sampled_from(["application/json", "application/x-protobuf", "text/plain"]),
)
def test_any_body_is_taken_or_refused_with_a_reason(filled: FlaskClient, body: bytes, path: str, kind: str) -> None:
    answer = filled.post(path, data=body, content_type=kind)
    assert answer.status_code in (200, 400, 415), (answer.status_code, body)
