"""The viewer: what it accepts, how it answers, and the trees it prints."""

import gzip
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from viewer import otlp, tree
from viewer.app import create_app
from viewer.store import Store

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SECOND = 1_000_000_000
START = 1_767_323_045 * SECOND  # 2026-01-02T03:04:05Z
PROTOBUF = "application/x-protobuf"


def json_span(number: int, parent: int = 0, trace: str = TRACE, **fields: Any) -> dict[str, Any]:
    """A span in OTLP's JSON; `number` makes its id, its name and its place in time."""
    span = {
        "traceId": trace,
        "spanId": f"{number:016x}",
        "name": f"span-{number}",
        "kind": 1,
        "startTimeUnixNano": str(START + number * 1_000_000),
        "endTimeUnixNano": str(START + number * 1_000_000 + 2_500_000),
    }
    if parent:
        span["parentSpanId"] = f"{parent:016x}"
    return span | fields


def attributes(**values: Any) -> list[dict[str, Any]]:
    """Attributes in OTLP's JSON: `__` in a name is a dot, a value that is no text an AnyValue."""
    return [
        {
            "key": name.replace("__", "."),
            "value": value if isinstance(value, dict) else {"stringValue": value},
        }
        for name, value in values.items()
    ]


def export(*spans: dict[str, Any], service: str = "backend-flask") -> dict[str, Any]:
    resource = {"attributes": attributes(service__name=service, app__where="resource")}
    scope = {"name": "backend", "version": "1.0"}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": list(spans)}]}]}


def event(number: int, parent: int = 0, trace: str = TRACE, **fields: Any) -> dict[str, Any]:
    """A span as the store keeps it."""
    span = {
        "time": f"2026-01-02T03:04:05.{number:06}Z",
        "name": f"span-{number}",
        "duration_ms": 2.5,
        "trace.trace_id": trace,
        "trace.span_id": f"{number:016x}",
        "service.name": "backend-flask",
        "error": False,
        "events": [],
    }
    if parent:
        span["trace.parent_id"] = f"{parent:016x}"
    return span | fields


def rendered(*spans: dict[str, Any], colour: bool = False) -> str:
    store = Store()
    store.add_spans(spans)
    found = store.trace(TRACE)
    assert found
    return tree.render(found, colour)


@pytest.fixture
def viewer_store() -> Store:
    return Store()


@pytest.fixture
def viewer_client(viewer_store: Store) -> FlaskClient:
    return create_app(viewer_store).test_client()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


# What comes in


