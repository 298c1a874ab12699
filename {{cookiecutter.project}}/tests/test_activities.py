"""The example: what it answers, what it traces, and what happens without profiles."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest
import requests
from flask.testing import FlaskClient
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from test_app import attributes, trace_of
from werkzeug.serving import make_server

from backend import profile_lookup
from backend.app import create_app
from profiles.app import create_app as create_profiles_app

if TYPE_CHECKING:
    from conftest import Server, Spans

HOME = "/api/activities/home"
WORK = "home-activities-mock-data"
ANDREW = {"name": "Andrew Brown", "title": "Captain"}


def is_child(child: ReadableSpan, parent: ReadableSpan) -> bool:
    assert child.context
    assert parent.context
    return (
        child.parent is not None
        and child.parent.span_id == parent.context.span_id
        and child.context.trace_id == parent.context.trace_id
    )


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


def test_an_author_without_a_profile_stays_in_the_feed(spans: Spans, server: Server) -> None:
    server.answer = server.answering(200, json.dumps({"andrew": ANDREW}).encode())
    answer = client_with(server.url).get(HOME)
    assert [activity["profile"] for activity in answer.json] == [ANDREW, None, None]
    assert "app.profiles_missing" not in attributes(spans.named(WORK))


def test_a_missing_user_is_named_in_the_error(client: FlaskClient, spans: Spans) -> None:
    answer = client.get("/api/activities/@<b>nobody")
    assert answer.content_type == "application/json"
    assert answer.json == {
        "error": "There is no user '<b>nobody' with activities",
        "trace_id": trace_of(spans.named("user-activities-mock-data")),
    }


# Spans


def test_home_is_traced_down_to_the_work_it_does(client: FlaskClient, spans: Spans) -> None:
    client.get(HOME)
    request, work = spans.named(f"GET {HOME}"), spans.named(WORK)
    assert (request.kind, request.parent) == (SpanKind.SERVER, None)
    assert is_child(work, request)
    assert is_child(spans.named("find-profiles-mock-data"), work)
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


# In development


def test_examples_are_there_in_debug_only(spans: Spans, client: FlaskClient) -> None:
    assert client.get("/api/examples/failing").status_code == 404
    assert client.get("/api/examples/slow").status_code == 404
    slow = create_app({"DEBUG": True}).test_client().get("/api/examples/slow")
    assert (slow.status_code, list(slow.json)) == (200, ["rows"])
    assert is_child(spans.named("read-every-row"), spans.named("GET /api/examples/slow"))


def test_the_failing_example_is_an_error_from_where_it_fails(spans: Spans) -> None:
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
