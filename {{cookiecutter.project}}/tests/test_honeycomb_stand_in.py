"""The stand-in for Honeycomb's API: it refuses what the documentation says is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from honeycomb_stand_in import CLASSIC, CONFIGURATION, INGEST, Honeycomb, Key, honeycomb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

COUNT = {"calculations": [{"op": "COUNT"}]}
P90 = {"calculations": [{"op": "P90", "column": "duration_ms"}], "time_range": 900}
OVER = {"op": ">", "value": 500}


@pytest.fixture(scope="module")
def service() -> Iterator[Honeycomb]:
    with honeycomb(little=Key(access=set())) as service:
        service.datasets["backend-flask"] = {"duration_ms", "http.route"}
        yield service


def ask(service: Honeycomb, method: str, path: str, body: Any = None, key: str = CONFIGURATION) -> requests.Response:
    headers = {"x-honeycomb-team": key, "content-type": "application/json"}
    data = body if isinstance(body, str | None) else json.dumps(body)
    return requests.request(method, service.url + path, headers=headers, data=data, timeout=10)


@pytest.mark.parametrize("path", ["/1/auth", "/1/boards", "/1/columns/backend-flask", "/1/triggers/backend-flask"])
def test_an_unknown_key_is_refused(service: Honeycomb, path: str) -> None:
    for key in ("", "nobodys"):
        answer = ask(service, "GET", path, key=key)
        assert (answer.status_code, answer.json()) == (401, {"error": "unknown API key - check your credentials"})


CONFIGURING = [
    ("GET", "/1/columns/backend-flask", None),
    ("POST", "/1/queries/backend-flask", COUNT),
    ("POST", "/1/query_annotations/backend-flask", {}),
    ("GET", "/1/boards", None),
    ("POST", "/1/boards", {}),
    ("POST", "/1/markers/__all__", {}),
    ("POST", "/1/triggers/backend-flask", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), CONFIGURING)
def test_only_a_configuration_key_with_the_permission_may_configure(
    service: Honeycomb, method: str, path: str, body: Any
) -> None:
    assert ask(service, method, path, body, key=INGEST).status_code == 403
    assert ask(service, method, path, body, key="little").status_code == 403
    assert ask(service, "GET", "/1/auth", key=INGEST).json()["type"] == "ingest"


@pytest.mark.parametrize(
    "path", ["/1/queries/other", "/1/markers/other", "/1/triggers/other", "/1/query_annotations/other", "/1/other"]
)
def test_what_is_not_there_is_not_found(service: Honeycomb, path: str) -> None:
    assert ask(service, "POST", path, COUNT).status_code == 404


@pytest.mark.parametrize(("body", "status"), [("{", 400), ("[]", 400), (" " * 100_001, 413)])
def test_a_malformed_body_is_refused(service: Honeycomb, body: str, status: int) -> None:
    assert ask(service, "POST", "/1/queries/backend-flask", body).status_code == status


def test_another_content_type_is_refused(service: Honeycomb) -> None:
    url, headers = f"{service.url}/1/queries/backend-flask", {"x-honeycomb-team": CONFIGURATION}
    assert requests.post(url, headers=headers, data="{}", timeout=10).status_code == 415


@pytest.mark.parametrize(
    "query",
    [
        {"breakdowns": ["nobody.sent.this"]},
        {"calculations": [{"op": "P90", "column": "nobody.sent.this"}]},
        {"filters": [{"column": "nobody.sent.this", "op": "exists"}]},
        {"calculations": [{"op": "P91", "column": "duration_ms"}]},
        {"calculations": [{"op": "P90"}]},
        {"calculations": [{"op": "COUNT", "column": "duration_ms"}]},
        {"filters": [{"column": "http.route", "op": "exists", "value": 1}]},
        {"filters": [{"column": "http.route", "op": "="}]},
        {"filters": [{"column": "http.route", "op": "in", "value": "/"}]},
        {"filters": [{"column": "http.route", "op": "like", "value": "/"}]},
        {"orders": [{"op": "MAX", "column": "duration_ms"}]},
        {"calculations": [{"op": "HEATMAP", "column": "duration_ms"}], "orders": [{"op": "HEATMAP"}]},
        {"limit": 1001},
        {"time_range": 0},
        {"time_range": 60, "start_time": 1, "end_time": 61},
        {"granularity": 10_000},
        {"breakdowns": "http.route"},
        {"id": "abc"},
    ],
)
def test_a_query_that_breaks_a_rule_is_refused(service: Honeycomb, query: dict[str, Any]) -> None:
    answer = ask(service, "POST", "/1/queries/backend-flask", query)
    assert (answer.status_code, answer.json()["status"]) == (422, 422)
    assert answer.json()["type_detail"]


def annotated(service: Honeycomb) -> dict[str, str]:
    query_id = ask(service, "POST", "/1/queries/backend-flask", COUNT).json()["id"]
    note = ask(service, "POST", "/1/query_annotations/backend-flask", {"name": "x", "query_id": query_id})
    assert note.status_code == 201
    return {"query_id": query_id, "query_annotation_id": note.json()["id"]}


def test_a_board_that_breaks_a_rule_is_refused(service: Honeycomb) -> None:
    one, other = annotated(service), annotated(service)
    panel = {"type": "query", "query_panel": one}
    good = {"name": "x", "type": "flexible", "panels": [panel]}
    assert ask(service, "POST", "/1/boards", good).status_code == 201
    for bad in (
        {**good, "type": "classic"},
        {key: value for key, value in good.items() if key != "type"},
        {**good, "name": ""},
        {**good, "id": "mine"},
        {**good, "layout_generation": "by hand"},
        {**good, "panels": [{"type": "query"}]},
        {**good, "panels": [{"type": "query", "query_panel": {"query_id": one["query_id"]}}]},
        {**good, "panels": [{"type": "query", "query_panel": {**one, "query_id": other["query_id"]}}]},
        {**good, "panels": [{"type": "query", "query_panel": {**one, "dataset": "backend-flask"}}]},
        {**good, "panels": [{**panel, "position": {"x_coordinate": -1}}]},
    ):
        assert ask(service, "POST", "/1/boards", bad).status_code == 422, bad
    assert ask(service, "PUT", "/1/boards/nothing", good).status_code == 404


def test_a_trigger_that_breaks_a_rule_is_refused(service: Honeycomb) -> None:
    good = {"name": "x", "query": P90, "threshold": OVER, "frequency": 900}
    assert ask(service, "POST", "/1/triggers/backend-flask", good).status_code == 201
    for bad in (
        {**good, "name": ""},
        {**good, "frequency": 61},
        {**good, "frequency": 60},  # a quarter of the time range, at least
        {**good, "threshold": {"op": "=", "value": 1}},
        {**good, "threshold": {"op": ">"}},
        {**good, "query": {**P90, "orders": []}},
        {**good, "query": {**P90, "limit": 10}},
        {**good, "query": {**P90, "calculations": [{"op": "HEATMAP", "column": "duration_ms"}]}},
        {**good, "query": {**P90, "calculations": P90["calculations"] * 2}},
        {**good, "query": {"calculations": P90["calculations"]}},
        {**good, "recipients": [{"type": "email", "target": "me@example.com"}]},
    ):
        assert ask(service, "POST", "/1/triggers/backend-flask", bad).status_code == 422, bad


def test_too_much_is_refused_with_a_time(service: Honeycomb) -> None:
    service.limited = True
    answer = ask(service, "GET", "/1/auth")
    service.limited = False
    assert (answer.status_code, answer.headers["Retry-After"].endswith("GMT")) == (429, True)
    assert answer.json()["type"] == "https://api.honeycomb.io/problems/rate-limited"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "application/x-protobuf"}, b"", 200),
        ({"content-type": "application/json"}, b"{}", 200),
        ({"content-type": "text/plain"}, b"", 415),
        ({"content-type": "application/json"}, b"{", 400),
        ({"content-type": "application/x-protobuf"}, b"\xff", 400),
        ({"content-type": "application/x-protobuf", "content-encoding": "deflate"}, b"", 400),
        ({"content-type": "application/x-protobuf", "x-honeycomb-team": ""}, b"", 401),
        ({"content-type": "application/x-protobuf", "x-honeycomb-team": "nobodys"}, b"", 401),
        ({"content-type": "application/x-protobuf", "x-honeycomb-team": "little"}, b"", 401),
        ({"content-type": "application/x-protobuf", "x-honeycomb-team": CLASSIC}, b"", 401),
        ({"content-type": "application/x-protobuf", "x-honeycomb-team": CLASSIC, "x-honeycomb-dataset": "x"}, b"", 200),
    ],
)
def test_otlp_is_taken_as_the_receiver_that_honeycomb_publishes_takes_it(
    service: Honeycomb, headers: dict[str, str], body: bytes, status: int
) -> None:
    sent = {"x-honeycomb-team": INGEST, **headers}
    assert requests.post(f"{service.url}/v1/traces", headers=sent, data=body, timeout=10).status_code == status


@pytest.mark.parametrize(("rate", "counted"), [(None, 1), (0, 1), (10, 10), (1 << 40, (1 << 31) - 1)])
def test_an_event_counts_as_many_times_as_its_rate_says(rate: int | None, counted: int) -> None:
    message = ExportTraceServiceRequest()
    span = message.resource_spans.add().scope_spans.add().spans.add(name="x", trace_id=b"1" * 16, span_id=b"2" * 8)
    if rate is not None:
        span.attributes.add(key="SampleRate").value.int_value = rate
    with honeycomb() as service:
        headers = {"x-honeycomb-team": INGEST, "content-type": "application/x-protobuf"}
        requests.post(f"{service.url}/v1/traces", headers=headers, data=message.SerializeToString(), timeout=10)
        assert service.counted() == counted
        assert "SampleRate" not in service.datasets["unknown_service"]