def test_a_json_span_becomes_a_wide_event_with_honeycombs_field_names(
    viewer_client: FlaskClient,
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
    answer = viewer_client.post("/v1/traces", json=export(span))
    assert (answer.status_code, answer.json) == (200, {})
    found = viewer_client.get(f"/api/traces/{TRACE}").get_json()
    assert found["spans"] == [
        {
            "time": "2026-01-02T03:04:05.002000Z",
            "name": "span-2",
            "duration_ms": 2.5,
            "trace.trace_id": TRACE,
            "trace.span_id": "0000000000000002",
            "trace.parent_id": "0000000000000001",
            "service.name": "backend-flask",
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


def test_protobuf_in_gzip_is_answered_in_protobuf(viewer_client: FlaskClient, viewer_store: Store) -> None:
    message = ExportTraceServiceRequest()
    span = message.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id = bytes.fromhex(TRACE), bytes([9] * 8)
    answer = viewer_client.post(
        "/v1/traces",
        data=gzip.compress(message.SerializeToString()),
        headers={"Content-Type": PROTOBUF, "Content-Encoding": "gzip"},
    )
    assert (answer.status_code, answer.mimetype) == (200, PROTOBUF)
    assert ExportTraceServiceResponse.FromString(answer.data) == ExportTraceServiceResponse()
    kept = viewer_store.trace(TRACE)
    assert kept
    assert kept["spans"][0]["trace.span_id"] == "09" * 8
    assert kept["service"] == "unknown_service"


def test_every_kind_of_attribute_value_is_kept(viewer_client: FlaskClient) -> None:
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
    viewer_client.post("/v1/traces", json=export(json_span(1, attributes=attributes(**values))))
    span = viewer_client.get(f"/api/traces/{TRACE}").get_json()["spans"][0]
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


def test_attributes_cannot_pose_as_the_fields_of_a_span(viewer_client: FlaskClient) -> None:
    posing = {
        "trace.parent_id": "0000000000000009",
        "status_message": "posing",
        "error": "posing",
        "duration_ms": "posing",
        "service.name": "posing",
    }
    pairs = [{"key": key, "value": {"stringValue": value}} for key, value in posing.items()]
    viewer_client.post("/v1/traces", json=export(json_span(1, attributes=pairs)))
    span = viewer_client.get(f"/api/traces/{TRACE}").get_json()["spans"][0]
    assert "trace.parent_id" not in span
    assert "status_message" not in span
    assert (span["error"], span["duration_ms"]) == (False, 2.5)
    assert span["service.name"] == "backend-flask"


def test_spans_with_bad_ids_are_refused_and_the_others_kept(viewer_client: FlaskClient, viewer_store: Store) -> None:
    answer = viewer_client.post(
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
    assert answer.status_code == 200
    partial = answer.get_json()["partialSuccess"]
    assert partial["rejectedSpans"] == "5"
    assert "16 bytes" in partial["errorMessage"]
    assert viewer_store.counts() == (1, 0)


def test_logs_are_kept_beside_their_trace(viewer_client: FlaskClient) -> None:
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
    answer = viewer_client.post(
        "/v1/logs",
        json={"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]},
    )
    assert (answer.status_code, answer.json) == (200, {})
    viewer_client.post("/v1/traces", json=export(json_span(1)))
    logs = viewer_client.get(f"/api/traces/{TRACE}").get_json()["logs"]
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
    assert viewer_client.get("/api/health").get_json() == {"status": "ok", "spans": 1, "logs": 2}


def test_logs_are_decoded_from_protobuf_too(viewer_client: FlaskClient) -> None:
    message = ExportLogsServiceRequest()
    message.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "x"
    answer = viewer_client.post("/v1/logs", data=message.SerializeToString(), content_type=PROTOBUF)
    assert answer.status_code == 200
    assert viewer_client.get("/api/health").get_json()["logs"] == 1


@pytest.mark.parametrize("signal_name", ["traces", "logs", "metrics"])
def test_an_empty_export_is_a_full_success(viewer_client: FlaskClient, signal_name: str) -> None:
    in_json = viewer_client.post(f"/v1/{signal_name}", json={})
    assert (in_json.status_code, in_json.json) == (200, {})
    in_protobuf = viewer_client.post(f"/v1/{signal_name}", data=b"", content_type=PROTOBUF)
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
        (gzip.compress(b"{}" * 100)[:-9], "gzip"),
        (gzip.compress(b"{}")[:12] + b"\xff" * 20, "gzip"),
    ],
)
def test_a_json_body_that_cannot_be_decoded_is_answered_with_a_status(
    viewer_client: FlaskClient, signal_name: str, body: bytes, encoding: str
) -> None:
    answer = viewer_client.post(
        f"/v1/{signal_name}",
        data=body,
        content_type="application/json",
        headers={"Content-Encoding": encoding},
    )
    assert (answer.status_code, answer.mimetype) == (400, "application/json")
    assert list(answer.get_json()) == ["message"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"resourceSpans": 5}',
        b'{"resourceSpans": [null]}',
        json.dumps(export(json_span(1, traceId="not hex"))).encode(),
        json.dumps(export(json_span(1, name="\ud800"))).encode(),
        json.dumps(export(json_span(1, startTimeUnixNano="-1"))).encode(),
        deep_json(300),
    ],
)
def test_json_that_is_no_export_is_answered_with_a_status(
    viewer_client: FlaskClient, viewer_store: Store, body: bytes
) -> None:
    answer = viewer_client.post("/v1/traces", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert "ExportTraceServiceRequest" in answer.get_json()["message"]
    assert viewer_store.counts() == (0, 0)


def test_twenty_levels_of_nesting_are_kept(viewer_client: FlaskClient) -> None:
    answer = viewer_client.post("/v1/traces", data=deep_json(20), content_type="application/json")
    assert answer.status_code == 200
    span = viewer_client.get(f"/api/traces/{TRACE}").get_json()["spans"][0]
    assert json.dumps(span["deep"]) == "[" * 20 + '"x"' + "]" * 20


@pytest.mark.parametrize("signal_name", ["traces", "logs", "metrics"])
def test_a_protobuf_body_that_cannot_be_decoded_is_answered_with_a_protobuf_status(
    viewer_client: FlaskClient, signal_name: str
) -> None:
    answer = viewer_client.post(f"/v1/{signal_name}", data=b"garbage", content_type=PROTOBUF)
    assert (answer.status_code, answer.mimetype) == (400, PROTOBUF)
    assert Status.FromString(answer.data).message.startswith("not an Export")


def test_other_content_types_and_encodings_are_unsupported(viewer_client: FlaskClient) -> None:
    text = viewer_client.post("/v1/traces", data=b"{}", content_type="text/plain")
    assert (text.status_code, text.mimetype) == (415, "application/json")
    assert PROTOBUF in text.get_json()["message"]
    brotli = viewer_client.post("/v1/traces", json={}, headers={"Content-Encoding": "br"})
    assert brotli.status_code == 415
    assert "gzip" in brotli.get_json()["message"]


def test_a_body_over_the_limit_is_too_large_before_and_after_decompression(
    viewer_client: FlaskClient,
) -> None:
    plain = viewer_client.post("/v1/traces", data=bytes(otlp.MAX_BYTES + 1), content_type=PROTOBUF)
    assert plain.status_code == 413
    bomb = viewer_client.post(
        "/v1/traces",
        data=gzip.compress(bytes(otlp.MAX_BYTES + 1)),
        headers={"Content-Type": PROTOBUF, "Content-Encoding": "gzip"},
    )
    assert (bomb.status_code, bomb.mimetype) == (413, PROTOBUF)
    assert "decompressed" in Status.FromString(bomb.data).message


# What is answered


def test_traces_are_listed_newest_first_with_what_their_root_was(
    viewer_client: FlaskClient,
) -> None:
    other = "ab" * 16
    root = json_span(
        1,
        kind=2,
        name="GET /x",
        attributes=attributes(http__route="/x", http__response__status_code={"intValue": "503"}),
    )
    viewer_client.post("/v1/traces", json=export(json_span(7, trace=other, parent=6)))
    viewer_client.post("/v1/traces", json=export(json_span(2, parent=1, status={"code": 2}), service="profiles"))
    viewer_client.post("/v1/traces", json=export(root))
    listed = viewer_client.get("/api/traces").get_json()
    assert listed == [
        {
            "trace_id": other,
            "name": "span-7",
            "service": "backend-flask",
            "services": ["backend-flask"],
            "start": "2026-01-02T03:04:05.007000Z",
            "duration_ms": 2.5,
            "span_count": 1,
            "error": False,
            "complete": False,
        },
        {
            "trace_id": TRACE,
            "name": "GET /x",
            "service": "backend-flask",
            "services": ["backend-flask", "profiles"],
            "start": "2026-01-02T03:04:05.001000Z",
            "duration_ms": 2.5,
            "span_count": 2,
            "error": True,
            "complete": True,
            "route": "/x",
            "status": 503,
        },
    ]
    assert viewer_client.get("/api/traces?limit=1").get_json() == listed[:1]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "1.5", "ten", "", "\uff11\uff10", "1_0", "9" * 5000])
