"""Tests of what every route shares: health, errors, browsers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask, abort
from flask.testing import FlaskClient
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from backend.app import create_app

ORIGIN = "https://app.example.com:3000"
ALLOWED = "Access-Control-Allow-Origin"


@pytest.fixture
def app(app: Flask) -> Flask:
    @app.get("/fails")
    def fails() -> str:
        raise RuntimeError("the password is s3cret")

    @app.get("/unavailable")
    def unavailable() -> str:
        abort(503, description="Later, please")

    return app


@pytest.mark.parametrize("path", ["/api/health", "/api/health?deep=1"])
def test_health_returns_its_version_and_is_never_traced(client: FlaskClient, spans: Any, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json["status"]) == (200, "ok")
    assert re.fullmatch(r"\d+\.\d+\.\d+", response.json["version"])
    assert spans.all() == []


@pytest.mark.parametrize("path", ["/nowhere?next=/api/health", "/api/healthy", "/x/api/health", "//api/health"])
def test_only_the_health_route_is_not_traced(client: FlaskClient, spans: Any, path: str) -> None:
    client.get(path)
    assert [span.kind for span in spans.all()] == [SpanKind.SERVER]


def test_a_missing_page_returns_json_with_its_trace_id(client: FlaskClient, spans: Any) -> None:
    response = client.get("/nowhere")
    assert (response.status_code, response.content_type) == (404, "application/json")
    (request,) = spans.all()
    assert response.json["trace_id"] == trace.format_trace_id(request.context.trace_id)


def test_an_http_error_returns_json_with_its_reason_and_headers(client: FlaskClient, spans: Any) -> None:
    assert client.get("/unavailable").json["error"] == "Later, please"
    response = client.post("/unavailable")
    assert (response.status_code, response.content_type) == (405, "application/json")
    assert "GET" in response.headers["Allow"]


def test_an_exception_returns_json_without_its_message(
    client: FlaskClient, spans: Any, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.get("/fails")
    request = spans.named("GET /fails")
    assert (response.status_code, response.content_type) == (500, "application/json")
    assert response.json == {
        "error": "Internal Server Error",
        "trace_id": trace.format_trace_id(request.context.trace_id),
    }
    assert request.status.status_code is StatusCode.ERROR
    assert [event.attributes["exception.type"] for event in request.events] == ["RuntimeError"]
    assert "the password is s3cret" in caplog.text  # in the log


def test_an_exception_shows_its_traceback_in_debug_mode(spans: Any) -> None:
    app = create_app({"DEBUG": True})
    app.add_url_rule("/fails", view_func=lambda: 1 / 0)
    assert "ZeroDivisionError" in "".join(app.test_client().get("/fails").json["traceback"])


def test_a_listed_origin_may_read_responses_and_start_traces(spans: Any) -> None:
    client = create_app({"CORS_ORIGINS": f"http://[::1]:3000, {ORIGIN},"}).test_client()
    response = client.get("/nowhere", headers={"Origin": ORIGIN})
    assert response.headers[ALLOWED] == response.headers["Timing-Allow-Origin"] == ORIGIN
    assert {"traceresponse", "server-timing"} <= {*response.headers["Access-Control-Expose-Headers"].split(", ")}
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "traceparent, tracestate"}
    response = client.options("/nowhere", headers={"Origin": ORIGIN, **preflight})
    assert {"traceparent", "tracestate"} <= {*response.headers["Access-Control-Allow-Headers"].split(", ")}
    assert client.get("/nowhere", headers={"Origin": "http://[::1]:3000"}).headers[ALLOWED] == "http://[::1]:3000"


@pytest.mark.parametrize("origin", ["https://evil.example", f"{ORIGIN}1", f"{ORIGIN}.evil.example", "null"])
def test_another_origin_is_refused(spans: Any, origin: str) -> None:
    response = create_app({"CORS_ORIGINS": ORIGIN}).test_client().get("/nowhere", headers={"Origin": origin})
    assert not [name for name in response.headers.keys() if "Allow" in name]  # noqa: SIM118


@pytest.mark.parametrize("origins", ["app.example.com", "https://a.example/", "null", "https://*.example.com"])
def test_an_error_names_an_invalid_origin(spans: Any, origins: str) -> None:
    with pytest.raises(ValueError, match="CORS_ORIGINS"):
        create_app({"CORS_ORIGINS": origins})
