"""What the receiver accepts, and how it answers."""

import gzip
import json
from typing import Any

import pytest
from export import PROTOBUF, SECOND, START, TRACE, attributes, export, json_span
from flask.testing import FlaskClient
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from otlp_viewer.receive import body
from otlp_viewer.store import Store
from sender import trace


def test_a_json_span_becomes_a_wide_event_with_honeycombs_field_names(
    client: FlaskClient,
) -> None:
    span = json_span(
        2,
        parent=1,
        kind=3,
        traceId=TRACE.upper(),
        status={"code": 2, "message": "no"},
        attributes=attributes(http__route="/x", app__n={"intValue": "7"}, app__where="span"),
        events=[{"name": "retry", "timeUnixNano": str(START), "attributes": attributes(why="y")}],
        links=[{"traceId": "ab" * 16, "spanId": "cd" * 8}],
        aFieldOfTomorrow={"is": ["ignored"]},
    )
    response = client.post("/v1/traces", json=export(span))
    assert (response.status_code, response.json) == (200, {})
    found = client.get(f"/api/traces/{TRACE}").get_json()
    assert found["spans"] == [
        {
            "time": "2026-01-02T03:04:05.002000Z",
            "name": "span-2",
            "duration_ms": 2.5,
            "trace.trace_id": TRACE,
            "trace.span_id": "0000000000000002",
            "trace.parent_id": "0000000000000001",
            "service.name": "backend",
            "span.kind": "client",
            "status_code": 2,
            "status_message": "no",
            "error": True,
            "library.name": "backend",
            "library.version": "1.0",
            "events": [
                {
                    "name": "retry",
                    "time": "2026-01-02T03:04:05.000000Z",
                    "attributes": {"why": "y"},
                }
            ],
            "links": [{"trace_id": "ab" * 16, "span_id": "cd" * 8, "attributes": {}}],
            "http.route": "/x",
            "app.n": 7,
            "app.where": "span",
        }
    ]


def test_gzipped_protobuf_gets_a_protobuf_response(client: FlaskClient, store: Store) -> None:
    message = ExportTraceServiceRequest()
    span = message.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id = bytes.fromhex(TRACE), bytes([9] * 8)
    response = client.post(
        "/v1/traces",
        data=gzip.compress(message.SerializeToString()),
        headers={"Content-Type": PROTOBUF, "Content-Encoding": "gzip"},
    )
    assert (response.status_code, response.mimetype) == (200, PROTOBUF)
    assert ExportTraceServiceResponse.FromString(response.data) == ExportTraceServiceResponse()
    stored = trace(store, TRACE)
    assert stored
    assert stored["spans"][0]["trace.span_id"] == "09" * 8
    assert stored["service"] == "unknown_service"


def test_every_type_of_attribute_value_is_stored(client: FlaskClient) -> None:
    values = {
        "text": {"stringValue": "ü"},
        "yes": {"boolValue": True},
        "whole": {"intValue": "9007199254740993"},
        "broken": {"doubleValue": 0.5},
        "endless": {"doubleValue": "Infinity"},
        "bytes": {"bytesValue": "AP8="},
        "list": {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "b"}]}},
        "map": {"kvlistValue": {"values": [{"key": "k", "value": {"arrayValue": {}}}]}},
        "nothing": {},
    }
    client.post("/v1/traces", json=export(json_span(1, attributes=attributes(**values))))
    span = client.get(f"/api/traces/{TRACE}").get_json()["spans"][0]
    assert {name: span[name] for name in values} == {
        "text": "ü",
        "yes": True,
        "whole": 9007199254740993,
        "broken": 0.5,
        "endless": "inf",
        "bytes": "AP8=",
        "list": [1, "b"],
        "map": {"k": []},
        "nothing": None,
    }