def test_a_limit_out_of_range_is_refused(viewer_client: FlaskClient, limit: str) -> None:
    answer = viewer_client.get("/api/traces", query_string={"limit": limit})
    assert answer.status_code == 400
    assert "1 to 1000" in answer.get_json()["error"]


def test_a_trace_is_answered_in_tree_order(viewer_client: FlaskClient) -> None:
    spans = [json_span(4, 1), json_span(5, 2), json_span(3, 2), json_span(2, 1), json_span(1)]
    viewer_client.post("/v1/traces", json=export(*spans))
    found = viewer_client.get(f"/api/traces/{TRACE.upper()}").get_json()
    assert [span["name"] for span in found["spans"]] == [f"span-{n}" for n in (1, 2, 3, 5, 4)]
    assert (found["complete"], found["span_count"], found["logs"]) == (True, 5, [])


def test_a_trace_is_answered_as_text_when_that_is_asked_for(viewer_client: FlaskClient) -> None:
    viewer_client.post("/v1/traces", json=export(json_span(1), json_span(2, 1)))
    answer = viewer_client.get(f"/api/traces/{TRACE}", headers={"Accept": "text/plain"})
    assert answer.mimetype == "text/plain"
    assert answer.text.startswith("span-1  backend-flask")
    assert "\n└─ span-2" in answer.text
    assert viewer_client.get(f"/api/traces/{TRACE}", headers={"Accept": "*/*"}).is_json


