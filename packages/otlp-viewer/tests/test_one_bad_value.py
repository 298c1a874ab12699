"""One bad value spoils nothing else: it is replaced, or its record is left out and counted, and the rest is stored."""

import json
import time
from typing import Any

import pytest
from by_hand import span
from export import PROTOBUF, START, TRACE, attributes, export, json_span
from flask.testing import FlaskClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from otlp_viewer.model import LogFilter, TraceFilter
from otlp_viewer.store import Store
from sender import all_spans, resource_spans


def spans_of(client: FlaskClient) -> list[dict[str, Any]]:
    spans: list[dict[str, Any]] = client.get(f"/api/traces/{TRACE}").get_json()["spans"]
    return spans


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"stringValue": "deepest"}
    for _ in range(levels):
        value = {"kvlistValue": {"values": [{"key": "k", "value": value}]}}
    return value


@pytest.mark.parametrize(
    ("fields", "stored", "message"),
    [
        ({"name": "half \ud83d"}, {"name": "half \ufffd"}, "repaired: U+FFFD"),
        ({"name": "whole \ud83d\ude00"}, {"name": "whole \U0001f600"}, ""),
        ({"attributes": attributes(x="\udc00y")}, {"x": "\ufffdy"}, "repaired: U+FFFD"),
        ({"attributes": attributes(x={"intValue": str(10**30)})}, {"x": 2**63 - 1}, "changed: an out-of-range number"),
        ({"attributes": attributes(x={"intValue": -77})}, {"x": -(2**63)}, "changed: an out-of-range number"),
        ({"attributes": attributes(x={"intValue": 7})}, {"x": 7}, ""),
        ({"attributes": attributes(x={"doubleValue": "NaN"})}, {"x": "nan"}, ""),
        ({"droppedAttributesCount": -1}, {}, "changed: an out-of-range number"),
        ({"droppedAttributesCount": 2**40}, {"dropped_attributes_count": 2**32 - 1}, "changed: an out-of-range number"),
        ({"\ud800": 1}, {"name": "span-1"}, ""),
        ({"kind": "SPAN_KIND_CLIENT"}, {"span.kind": "client"}, ""),
        ({"kind": 77}, {"span.kind": "internal"}, ""),
        ({"status": {"code": "STATUS_CODE_ERROR"}}, {"error": True}, ""),
        ({"startTimeUnixNano": -5}, {"time": "1970-01-01T00:00:00.000000Z"}, ""),
        ({"endTimeUnixNano": 10**40}, {"name": "span-1"}, "changed: an out-of-range number"),
        ({"attributes": attributes(x=nested(32))}, {"name": "span-1"}, ""),
        ({"attributes": attributes(x=nested(120))}, {"name": "span-1"}, ""),
    ],
)
def test_a_bad_value_in_json_becomes_the_nearest_one(
    client: FlaskClient, fields: dict[str, Any], stored: dict[str, Any], message: str
) -> None:
    body = json.dumps(export(json_span(2), json_span(1) | fields)).replace("-77", "-" + "7" * 5000)
    response = client.post("/v1/traces", data=body, content_type="application/json")
    assert response.status_code == 200
    partial = response.get_json().get("partialSuccess", {})
    assert int(partial.get("rejectedSpans", 0)) == 0
    assert partial.get("errorMessage", "").startswith("1 " + message if message else "")
    found = {span["trace.span_id"]: span for span in spans_of(client)}
    assert len(found) == 2
    one = found[f"{1:016x}"]
    assert {name: one[name] for name in stored} == stored
    assert ("dropped_attributes_count" in one) == ("dropped_attributes_count" in stored)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"traceId": "not hex"}, "spans[0].traceId must be hexadecimal"),
        ({"traceId": "ab"}, "a trace ID must have 16 bytes"),
        ({"name": 7}, "spans[0].name must be a string"),
        ({"attributes": {}}, "spans[0].attributes must be a list"),
        ({"startTimeUnixNano": "soon"}, "startTimeUnixNano must be an integer"),
    ],
)
def test_a_bad_span_in_json_is_left_out_with_the_reason(
    client: FlaskClient, fields: dict[str, Any], message: str
) -> None:
    response = client.post("/v1/traces", json=export(json_span(1) | fields, json_span(2)))
    partial = response.get_json()["partialSuccess"]
    assert partial["rejectedSpans"] == "1"
    assert message in partial["errorMessage"]
    assert [span["name"] for span in spans_of(client)] == ["span-2"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"attributes": attributes(x={"boolValue": "yes"}, y="stored")},
            "spans[0].attributes[0].value.boolValue must be",
        ),
        ({"attributes": attributes(x={"stringValue": "DEEP"}, y="stored")}, "nested too deeply"),
    ],
)
def test_a_bad_attribute_in_json_is_left_out_of_its_span(
    client: FlaskClient, fields: dict[str, Any], message: str
) -> None:
    deep = '{"arrayValue": {"values": [' * 20_000 + '"]}", 1' + "]}}" * 20_000
    body = json.dumps(export(json_span(1) | fields, json_span(2))).replace('{"stringValue": "DEEP"}', deep)
    partial = client.post("/v1/traces", data=body, content_type="application/json").get_json()["partialSuccess"]
    assert "rejectedSpans" not in partial
    assert partial["errorMessage"].startswith("1 left out: ")
    assert message in partial["errorMessage"]
    first, second = spans_of(client)
    assert (first["y"], second["name"]) == ("stored", "span-2")