def test_attributes_with_names_of_fields_get_a_prefix(client: FlaskClient) -> None:
    posing = {
        "trace.parent_id": "0000000000000009",
        "status_message": "posing",
        "error": "posing",
        "duration_ms": "posing",
        "service.name": "posing",
        "name": "posing",
        "status_code": "posing",
        "time": "posing",
    }
    pairs = [{"key": key, "value": {"stringValue": value}} for key, value in posing.items()]
    client.post("/v1/traces", json=export(json_span(1, attributes=pairs)))
    span = client.get(f"/api/traces/{TRACE}").get_json()["spans"][0]
    assert "trace.parent_id" not in span
    assert "status_message" not in span
    assert (span["error"], span["duration_ms"], span["status_code"]) == (False, 2.5, 0)
    assert (span["service.name"], span["name"]) == ("backend", "span-1")
    assert {name: span[f"attributes.{name}"] for name in posing} == posing
    query = {"filters": [{"column": "attributes.error", "op": "=", "value": "posing"}], "start_time": START // SECOND}
    assert client.post("/api/query", json=query).get_json()["data"]["results"] == [{"data": {"COUNT": 1}}]


def test_spans_with_bad_ids_are_rejected_and_others_stored(client: FlaskClient, store: Store) -> None:
    response = client.post(
        "/v1/traces",
        json=export(
            json_span(1),
            json_span(2, trace="00" * 16),
            json_span(3, trace="ab"),
            json_span(0),
            json_span(5, spanId=""),
            json_span(6, parentSpanId="abcd"),
        ),
    )
    assert response.status_code == 200
    partial = response.get_json()["partialSuccess"]
    assert partial["rejectedSpans"] == "5"
    assert "16 bytes" in partial["errorMessage"]
    assert store.counts() == (1, 0)


def test_logs_are_stored_with_their_trace(client: FlaskClient) -> None:
    records = [
        {
            "timeUnixNano": str(START),
            "severityNumber": 13,
            "severityText": "WARN",
            "body": {"stringValue": "careful"},
            "traceId": TRACE,
            "spanId": f"{1:016x}",
            "attributes": attributes(code__lineno={"intValue": "3"}),
        },
        {"observedTimeUnixNano": str(START), "body": {"stringValue": "of no trace"}},
    ]
    resource = {"attributes": attributes(service__name="profiles")}
    response = client.post(
        "/v1/logs",
        json={"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]},
    )
    assert (response.status_code, response.json) == (200, {})
    client.post("/v1/traces", json=export(json_span(1)))
    logs = client.get(f"/api/traces/{TRACE}").get_json()["logs"]
    assert logs == [
        {
            "time": "2026-01-02T03:04:05.000000Z",
            "severity_text": "WARN",
            "severity_number": 13,
            "body": "careful",
            "trace.trace_id": TRACE,
            "trace.span_id": "0000000000000001",
            "service.name": "profiles",
            "library.name": "",
            "library.version": "",
            "code.lineno": 3,
        }
    ]
    health = client.get("/api/health").get_json()
    assert (health["status"], health["spans"], health["logs"]) == ("ok", 1, 2)


def test_logs_are_decoded_from_protobuf_too(client: FlaskClient) -> None:
    message = ExportLogsServiceRequest()
    message.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "x"
    response = client.post("/v1/logs", data=message.SerializeToString(), content_type=PROTOBUF)
    assert response.status_code == 200
    assert client.get("/api/health").get_json()["logs"] == 1


@pytest.mark.parametrize("signal_name", ["traces", "logs", "metrics"])
def test_an_empty_export_is_a_full_success(client: FlaskClient, signal_name: str) -> None:
    in_json = client.post(f"/v1/{signal_name}", json={})
    assert (in_json.status_code, in_json.json) == (200, {})
    in_protobuf = client.post(f"/v1/{signal_name}", data=b"", content_type=PROTOBUF)
    assert (in_protobuf.status_code, in_protobuf.data) == (200, b"")


def deep_json(levels: int) -> bytes:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(levels):
        value = {"arrayValue": {"values": [value]}}
    return json.dumps(export(json_span(1, attributes=attributes(deep=value)))).encode()


@pytest.mark.parametrize("signal_name", ["traces", "logs", "metrics"])
@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"", "identity"),
        (b"{", "identity"),
        (b"[]", "identity"),
        (b"null", "identity"),
        (b'"\xff"', "identity"),
        (b"[" * 100_000, "identity"),
        (b"{}", "gzip"),
        (gzip.compress(b"{}" * 100, mtime=0)[:-9], "gzip"),
        (gzip.compress(b"{}", mtime=0)[:12] + b"\xff" * 20, "gzip"),
    ],
)
def test_a_json_body_that_cannot_be_decoded_is_answered_with_a_status(
    client: FlaskClient, signal_name: str, body: bytes, encoding: str
) -> None:
    response = client.post(
        f"/v1/{signal_name}",
        data=body,
        content_type="application/json",
        headers={"Content-Encoding": encoding},
    )
    assert (response.status_code, response.mimetype) == (400, "application/json")
    assert list(response.get_json()) == ["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"resourceSpans": 5}, "resourceSpans must be a list"),
        ({"resourceSpans": [None]}, "resourceSpans must be a list of objects"),
        ({"resourceLogs": []}, "send resourceLogs to /v1/logs, not to /v1/traces"),
        ({"resourceMetrics": []}, "send resourceMetrics to /v1/metrics"),
        ({"spans": [], "batch": 1}, 'it has no resourceSpans, only "spans", "batch"'),
        ({"resourceSpans": [{"instrumentationLibrarySpans": []}]}, "OTLP before 0.19"),
    ],
)
def test_json_that_is_not_an_export_is_rejected_with_the_reason(
    client: FlaskClient, store: Store, body: object, message: str
) -> None:
    response = client.post("/v1/traces", json=body)
    assert response.status_code == 400
    assert message in response.get_json()["message"]
    assert store.counts() == (0, 0)