def test_errors_are_json(viewer_client: FlaskClient) -> None:
    for path, code in (
        ("/api/traces/xyz", 400),
        ("/api/traces/" + "ab" * 16, 404),
        ("/api/nowhere", 404),
    ):
        answer = viewer_client.get(path)
        assert (answer.status_code, list(answer.get_json())) == (code, ["error"])
    assert viewer_client.delete("/api/traces").get_json()["error"]
    assert viewer_client.get("/v1/traces").status_code == 405
    assert viewer_client.get("/v1/traces").get_json()["message"]


@pytest.mark.parametrize("path", ["/api/traces", "/api/health", "/nowhere"])
def test_foreign_hosts_are_refused(viewer_client: FlaskClient, path: str) -> None:
    for host in ("evil.example", "localhost.evil.example", "evil.example:4318", "[::2]", "a b"):
        answer = viewer_client.get(path, headers={"Host": host})
        assert answer.status_code == 403, host
        assert "VIEWER_ALLOWED_HOSTS" in answer.get_json()["error"]


def test_foreign_hosts_cannot_send_either(viewer_client: FlaskClient, viewer_store: Store) -> None:
    answer = viewer_client.post("/v1/traces", json=export(json_span(1)), headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert "VIEWER_ALLOWED_HOSTS" in answer.get_json()["message"]
    assert viewer_store.counts() == (0, 0)


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:4318", "127.0.0.1:4318", "[::1]", "[::1]:4318", "viewer:4318"]
)
def test_local_hosts_are_answered(viewer_client: FlaskClient, host: str) -> None:
    assert viewer_client.get("/api/health", headers={"Host": host}).status_code == 200


def test_more_hosts_can_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIEWER_ALLOWED_HOSTS", "My.Host, .gitpod.io,")
    client = create_app().test_client()
    for host, code in (
        ("my.host", 200),
        ("4318-x.ws.gitpod.io", 200),
        ("notgitpod.io", 403),
        ("", 403),
    ):
        assert client.get("/api/health", headers={"Host": host}).status_code == code, host


# What is kept


def test_the_oldest_spans_and_logs_go_first() -> None:
    store = Store(max_spans=3)
    store.add_spans(event(n, trace=f"{n:032x}") for n in range(1, 6))
    store.add_logs({"time": "", "trace.trace_id": f"{n:032x}", "body": n} for n in range(1, 6))
    store.add_logs([{"time": "", "body": "of no trace"}])
    assert store.counts() == (3, 3)
    assert store.trace(f"{2:032x}") is None
    assert [found["name"] for found in store.traces(10)] == ["span-5", "span-4", "span-3"]
    third, fourth = store.trace(f"{3:032x}"), store.trace(f"{4:032x}")
    assert third
    assert fourth
    assert [len(third["logs"]), len(fourth["logs"])] == [0, 1]


def test_a_span_that_is_sent_again_is_counted_once() -> None:
    store = Store(max_spans=2)
    for _ in range(3):
        store.add_spans([event(1), event(2, parent=1)])
    assert store.counts() == (2, 0)
    store.add_spans([event(3, parent=1)])
    found = store.trace(TRACE)
    assert found
    assert [span["name"] for span in found["spans"]] == ["span-2", "span-3"]
    assert found["complete"] is False


def test_a_trace_without_its_root_lasts_from_its_first_start_to_its_last_end() -> None:
    store = Store()
    store.add_spans([event(1000, parent=9), event(5000, parent=9, duration_ms=3.0)])
    assert store.traces(1)[0]["duration_ms"] == 7.0
    assert store.traces(1)[0]["name"] == "span-1000"


# What is printed


def test_a_trace_is_drawn_as_a_tree() -> None:
    text = rendered(
        event(
            1,
            name="GET /home",
            duration_ms=14.2,
            **{"http.route": "/home", "http.response.status_code": 200},
        ),
        event(2, 1, name="home-activities-mock-data", **{"app.result_length": 3, "other": 1}),
        event(3, 2, name="GET", **{"url.full": "http://127.0.0.1:4568/", "app.title": "two words"}),
        event(4, 3, name="GET /profiles", **{"service.name": "profiles"}),
        event(5, 4, name="look-up", duration_ms=0.01, **{"service.name": "profiles"}),
        event(6, 1, name="render"),
    )
    assert text == (
        f"GET /home  200  backend-flask     14.2 ms  trace {TRACE}\n"
        "├─ home-activities-mock-data       2.5 ms  app.result_length=3\n"
        '│  └─ GET http://127.0.0.1:4568/   2.5 ms  app.title="two words"\n'
        "│     └─ GET /profiles  profiles   2.5 ms\n"
        "│        └─ look-up               <0.1 ms\n"
        "└─ render                          2.5 ms\n"
    )


