"""The backend over HTTP: what it answers, what it traces, and what happens without profiles."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest
import requests
from flask import Flask, abort
from flask.testing import FlaskClient
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from werkzeug.serving import make_server

from backend import profile_lookup
from backend.app import create_app
from profiles.app import create_app as create_profiles_app

if TYPE_CHECKING:
    from conftest import Server, Spans

HOME = "/api/activities/home"
WORK = "home-activities-mock-data"
ANDREW = {"name": "Andrew Brown", "title": "Captain"}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def is_child(child: ReadableSpan, parent: ReadableSpan) -> bool:
    assert child.context
    assert parent.context
    return (
        child.parent is not None
        and child.parent.span_id == parent.context.span_id
        and child.context.trace_id == parent.context.trace_id
    )


def trace_of(span: ReadableSpan) -> str:
    assert span.context
    return trace.format_trace_id(span.context.trace_id)


def everything(span: ReadableSpan) -> str:
    return span.to_json()


def client_with(profiles_url: str, **config: Any) -> FlaskClient:
    return create_app({"TESTING": True, "PROFILES_URL": profiles_url, **config}).test_client()


def unused_url() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def profiles_service(spans: Spans) -> Iterator[str]:
    service = make_server("127.0.0.1", 0, create_profiles_app(), threaded=True)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{service.server_port}"
    service.shutdown()
    service.server_close()
    thread.join()


# Routes


def test_home_lists_activities_each_with_its_authors_profile(client: FlaskClient) -> None:
    answer = client.get(HOME)
    assert answer.status_code == 200
    assert [activity["handle"] for activity in answer.json] == ["andrew", "worf", "garak"]
    assert answer.json[0]["profile"] == ANDREW
    assert all(activity["profile"]["name"] for activity in answer.json)
    for activity in answer.json:
        assert datetime.fromisoformat(activity["created_at"]).tzinfo is not None


def test_a_user_has_only_their_own_activities(client: FlaskClient) -> None:
    answer = client.get("/api/activities/@andrew")
    assert answer.status_code == 200
    assert [(activity["handle"], activity["profile"]) for activity in answer.json] == [("andrew", ANDREW)]


def test_health_says_which_version_runs(client: FlaskClient) -> None:
    answer = client.get("/api/health")
    assert answer.status_code == 200
    assert answer.json["status"] == "ok"
    assert re.fullmatch(r"\d+\.\d+\.\d+", answer.json["version"])


def test_an_author_without_a_profile_stays_in_the_feed(spans: Spans, server: Server) -> None:
    server.answer = server.answering(200, json.dumps({"andrew": ANDREW}).encode())
    answer = client_with(server.url).get(HOME)
    assert [activity["profile"] for activity in answer.json] == [ANDREW, None, None]
    assert "app.profiles_missing" not in attributes(spans.named(WORK))


# Spans


def test_home_is_traced_down_to_the_work_it_does(client: FlaskClient, spans: Spans) -> None:
    client.get(HOME)
    request, work = spans.named(f"GET {HOME}"), spans.named(WORK)
    assert (request.kind, request.parent) == (SpanKind.SERVER, None)
    assert is_child(work, request)
    assert is_child(spans.named("find-profiles-mock-data"), work)
    assert len(spans.all()) == 3
    asked = attributes(request)
    assert asked["http.request.method"] == "GET"
    assert asked["url.path"] == HOME
    assert asked["http.route"] == HOME
    assert asked["http.response.status_code"] == 200
    assert not {"http.method", "http.target", "http.url", "http.status_code"} & set(asked)
    done = attributes(work)
    assert datetime.fromisoformat(done["app.now"]).tzinfo is not None
    assert done["app.result_length"] == 3
    assert work.status.status_code is StatusCode.UNSET


def test_a_users_page_is_traced_with_the_handle_as_an_attribute_not_in_a_name(
    client: FlaskClient, spans: Spans
) -> None:
    client.get("/api/activities/@andrew")
    request = spans.named("GET /api/activities/@<handle>")
    assert attributes(request)["http.route"] == "/api/activities/@<handle>"
    work = spans.named("user-activities-mock-data")
    assert is_child(work, request)
    assert (attributes(work)["app.handle"], attributes(work)["app.result_length"]) == ("andrew", 1)
    assert not any("andrew" in name for name in spans.names())


def test_a_user_who_does_not_exist_makes_no_span_an_error(client: FlaskClient, spans: Spans) -> None:
    assert client.get("/api/activities/@nobody").status_code == 404
    assert attributes(spans.named("user-activities-mock-data"))["app.result_length"] == 0
    assert "find-profiles-mock-data" not in spans.names()
    assert [span.status.status_code for span in spans.all()] == [StatusCode.UNSET] * 2
    assert not any(span.events for span in spans.all())


def test_one_trace_crosses_to_the_profiles_service(profiles_service: str, spans: Spans) -> None:
    answer = client_with(profiles_service).get(HOME)
    assert answer.json[1]["profile"]["name"] == "Worf"
    request, work, call = spans.named(f"GET {HOME}"), spans.named(WORK), spans.named("GET")
    remote, looked_up = spans.named("GET /api/profiles/<handles>"), spans.named("find-profiles-mock-data")
    assert is_child(work, request)
    assert is_child(call, work)
    assert is_child(remote, call)
    assert is_child(looked_up, remote)
    assert (call.kind, remote.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert attributes(call)["http.response.status_code"] == 200
    assert (attributes(looked_up)["app.handles_length"], attributes(looked_up)["app.result_length"]) == (3, 3)


def test_without_a_profiles_service_no_request_is_made(
    client: FlaskClient, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("an HTTP request")

    monkeypatch.setattr(requests.Session, "send", refuse)
    answer = client.get(HOME)
    assert answer.json[0]["profile"] == ANDREW
    assert not [span.name for span in spans.all() if span.kind is SpanKind.CLIENT]


def test_an_empty_profiles_url_is_none(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROFILES_URL", "")
    assert create_app().test_client().get(HOME).json[0]["profile"] == ANDREW
    assert "GET" not in spans.names()


def test_the_environment_names_the_profiles_service(
    profiles_service: str, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROFILES_URL", profiles_service + "/")
    assert create_app().test_client().get(HOME).json[0]["profile"] == ANDREW
    assert attributes(spans.named("GET"))["url.full"] == f"{profiles_service}/api/profiles/andrew,garak,worf"


# Profiles that do not come


def feed_without_profiles(spans: Spans, profiles_url: str) -> str:
    """Why the profiles are missing, after checking that the feed is there without them."""
    answer = client_with(profiles_url).get(HOME)
    assert answer.status_code == 200
    assert [activity["handle"] for activity in answer.json] == ["andrew", "worf", "garak"]
    assert [activity["profile"] for activity in answer.json] == [None, None, None]
    assert spans.named(f"GET {HOME}").status.status_code is StatusCode.UNSET
    assert attributes(spans.named(WORK))["app.result_length"] == 3
    return str(attributes(spans.named(WORK))["app.profiles_missing"])


def test_a_profiles_service_that_is_away_is_said_to_be(spans: Spans) -> None:
    assert "away" in feed_without_profiles(spans, unused_url())
    assert spans.named("GET").status.status_code is StatusCode.ERROR


def test_a_profiles_service_that_is_slow_is_not_waited_for(
    spans: Spans, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_lookup, "PATIENCE", 0.1)
    server.answer = server.hang
    began = time.monotonic()
    assert "slow" in feed_without_profiles(spans, server.url)
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("status", [500, 503, 404, 401])
def test_a_profiles_service_that_refuses_is_said_with_its_status(spans: Spans, server: Server, status: int) -> None:
    server.answer = server.answering(status, b'{"error": "no"}', {"Content-Type": "application/json"})
    assert str(status) in feed_without_profiles(spans, server.url)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<!doctype html><title>Log in</title>", "JSON"),
        (b"", "JSON"),
        (b'{"andrew": {"name": ', "JSON"),
        (b"[]", "profiles"),
        (b'[{"name": "Andrew Brown"}]', "profiles"),
        (b"null", "profiles"),
        (b'"andrew"', "profiles"),
        (b'{"andrew": "Andrew Brown"}', "profiles"),
        (b'{"andrew": null}', "profiles"),
    ],
)
def test_an_answer_that_holds_no_profiles_is_said_to_be_wrong(
    spans: Spans, server: Server, body: bytes, reason: str
) -> None:
    server.answer = server.answering(200, body)
    assert reason in feed_without_profiles(spans, server.url)


def test_an_answer_that_is_not_text_is_no_profiles(spans: Spans, server: Server) -> None:
    server.answer = server.answering(200, b"\xff\xfe\x00\xd8", {"Content-Type": "application/json"})
    assert "not " in feed_without_profiles(spans, server.url)


def test_a_redirect_to_a_page_gives_no_profiles(spans: Spans, server: Server) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        page = server.answering(200, b"<html>") if handler.path == "/login" else redirect
        page(handler)

    redirect = server.answering(302, headers={"Location": "/login"})
    server.answer = answer
    assert "JSON" in feed_without_profiles(spans, server.url)


def test_a_circle_of_redirects_gives_no_profiles(spans: Spans, server: Server) -> None:
    server.answer = server.answering(302, headers={"Location": "/again"})
    assert feed_without_profiles(spans, server.url)


def test_a_connection_that_breaks_in_the_middle_of_the_answer_is_away(spans: Spans, server: Server) -> None:
    server.answer = server.answering(200, b'{"andrew"', {"Content-Length": "1000"})
    assert "away" in feed_without_profiles(spans, server.url)


def test_a_connection_that_is_closed_without_an_answer_is_away(spans: Spans, server: Server) -> None:
    server.answer = lambda handler: None
    assert "away" in feed_without_profiles(spans, server.url)


@pytest.mark.parametrize("url", ["profiles:4568", "127.0.0.1:4568", "http://", "http://[::1", "ftp://profiles", "/x"])
def test_a_bad_address_of_the_profiles_service_gives_a_feed_without_profiles(spans: Spans, url: str) -> None:
    assert "bad address" in feed_without_profiles(spans, url)


# The trace of an answer


@pytest.mark.parametrize("path", [HOME, "/api/activities/@nobody", "/nowhere"])
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
    client.post(HOME)
    assert spans.names() == ["POST"]


def test_an_unknown_method_does_not_become_a_name(client: FlaskClient, spans: Spans) -> None:
    client.open(HOME, method="BREW")
    assert not any("BREW" in name for name in spans.names())


# Health


@pytest.mark.parametrize("host", ["", "a b", "[::1]:4567", "\xe9vil", "x/y"])
def test_health_is_never_traced_whatever_a_stranger_calls_the_host(
    client: FlaskClient, spans: Spans, host: str
) -> None:
    client.get("/api/health", environ_overrides={"HTTP_HOST": host})
    assert spans.all() == []


def test_baggage_that_is_none_is_no_line_in_the_log(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    assert client.get(HOME, headers={"baggage": "\xff=1," + "k=v," * 300}).status_code == 200
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
        f"{HOME}?next=/api/health",
        f"{HOME}?//x/api/health",
        f"{HOME}?next=http://x/api/health",
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
    client.get(HOME, headers={"Host": host})
    assert len([span for span in spans.all() if span.kind is SpanKind.SERVER]) == 1


@pytest.mark.parametrize("variable", ["OTEL_PYTHON_FLASK_EXCLUDED_URLS", "OTEL_PYTHON_EXCLUDED_URLS"])
def test_the_standard_variables_exclude_more_than_health(
    spans: Spans, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "activities/home,elsewhere")
    client = create_app().test_client()
    client.get("/api/health")
    assert client.get(HOME).status_code == 200
    assert not [span for span in spans.all() if span.kind is SpanKind.SERVER]
    client.get("/api/activities/@andrew")
    assert [span.name for span in spans.all() if span.kind is SpanKind.SERVER] == ["GET /api/activities/@<handle>"]


# Queries


@pytest.mark.parametrize("path", [HOME, "/nowhere", "/api/activities/@nobody"])
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
    client.get(HOME)
    assert "REDACTED" not in everything(spans.named(f"GET {HOME}"))


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


def test_a_missing_user_is_named_in_the_error(client: FlaskClient, spans: Spans) -> None:
    answer = client.get("/api/activities/@<b>nobody")
    assert answer.content_type == "application/json"
    assert answer.json == {
        "error": "There is no user '<b>nobody' with activities",
        "trace_id": trace_of(spans.named("user-activities-mock-data")),
    }


def test_a_wrong_method_is_json_and_says_which_are_right(client: FlaskClient, spans: Spans) -> None:
    answer = client.post(HOME)
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
    answer = client.get(HOME, headers={"Origin": ORIGIN})
    assert answer.headers[ALLOWED] == answer.headers["Timing-Allow-Origin"] == ORIGIN
    exposed = answer.headers["Access-Control-Expose-Headers"].lower()
    assert {"traceresponse", "server-timing"} <= {name.strip() for name in exposed.split(",")}
    asked = client.options(HOME, headers={"Origin": ORIGIN, **PREFLIGHT})
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
        client.get(HOME, headers={"Origin": origin}),
        client.options(HOME, headers={"Origin": origin, **PREFLIGHT}),
    ):
        assert not [name for name, _ in answer.headers if name.startswith(("Access-Control-Allow", "Timing-Allow"))]


def test_no_origin_is_allowed_unless_some_are_named(client: FlaskClient) -> None:
    assert ALLOWED not in client.get(HOME, headers={"Origin": ORIGIN}).headers


def test_the_environment_names_origins(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", ORIGIN)
    assert create_app().test_client().get(HOME, headers={"Origin": ORIGIN}).headers[ALLOWED] == ORIGIN


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


# Development


def test_examples_are_there_in_debug_only(spans: Spans, client: FlaskClient) -> None:
    assert client.get("/api/examples/failing").status_code == 404
    assert client.get("/api/examples/slow").status_code == 404
    slow = create_app({"DEBUG": True}).test_client().get("/api/examples/slow")
    assert (slow.status_code, list(slow.json)) == (200, ["rows"])
    assert is_child(spans.named("read-every-row"), spans.named("GET /api/examples/slow"))


def test_a_fault_shows_its_traceback_in_debug(spans: Spans) -> None:
    answer = create_app({"DEBUG": True}).test_client().get("/api/examples/failing")
    assert answer.status_code == 500
    assert "ZeroDivisionError" in "".join(answer.json["traceback"])
    assert answer.json["trace_id"] == trace_of(spans.named("divide-by-likes"))
    work, request = spans.named("divide-by-likes"), spans.named("GET /api/examples/failing")
    assert is_child(work, request)
    assert (work.status.status_code, request.status.status_code) == (StatusCode.ERROR, StatusCode.ERROR)
    assert attributes(work)["app.likes"] == 0


# The profiles service


def test_profiles_answers_those_it_knows(spans: Spans) -> None:
    client = create_profiles_app().test_client()
    answer = client.get("/api/profiles/andrew,nobody")
    assert (answer.status_code, answer.json) == (200, {"andrew": ANDREW})
    found = attributes(spans.named("find-profiles-mock-data"))
    assert (found["app.handles_length"], found["app.result_length"]) == (2, 1)


def test_profiles_answers_errors_and_health_as_the_backend_does(spans: Spans) -> None:
    client = create_profiles_app().test_client()
    assert client.get("/api/health").json["status"] == "ok"
    assert spans.all() == []
    missing = client.get("/api/profiles/")
    assert (missing.status_code, missing.content_type) == (404, "application/json")
    assert missing.json["trace_id"] == trace_of(spans.named("GET"))
