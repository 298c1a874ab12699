"""Whatever is asked, the answer is 200 or 400 with a reason."""

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from by_hand import NOON, generated
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from otlp_viewer.query.operators import CALCULATIONS, FILTERS
from otlp_viewer.query.parse import FIELDS
from otlp_viewer.store import Store
from otlp_viewer.web.app import create_app
from sender import add, add_logs

TRIES = int(os.environ.get("FUZZ_TRIES", "150"))
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


def objects(
    required: dict[str, some.SearchStrategy[Any]] | None = None, **fields: some.SearchStrategy[Any]
) -> some.SearchStrategy[Any]:
    optional = {name: mostly(value) for name, value in fields.items()}
    return mostly(some.fixed_dictionaries(required or {}, optional=optional))


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


@pytest.fixture
def taking() -> Iterator[FlaskClient]:
    """What has taken nothing yet, but from earlier tries."""
    store = Store()
    yield create_app(store).test_client()
    assert store.counts()[0] > 0
    assert store._failure is None
    store.close()


@THOROUGH
@given(query=QUERY | ANYTHING, signal=some.sampled_from(["spans", "logs"]))
def test_any_query_gets_a_result_or_a_reason(filled: FlaskClient, query: Any, signal: str) -> None:
    try:
        body = json.dumps(query)
    except ValueError:  # digits beyond what the interpreter writes
        return
    response = filled.post(f"/api/query?signal={signal}", data=body, content_type="application/json")
    assert response.status_code in (200, 400), (response.status_code, body)
    if response.status_code == 400:
        assert response.get_json()["error"].strip()
    else:
        json.loads(response.data, parse_constant=pytest.fail)


@THOROUGH
@given(
    body=some.binary(max_size=200) | ANYTHING.map(lambda value: json.dumps(value).encode()),
    path=some.sampled_from(["/v1/traces", "/v1/logs", "/v1/metrics", "/api/query"]),
    kind=some.sampled_from(["application/json", "application/x-protobuf", "text/plain"]),
)
def test_any_body_is_accepted_or_rejected_with_a_reason(filled: FlaskClient, body: bytes, path: str, kind: str) -> None:
    response = filled.post(path, data=body, content_type=kind)
    assert response.status_code in (200, 400, 415), (response.status_code, body)


VALUE = some.recursive(
    some.fixed_dictionaries(
        {},
        optional={
            "stringValue": mostly(TEXTS),
            "intValue": mostly(NUMBERS),
            "doubleValue": mostly(NUMBERS),
            "boolValue": mostly(some.booleans()),
            "bytesValue": mostly(some.just("AAE=")),
        },
    ),
    lambda one: some.fixed_dictionaries(
        {},
        optional={
            "arrayValue": some.fixed_dictionaries({"values": some.lists(one, max_size=2)}),
            "kvlistValue": some.fixed_dictionaries({"values": some.lists(ANYTHING, max_size=2)}),
        },
    ),
    max_leaves=4,
)
ATTRIBUTES = mostly(some.lists(mostly(some.fixed_dictionaries({"key": mostly(TEXTS), "value": VALUE})), max_size=3))
TRACE_IDS = some.sampled_from([f"{number:032x}" for number in (1, 2, 77)])
SPAN_IDS = some.sampled_from([f"{number:016x}" for number in (1, 2, 99)])
MOMENTS = some.sampled_from([str(NOON * 10**9), NOON * 10**9, 1, 2**64, -1]) | NUMBERS
SPAN = objects(
    {"traceId": TRACE_IDS, "spanId": SPAN_IDS},
    parentSpanId=SPAN_IDS,
    name=TEXTS,
    kind=some.integers(0, 5),
    startTimeUnixNano=MOMENTS,
    endTimeUnixNano=MOMENTS,
    attributes=ATTRIBUTES,
    events=some.lists(objects(name=TEXTS, timeUnixNano=MOMENTS, attributes=ATTRIBUTES), max_size=2),
    links=some.lists(objects(traceId=TRACE_IDS, spanId=SPAN_IDS, attributes=ATTRIBUTES), max_size=2),
    status=objects(code=some.integers(0, 2), message=TEXTS),
    traceState=TEXTS,
    droppedAttributesCount=NUMBERS,
)
LOG = objects(
    traceId=TRACE_IDS,
    spanId=SPAN_IDS,
    timeUnixNano=MOMENTS,
    severityNumber=some.integers(),
    severityText=TEXTS,
    body=VALUE,
    eventName=TEXTS,
    attributes=ATTRIBUTES,
)


def exports(signal: str, record: some.SearchStrategy[Any]) -> some.SearchStrategy[Any]:
    name = "spans" if signal == "Spans" else "logRecords"
    scope = objects(
        {name: some.lists(record, min_size=1, max_size=3)}, scope=objects(name=TEXTS, attributes=ATTRIBUTES)
    )
    group = objects(
        {f"scope{signal}": some.lists(scope, min_size=1, max_size=2)}, resource=objects(attributes=ATTRIBUTES)
    )
    return some.fixed_dictionaries({f"resource{signal}": some.lists(group, min_size=1, max_size=2)})