def test_an_error_is_marked_with_its_exception_or_its_message() -> None:
    raised = {
        "name": "exception",
        "attributes": {"exception.type": "ValueError", "exception.message": "no such feed"},
    }
    text = rendered(
        event(1, error=True, events=[raised], status_message="not this"),
        event(2, 1, error=True, status_message="timed out"),
        event(3, 1, error=False, events=[raised]),
    )
    first, second, third = text.splitlines()
    assert "✗ ValueError: no such feed" in first
    assert "not this" not in first
    assert "✗ timed out" in second
    assert "✗" not in third


def test_a_missing_parent_is_said() -> None:
    lines = rendered(event(1), event(3, parent=2), event(4, parent=3)).splitlines()
    assert "parent not received" not in lines[0]
    assert lines[1].startswith("span-3")
    assert lines[1].endswith("parent not received")
    assert lines[2].startswith("└─ span-4")


def test_nothing_in_a_span_can_steer_the_terminal() -> None:
    evil = "a\x1b[2J\x1b]0;t\x07\r\n\x9b1m\u202e\u2066\u200b\u2028b"
    raised = {"name": "exception", "attributes": {"exception.message": evil}}
    text = rendered(
        event(
            1,
            name=evil,
            error=True,
            events=[raised],
            **{
                "service.name": evil,
                "url.full": evil,
                "app.list": [evil, {evil: 1}],
                "app." + evil: evil,
            },
        )
    )
    assert text.count("\n") == 1
    assert text.rstrip("\n").isprintable()
    assert r"a\x1b[2J" in text
    assert r"\u202e" in text


def test_long_values_and_many_attributes_are_cut() -> None:
    many = {f"app.n{n}": "x" * 1_000_000 for n in range(50)}
    text = rendered(event(1, name="n" * 1_000_000, **many))
    assert len(text) < 2_000
    assert "nnn…" in text
    assert "… 38 more" in text


def test_a_circle_of_parents_is_drawn_once_and_ends() -> None:
    lines = rendered(event(1, parent=2), event(2, parent=1), event(3, parent=3)).splitlines()
    assert len(lines) == 3
    assert lines[0].endswith("its parents form a circle")


@pytest.mark.parametrize("parent_of", [lambda n: n - 1, lambda n: int(n > 1)])
def test_huge_traces_are_drawn_without_recursion_and_cut(parent_of: Any) -> None:
    text = rendered(*(event(n, parent_of(n)) for n in range(1, 20_001)))
    lines = text.splitlines()
    assert lines[-1] == "… 19800 more spans"
    assert len(lines) == 201
    assert max(map(len, lines)) < 150


def test_colours_need_a_terminal_or_to_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert tree.wants_colour(Terminal())
    assert not tree.wants_colour(io.StringIO())
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert tree.wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not tree.wants_colour(Terminal())


def test_colours_change_nothing_but_colours() -> None:
    spans = [event(1, **{"http.response.status_code": 200}), event(2, 1, **{"app.n": 1})]
    coloured = rendered(*spans, colour=True)
    assert "\x1b[32m  200\x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == rendered(*spans)


def printed(encoding: str, *spans: dict[str, Any]) -> str:
    store = Store()
    store.add_spans(spans)
    raw = io.BytesIO()
    printer = tree.Printer(store.trees, io.TextIOWrapper(raw, encoding, newline="\n"))
    found = store.trace(TRACE)
    assert found
    printer.print(found)
    return raw.getvalue().decode(encoding)


def test_an_encoding_without_line_drawing_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    spans = [event(1), event(2, 1, name="ж", error=True), event(3, 1)]
    assert "├─ ж" in printed("utf-8", *spans)
    text = printed("ascii", *spans)
    assert "|- \\u0436" in text
    assert "`- span-3" in text
    assert "x" in text


# When it is printed


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def printer(viewer_store: Store, clock: Clock) -> tree.Printer:
    return tree.Printer(viewer_store.trees, io.StringIO(), clock)


def names(traces: list[dict[str, Any]]) -> list[str]:
    return [trace["name"] for trace in traces]