def test_invalid_spans_and_resources_do_not_affect_others(client: FlaskClient) -> None:
    body: Any = export(json_span(1), json_span(2))
    group = body["resourceSpans"][0]
    group["resource"]["attributes"].insert(0, {"key": "host.name", "value": {"stringValue": 7}})
    group["scopeSpans"][0] |= {"scope": "mine", "spans": [None, *group["scopeSpans"][0]["spans"], 7]}
    partial = client.post("/v1/traces", json=body).get_json()["partialSuccess"]
    assert partial["rejectedSpans"] == "2"
    for message in ("resource.attributes[0].value.stringValue must be a string", "scope must be an object", "spans[3]"):
        assert message in partial["errorMessage"]
    assert [span["service.name"] for span in spans_of(client)] == ["backend", "backend"]


def test_the_number_of_reasons_is_limited(client: FlaskClient) -> None:
    spans = [json_span(number, name=7) for number in range(1, 500)]
    partial = client.post("/v1/traces", json=export(*spans)).get_json()["partialSuccess"]
    assert partial["rejectedSpans"] == "499"
    assert partial["errorMessage"].endswith("; 479 for other reasons")


@pytest.mark.parametrize("signal", ["Spans", "Logs", "Metrics"])
def test_null_is_an_export_of_nothing(client: FlaskClient, signal: str) -> None:
    path = f"/v1/{signal.lower().replace('spans', 'traces')}"
    assert client.post(path, json={f"resource{signal}": None}).status_code == 200
    assert client.post(path, json={"resource": None}).status_code == 400


def test_snake_case_names_and_hex_ids_are_accepted(client: FlaskClient) -> None:
    one = {
        "trace_id": TRACE,
        "span_id": f"{1:016x}",
        "parent_span_id": f"{9:016x}",
        "name": "snake",
        "start_time_unix_nano": str(START),
        "end_time_unix_nano": str(START + 1_000_000),
    }
    body = {"resource_spans": [{"scope_spans": [{"spans": [one]}]}]}
    assert client.post("/v1/traces", json=body).get_json() == {}
    (found,) = spans_of(client)
    assert (found["trace.span_id"], found["trace.parent_id"], found["duration_ms"]) == (f"{1:016x}", f"{9:016x}", 1.0)


def protobuf(*events: dict[str, Any]) -> bytes:
    return ExportTraceServiceRequest(resource_spans=resource_spans(events)).SerializeToString()


def test_text_that_is_not_utf8_is_repaired_in_protobuf(client: FlaskClient, store: Store) -> None:
    body = protobuf(span(0, name="1234!"), span(1, **{"app.x": "VALUE", "app.list": ["INNER"]}), span(2))
    for good in (b"1234!", b"VALUE", b"INNER"):
        body = body.replace(good, good[:3] + b"\xff" + good[4:])
    response = client.post("/v1/traces", data=body, content_type=PROTOBUF)
    partial = ExportTraceServiceResponse.FromString(response.data).partial_success
    assert (response.status_code, partial.rejected_spans) == (200, 0)
    assert partial.error_message.startswith("2 repaired: U+FFFD")
    first, second, third = all_spans(store, f"{1:032x}")
    assert first.name == "123\ufffd!"
    assert second.attributes == {"app.x": "VAL\ufffdE", "app.list": ["INN\ufffdR"]}
    assert third.name == "GET"


def test_only_a_span_that_is_not_protobuf_is_lost(client: FlaskClient, store: Store) -> None:
    whole = ExportTraceServiceRequest(resource_spans=resource_spans([span(0), span(1)]))
    broken = whole.SerializeToString().replace(b"GET", b"\xff\xff\xff", 1)
    client.post("/v1/traces", data=broken, content_type=PROTOBUF)
    assert store.counts()[0] == 2  # three bytes of text, repaired
    cut = whole.resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    body = whole.SerializeToString().replace(cut, b"\x0b" * len(cut), 1)
    response = client.post("/v1/traces", data=body, content_type=PROTOBUF)
    partial = ExportTraceServiceResponse.FromString(response.data).partial_success
    assert partial.rejected_spans == 1
    assert "cannot be read" in partial.error_message