def test_twenty_levels_of_nesting_are_kept(client: FlaskClient) -> None:
    response = client.post("/v1/traces", data=deep_json(20), content_type="application/json")
    assert response.status_code == 200
    span = client.get(f"/api/traces/{TRACE}").get_json()["spans"][0]
    assert json.dumps(span["deep"]) == "[" * 20 + '"x"' + "]" * 20


@pytest.mark.parametrize("signal_name", ["traces", "logs", "metrics"])
def test_a_protobuf_body_that_cannot_be_decoded_is_answered_with_a_protobuf_status(
    client: FlaskClient, signal_name: str
) -> None:
    response = client.post(f"/v1/{signal_name}", data=b"garbage", content_type=PROTOBUF)
    assert (response.status_code, response.mimetype) == (400, PROTOBUF)
    assert Status.FromString(response.data).message.startswith("not an OTLP")


def test_other_content_types_and_encodings_are_unsupported(client: FlaskClient) -> None:
    text = client.post("/v1/traces", data=b"{}", content_type="text/plain")
    assert (text.status_code, text.mimetype) == (415, "application/json")
    assert PROTOBUF in text.get_json()["message"]
    brotli = client.post("/v1/traces", json={}, headers={"Content-Encoding": "br"})
    assert brotli.status_code == 415
    assert "gzip" in brotli.get_json()["message"]


def test_a_body_over_the_limit_is_too_large_before_and_after_decompression(
    client: FlaskClient,
) -> None:
    plain = client.post("/v1/traces", data=bytes(body.MAX_BYTES + 1), content_type=PROTOBUF)
    assert plain.status_code == 413
    assert b"send fewer records at a time" in plain.data
    bomb = client.post(
        "/v1/traces",
        data=gzip.compress(bytes(body.MAX_BYTES + 1)),
        headers={"Content-Type": PROTOBUF, "Content-Encoding": "gzip"},
    )
    assert (bomb.status_code, bomb.mimetype) == (413, PROTOBUF)
    assert "decompressed" in Status.FromString(bomb.data).message
