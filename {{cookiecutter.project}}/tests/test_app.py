"""The application whatever it does: health, the trace of an answer, queries, errors, callers from a browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import requests
from flask import Flask, abort
from flask.testing import FlaskClient
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from work import WORK, create_app

if TYPE_CHECKING:
    from conftest import Server, Spans


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def trace_of(span: ReadableSpan) -> str:
    assert span.context
    return trace.format_trace_id(span.context.trace_id)


def everything(span: ReadableSpan) -> str:
    return span.to_json()


# The trace of an answer


@pytest.mark.parametrize("path", [WORK, "/nowhere"])
def test_every_traced_answer_says_which_trace_it_belongs_to(client: FlaskClient, spans: Spans, path: str) -> None:
    answer = client.get(path)
    (request,) = [span for span in spans.all() if span.kind is SpanKind.SERVER]
    assert request.context
    ids = f"{trace_of(request)}-{trace.format_span_id(request.context.span_id)}"
    traceresponse = answer.headers["traceresponse"]
    assert re.fullmatch(rf"00-{ids}-0[13]", traceresponse)
    assert answer.headers["Server-Timing"] == f'traceparent;desc="{traceresponse}"'


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_path_that_nothing_matches_is_named_by_its_method(client: FlaskClient, spans: Spans, method: str) -> None:
    assert client.open("/wp-login.php", method=method).status_code == 404
    assert spans.names() == [method]
    assert "http.route" not in attributes(spans.all()[0])
    assert attributes(spans.all()[0])["url.path"] == "/wp-login.php"


def test_a_method_that_no_route_takes_is_named_by_itself(client: FlaskClient, spans: Spans) -> None:
    client.post(WORK)
    assert spans.names() == ["POST"]


def test_an_unknown_method_does_not_become_a_name(client: FlaskClient, spans: Spans) -> None:
    client.open(WORK, method="BREW")
    assert not any("BREW" in name for name in spans.names())


# Health


def test_health_says_which_version_runs(client: FlaskClient) -> None:
    answer = client.get("/api/health")
    assert answer.status_code == 200
    assert answer.json["status"] == "ok"
    assert re.fullmatch(r"\d+\.\d+\.\d+", answer.json["version"])


@pytest.mark.parametrize("host", ["", "a b", "[::1]:4567", "\xe9vil", "x/y"])
def test_health_is_never_traced_whatever_a_stranger_calls_the_host(
    client: FlaskClient, spans: Spans, host: str
) -> None:
    client.get("/api/health", environ_overrides={"HTTP_HOST": host})
    assert spans.all() == []


def test_baggage_that_is_none_is_no_line_in_the_log(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    assert client.get(WORK, headers={"baggage": "\xff=1," + "k=v," * 300}).status_code == 200
    assert [record for record in caplog.records if "aggage" in record.getMessage()] == []


@pytest.mark.parametrize("path", ["/api/health", "/api/health?deep=1", "/api/health?"])
def test_health_is_never_traced(client: FlaskClient, spans: Spans, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert spans.all() == []
    assert "traceresponse" not in answer.headers
    assert "Server-Timing" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        f"{WORK}?next=/api/health",
        f"{WORK}?//x/api/health",
        f"{WORK}?next=http://x/api/health",
        "/api/healthy",
        "/x/api/health",
        "/api/health/x",
        "//api/health",
    ],
)
def test_nothing_but_the_health_route_escapes_tracing(client: FlaskClient, spans: Spans, path: str) -> None:
    client.get(path)
    assert len([span for span in spans.all() if span.kind is SpanKind.SERVER]) == 1


@pytest.mark.parametrize("host", ["x/api/health?", "x/api/health#", "api/health"])
def test_a_made_up_host_does_not_hide_a_request(client: FlaskClient, spans: Spans, host: str) -> None:
    client.get(WORK, headers={"Host": host})
    assert len([span for span in spans.all() if span.kind is SpanKind.SERVER]) == 1


@pytest.mark.parametrize("variable", ["OTEL_PYTHON_FLASK_EXCLUDED_URLS", "OTEL_PYTHON_EXCLUDED_URLS"])
def test_the_standard_variables_exclude_more_than_health(
    spans: Spans, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "work,elsewhere")
    client = create_app().test_client()
    client.get("/api/health")
    assert client.get(WORK).status_code == 200
    assert not [span for span in spans.all() if span.kind is SpanKind.SERVER]
    client.get("/nowhere")
    assert [span.name for span in spans.all() if span.kind is SpanKind.SERVER] == ["GET"]


# Queries


@pytest.mark.parametrize("path", [WORK, "/nowhere"])
def test_a_query_is_on_no_server_span(client: FlaskClient, spans: Spans, path: str) -> None:
    client.get(f"{path}?token=s3cret&name=andrew")
    (request,) = [span for span in spans.all() if span.kind is SpanKind.SERVER]
    assert attributes(request)["url.query"] == "REDACTED"
    assert not any("s3cret" in everything(span) for span in spans.all())


def test_a_query_of_a_failing_request_is_on_no_span(app: Flask, spans: Spans) -> None:
    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("broken")

    app.test_client().get("/broken?token=s3cret")
    assert attributes(spans.named("GET /broken"))["url.query"] == "REDACTED"
    assert not any("s3cret" in everything(span) for span in spans.all())


def test_a_request_without_a_query_has_none_to_redact(client: FlaskClient, spans: Spans) -> None:
    client.get(WORK)
    assert "REDACTED" not in everything(spans.named(f"GET {WORK}"))


def test_a_query_and_a_password_are_on_no_client_span(spans: Spans, server: Server) -> None:
    url = server.url.replace("http://", "http://me:pa55word@")
    requests.get(f"{url}/x?token=s3cret", timeout=10)
    assert server.received[0].path == "/x?token=s3cret"
    call = spans.named("GET")
    assert attributes(call)["url.full"].endswith("/x?REDACTED")
    assert "s3cret" not in everything(call)
    assert "pa55word" not in everything(call)


def test_a_call_without_a_query_keeps_its_address(spans: Spans, server: Server) -> None:
    requests.get(f"{server.url}/x", timeout=10)
    assert attributes(spans.named("GET"))["url.full"] == f"{server.url}/x"


# Errors


def test_a_missing_page_is_json_with_the_trace_in_which_to_look(client: FlaskClient, spans: Spans) -> None:
    answer = client.get("/nowhere")
    assert answer.status_code == 404
    assert answer.content_type == "application/json"
    assert answer.json["error"]
    assert answer.json["trace_id"] == trace_of(spans.named("GET"))


def test_a_wrong_method_is_json_and_says_which_are_right(client: FlaskClient, spans: Spans) -> None:
    answer = client.post(WORK)
    assert (answer.status_code, answer.content_type) == (405, "application/json")
    assert {"GET", "HEAD"} <= {method.strip() for method in answer.headers["Allow"].split(",")}
    assert answer.json["trace_id"] == trace_of(spans.named("POST"))


def test_a_refusal_keeps_the_headers_that_belong_to_it(app: Flask) -> None:
    @app.get("/busy")
    def busy() -> None:
        from werkzeug.exceptions import TooManyRequests

        raise TooManyRequests(retry_after=7)

    answer = app.test_client().get("/busy")
    assert (answer.status_code, answer.headers["Retry-After"], answer.content_type) == (429, "7", "application/json")


@pytest.mark.parametrize("testing", [True, False])
def test_a_fault_is_json_without_its_reason(spans: Spans, testing: bool) -> None:
    app = create_app({"TESTING": testing})

    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("the password is s3cret")

    answer = app.test_client().get("/broken")
    assert (answer.status_code, answer.content_type) == (500, "application/json")
    request = spans.named("GET /broken")
    assert answer.json == {"error": "Internal Server Error", "trace_id": trace_of(request)}
    assert request.status.status_code is StatusCode.ERROR
    (event,) = [event for event in request.events if event.name == "exception"]
    assert event.attributes
    assert event.attributes["exception.type"] == "RuntimeError"


def test_a_fault_shows_its_traceback_in_debug(spans: Spans) -> None:
    app = create_app({"DEBUG": True})

    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("for who develops")

    answer = app.test_client().get("/broken")
    assert answer.status_code == 500
    assert "RuntimeError: for who develops" in "".join(answer.json["traceback"])
    assert answer.json["trace_id"] == trace_of(spans.named("GET /broken"))


def test_a_fault_is_logged_with_its_traceback(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/broken")
    def broken() -> str:
        raise RuntimeError("for the log")

    app.test_client().get("/broken")
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info
    assert "for the log" in caplog.text


def test_a_deliberate_500_is_json(app: Flask) -> None:
    @app.get("/deliberate")
    def deliberate() -> None:
        abort(500)

    answer = app.test_client().get("/deliberate")
    assert (answer.status_code, answer.content_type) == (500, "application/json")
    assert answer.json["trace_id"]


def test_an_error_outside_of_a_trace_has_no_trace_id(client: FlaskClient, spans: Spans) -> None:
    answer = client.post("/api/health")
    assert (answer.status_code, answer.json["trace_id"]) == (405, None)
    assert spans.all() == []


# Browsers

ORIGIN = "https://app.example.com:3000"
PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "traceparent, tracestate"}
ALLOWED = "Access-Control-Allow-Origin"


def allowed(listed: str, origin: str) -> str | None:
    client = create_app({"CORS_ORIGINS": listed}).test_client()
    return client.get("/api/health", headers={"Origin": origin}).headers.get(ALLOWED)


def test_a_named_origin_may_read_answers_and_begin_traces(spans: Spans) -> None:
    client = create_app({"CORS_ORIGINS": f"http://localhost:3000, {ORIGIN},"}).test_client()
    answer = client.get(WORK, headers={"Origin": ORIGIN})
    assert answer.headers[ALLOWED] == answer.headers["Timing-Allow-Origin"] == ORIGIN
    exposed = answer.headers["Access-Control-Expose-Headers"].lower()
    assert {"traceresponse", "server-timing"} <= {name.strip() for name in exposed.split(",")}
    asked = client.options(WORK, headers={"Origin": ORIGIN, **PREFLIGHT})
    sendable = asked.headers["Access-Control-Allow-Headers"].lower()
    assert {"traceparent", "tracestate"} <= {name.strip() for name in sendable.split(",")}


def test_errors_can_be_read_by_a_named_origin_too(spans: Spans) -> None:
    client = create_app({"CORS_ORIGINS": ORIGIN}).test_client()
    assert client.get("/nowhere", headers={"Origin": ORIGIN}).headers[ALLOWED] == ORIGIN


@pytest.mark.parametrize(
    "origin", ["https://evil.example", f"{ORIGIN}1", f"{ORIGIN}.evil.example", "https://appxexample.com:3000", "null"]
)
def test_an_origin_that_is_not_named_is_refused(spans: Spans, origin: str) -> None:
    client = create_app({"CORS_ORIGINS": ORIGIN}).test_client()
    for answer in (
        client.get(WORK, headers={"Origin": origin}),
        client.options(WORK, headers={"Origin": origin, **PREFLIGHT}),
    ):
        assert not [name for name, _ in answer.headers if name.startswith(("Access-Control-Allow", "Timing-Allow"))]


def test_no_origin_is_allowed_unless_some_are_named(client: FlaskClient) -> None:
    assert ALLOWED not in client.get(WORK, headers={"Origin": ORIGIN}).headers


def test_the_environment_names_origins(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", ORIGIN)
    assert create_app().test_client().get(WORK, headers={"Origin": ORIGIN}).headers[ALLOWED] == ORIGIN


def test_a_star_allows_every_origin(spans: Spans) -> None:
    assert allowed("*", "https://anyone.example") in {"*", "https://anyone.example"}


def test_an_origin_with_an_ipv6_address_is_allowed_as_it_is_named(spans: Spans) -> None:
    assert allowed("http://[::1]:3000", "http://[::1]:3000") == "http://[::1]:3000"
    assert allowed("http://[::1]:3000", "http://1:3000") is None


@pytest.mark.parametrize("listed", ["https://*.example.com", "https://(a|example).com", "https://a.example$"])
def test_what_an_origin_names_is_never_taken_for_a_pattern(spans: Spans, listed: str) -> None:
    try:
        found = [allowed(listed, other) for other in ("https://xexample.com", "https://example.com.evil.example")]
    except ValueError:
        return  # refused: as good
    assert found == [None, None]


@pytest.mark.parametrize(
    "listed",
    [
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/path",
        "ftp://app.example.com",
        "https://",
        "https://a.example:port",
        "https://user@a.example",
        "null",
        "http://localhost:3000 http://localhost:3001",
        "http://localhost:3000,nonsense",
        '"http://localhost:3000"',
    ],
)
def test_a_bad_origin_is_refused_by_name_when_the_application_is_made(spans: Spans, listed: str) -> None:
    with pytest.raises(ValueError, match="CORS_ORIGINS") as refused:
        create_app({"CORS_ORIGINS": listed})
    assert repr(listed.split(",")[-1]) in str(refused.value)