def test_values_nested_too_deeply_are_left_out_of_their_span(client: FlaskClient, store: Store) -> None:
    value: Any = "deepest"
    for _ in range(32):
        value = {"k": value}
    response = client.post("/v1/traces", data=protobuf(span(0, **{"app.deep": value}), span(1)), content_type=PROTOBUF)
    assert response.status_code == 200
    spans = all_spans(store, f"{1:032x}")
    assert len(spans) == 2
    assert list(spans[0].attributes) == ["app.deep"]


def test_spans_sent_as_logs_get_an_explanation(client: FlaskClient, store: Store) -> None:
    response = client.post("/v1/logs", data=protobuf(span(0)), content_type=PROTOBUF)
    assert b"send spans to /v1/traces" in response.data
    assert store.counts() == (0, 0)


def test_old_instrumentation_libraries_are_reported_in_protobuf_too(client: FlaskClient) -> None:
    old = b"\x0a\x05" + b"\xc2\x3e\x02\x0a\x00"  # resource_spans { 1000: {...} }
    response = client.post("/v1/traces", data=old, content_type=PROTOBUF)
    assert response.status_code == 400
    assert b"OTLP before 0.19" in response.data


def test_whole_numbers_stay_whole(client: FlaskClient, store: Store) -> None:
    prompt = "the same beginning " * 100
    trace_fields = {
        "traceState": "a=1",
        "droppedAttributesCount": 3,
        "droppedEventsCount": 4,
        "droppedLinksCount": 5,
    }
    spans = [json_span(n, attributes=attributes(prompt=f"{prompt}{n}")) | trace_fields for n in range(1, 4)]
    spans[0]["events"] = [
        {"name": "exception", "attributes": attributes(exception__stacktrace="at x\n" * 500 + "Caused by: disk full")}
    ]
    body = export(*spans)
    body["resourceSpans"][0]["scopeSpans"][0]["scope"]["attributes"] = attributes(library__language="go")
    client.post("/v1/traces", json=body)
    first = spans_of(client)[0]
    assert {name: first[name] for name in ("trace_state", "library.language", "prompt")} == {
        "trace_state": "a=1",
        "library.language": "go",
        "prompt": f"{prompt}1",
    }
    assert [first[f"dropped_{what}_count"] for what in ("attributes", "events", "links")] == [3, 4, 5]
    query = {
        "calculations": [{"op": "COUNT_DISTINCT", "column": "prompt"}],
        "filters": [{"column": "library.language", "op": "=", "value": "go"}],
        "start_time": START // 10**9,
    }
    response = client.post("/api/query", json=query).get_json()
    assert response["data"]["results"] == [{"data": {"COUNT_DISTINCT(prompt)": 3}}]
    assert [found.trace_id for found in store.traces(9, TraceFilter(text="caused BY: disk"))] == [TRACE]


def test_logs_are_stored_completely_with_time_and_severity(client: FlaskClient, store: Store) -> None:
    before = time.time_ns()
    records = [{"body": {"stringValue": "now"}, "severityText": "Warning", "eventName": "shop.sold"}]
    scope = {"name": "s", "attributes": attributes(library__language="go")}
    client.post("/v1/logs", json={"resourceLogs": [{"scopeLogs": [{"scope": scope, "logRecords": records}]}]})
    (log,) = store.logs(9, LogFilter(severity=13))
    assert before <= log.time_ns <= time.time_ns()
    assert (log.severity_number, log.event_name, log.scope.attributes) == (13, "shop.sold", {"library.language": "go"})
    (again,) = store.logs(9, LogFilter(event_name="shop.sold", attribute=("library.language", "go")))
    assert again.row == log.row
    query = store.parse({"breakdowns": ["event.name", "severity_text"]}, signal="logs")
    assert [group.key for group in store.query(query).groups] == [("shop.sold", "Warning")]


def test_links_work_in_both_directions(client: FlaskClient, store: Store) -> None:
    other = "ab" * 16
    client.post(
        "/v1/traces",
        json=export(json_span(1), json_span(2, trace=other, links=[{"traceId": TRACE, "spanId": f"{1:016x}"}])),
    )
    ((reference, span_id),) = store.links_to(TRACE)
    assert (reference.trace_id, reference.name, reference.service, span_id) == (other, "span-2", "backend", f"{1:016x}")