def test_a_complete_trace_is_finished_after_a_quiet_second(
    viewer_store: Store, printer: tree.Printer, clock: Clock
) -> None:
    viewer_store.add_spans([event(2, parent=1)])
    printer.received({TRACE})
    clock.now += 0.9
    viewer_store.add_spans([event(1)])
    printer.received({TRACE})
    clock.now += 0.9
    assert printer.finished() == []
    clock.now += 0.1
    assert names(printer.finished()) == ["span-1"]


def test_an_incomplete_trace_is_given_up_after_five_seconds(
    viewer_store: Store, printer: tree.Printer, clock: Clock
) -> None:
    viewer_store.add_spans([event(2, parent=1)])
    printer.received({TRACE})
    clock.now += 4.9
    assert printer.finished() == []
    clock.now += 0.1
    assert names(printer.finished()) == ["span-2"]


def test_a_trace_whose_root_comes_late_is_finished_a_second_later(
    viewer_store: Store, printer: tree.Printer, clock: Clock
) -> None:
    viewer_store.add_spans([event(2, parent=1)])
    printer.received({TRACE})
    clock.now += 3
    assert printer.finished() == []
    viewer_store.add_spans([event(1)])
    printer.received({TRACE})
    clock.now += 1
    assert names(printer.finished()) == ["span-1"]


def test_a_trace_is_finished_once(viewer_store: Store, printer: tree.Printer, clock: Clock) -> None:
    viewer_store.add_spans([event(1)])
    printer.received({TRACE})
    clock.now += 1
    assert len(printer.finished()) == 1
    viewer_store.add_spans([event(2, parent=1)])
    printer.received({TRACE})
    clock.now += 60
    assert printer.finished() == []


def test_an_incomplete_trace_does_not_hold_up_others(viewer_store: Store, printer: tree.Printer, clock: Clock) -> None:
    viewer_store.add_spans([event(2, parent=1)])
    printer.received({TRACE})
    clock.now += 1
    assert printer.finished() == []
    viewer_store.add_spans([event(3, trace="ab" * 16)])
    printer.received({"ab" * 16})
    clock.now += 1
    assert names(printer.finished()) == ["span-3"]


def test_of_many_traces_at_once_the_newest_are_finished_and_the_others_counted(
    viewer_store: Store, printer: tree.Printer, clock: Clock
) -> None:
    ids = [f"{number:032x}" for number in range(1, 200)]
    viewer_store.add_spans(event(number, trace=trace_id) for number, trace_id in enumerate(ids, 1))
    for trace_id in ids:
        printer.received({trace_id})
    clock.now += 1
    assert [trace["trace_id"] for trace in printer.finished()] == ids[-tree.MOST_AT_ONCE :]
    assert printer.left_out == len(ids) - tree.MOST_AT_ONCE
    assert printer.finished() == []


def test_a_trace_that_the_store_has_dropped_is_not_finished(printer: tree.Printer, clock: Clock) -> None:
    printer.received({TRACE})
    clock.now += 10
    assert printer.finished() == []


# Running it


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_viewer(**settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "viewer"],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


@pytest.fixture
def running_viewer() -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    with start_viewer(VIEWER_PORT=str(port)) as process:
        # A line that never comes must fail the test, not hang it.
        watchdog = threading.Timer(30, process.kill)
        watchdog.start()
        yield process, port
        watchdog.cancel()
        process.kill()


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "4318 x"])
def test_a_bad_port_is_one_clear_line(port: str) -> None:
    process = start_viewer(VIEWER_PORT=port)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)
    assert f"VIEWER_PORT is '{port}'" in err


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start_viewer(VIEWER_PORT=str(taken.getsockname()[1]))
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (1, "", 1)
    assert "cannot listen on 127.0.0.1" in err
    assert "VIEWER_PORT" in err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to handle")
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_viewer_prints_what_it_is_sent_and_stops_when_told(
    running_viewer: tuple[subprocess.Popen[str], int], stop: signal.Signals
) -> None:
    process, port = running_viewer
    assert process.stdout
    assert f"http://127.0.0.1:{port}/" in process.stdout.readline()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    body = json.dumps(export(json_span(1), json_span(2, 1)))
    connection.request("POST", "/v1/traces", body, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200
    assert process.stdout.readline().startswith("span-1  backend-flask")
    assert process.stdout.readline().startswith("└─ span-2")
    told = time.monotonic()
    process.send_signal(stop)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert time.monotonic() - told < 5