@THOROUGH
@given(export=exports("Spans", SPAN) | exports("Logs", LOG))
def test_any_export_is_rejected_or_stored_readably(taking: FlaskClient, export: Any) -> None:
    try:
        body = json.dumps(export)
    except ValueError:
        return
    path = "/v1/traces" if "resourceSpans" in export else "/v1/logs"
    response = taking.post(path, data=body, content_type="application/json")
    assert response.status_code in (200, 400), (response.status_code, body)
    for page in (f"/api/traces/{1:032x}", f"/traces/{2:032x}", "/logs", "/traces"):
        assert taking.get(page).status_code in (200, 404), (page, body)


# Pages, and the rest of the API, by their parameters


def dumped(value: Any) -> str:
    try:
        return json.dumps(value)
    except ValueError:
        return "[" * 100_000


QUERIES = some.one_of(QUERY, QUERY, ANYTHING).map(dumped)
TIMES = some.one_of(some.floats(NOON - 10, NOON + 700), some.floats()).map(str) | some.just("9" * 400)
TRACES = some.sampled_from([*(f"{number:032x}" for number in (1, 2, 77)), "A" * 32, "x"])
KEYS = some.sampled_from([f"{1:016x}", f"{2:016x}.2", f"{3:016x}." + "9" * 18, f"{99:016x}", "x"])
WHOLE = some.sampled_from(["0", "1", "24", "1000", "-1", "1e3", "9" * 9, "9" * 400, "\u0663"])
WAYS = some.sampled_from(["ascending", "descending"])
VALUES = some.sampled_from(["1", '"a"', "a, b", '"', "1e999", "NaN", "9" * 30]) | TEXTS
PARAMETERS: dict[str, some.SearchStrategy[str]] = {
    "any": COMBINATION,
    "attribute": some.tuples(TEXTS, VALUES).map("=".join),
    "box": some.tuples(TIMES, TIMES, TIMES, TIMES, TEXTS).map(",".join),
    "calculation": OPS,
    "clocks": some.just("sent"),
    "end": TIMES,
    "from": WHOLE,
    "having_is": some.sampled_from(FILTERS),
    "id": TRACES | KEYS,
    "is": some.sampled_from(FILTERS),
    "limit": WHOLE,
    "max_duration": VALUES | some.just("1.5 s"),
    "min_duration": VALUES | some.just("2 ms"),
    "original": QUERIES,
    "query": QUERIES,
    "range": some.sampled_from(["60", "86400"]),
    "service": some.sampled_from(["backend", "profiles"]),
    "severity": WHOLE,
    "signal": some.sampled_from(["spans", "logs"]),
    "sort": some.sampled_from(["start", "name", "duration", "spans", "errors"]),
    "span": KEYS,
    "span_id": KEYS,
    "start": TIMES,
    "status": some.sampled_from(["error", "ok", "2xx", "5xx"]),
    "trace_id": TRACES,
    "value": VALUES,
    "way": WAYS,
}
PATHS = {
    "/": "",
    "/traces": "service route status text min_duration max_duration start end range sort order from query box",
    "/logs": "service severity trace_id span_id text attribute event_name start end range from",
    "/query": "query box signal",
    "/query/slowest": "query box",
    "/ask": "original signal calculation of where is value by order way having having_is having_value any limit range",
    "/find": "id",
    "/clear": "",
    "/traces/{trace}": "span from clocks",
    "/traces/{trace}/spans/{key}": "",
    "/traces/{trace}/spans/{key}/json": "",
    "/traces/{trace}/find": "text",
    "/values/http.route": "",
    "/api/traces": "limit",
    "/api/traces/{trace}": "",
    "/api/columns": "signal",
    "/api/health": "",
}


@some.composite
def addresses(draw: some.DrawFn) -> str:
    path = draw(some.sampled_from(list(PATHS)))
    made = path.format(trace=quoted(draw(TRACES | TEXTS)), key=quoted(draw(KEYS | TEXTS)))
    pairs = []
    for name in PATHS[path].split():
        right = PARAMETERS.get(name, TEXTS)
        given = draw(some.lists(some.one_of(right, right, right, TEXTS), max_size=2 if path == "/ask" else 1))
        pairs += [f"{name}={quoted(value)}" for value in given]
    return made + "?" + "&".join(pairs)


def quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


@THOROUGH
@given(address=addresses(), accept=some.sampled_from(["text/html", "application/json", "text/plain"]))
def test_any_url_gets_a_page_or_a_reason(filled: FlaskClient, address: str, accept: str) -> None:
    response = filled.get(address, headers={"Accept": accept})
    assert response.status_code in (200, 302, 308, 400, 404), (response.status_code, address)
    assert response.data
