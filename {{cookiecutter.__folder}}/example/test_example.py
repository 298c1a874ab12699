"""Tests of the example: its responses, its traces, and how it works without the profiles service."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from flask import Response
from flask.testing import FlaskClient
from opentelemetry.trace import SpanKind, StatusCode
from werkzeug.serving import BaseWSGIServer, make_server

from backend.app import create_app
from example import profile_lookup
from example.profiles.app import create_app as create_profiles_app

os.environ.pop("PROFILES_URL", None)

HOME = "/api/activities/home"
WORK = "home-activities-mock-data"
ANDREW = {"name": "Andrew Brown", "title": "Captain"}


def is_child(child: Any, parent: Any) -> bool:
    return child.parent is not None and child.parent.span_id == parent.context.span_id


def client_with(profiles_url: str) -> FlaskClient:
    return create_app({"TESTING": True, "PROFILES_URL": profiles_url}).test_client()


@pytest.fixture
def serve() -> Iterator[Any]:
    """Start a server and return its address; it stops after the test."""
    servers = []

    def serve(server: Any) -> str:
        thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def server_returning(status: int, body: str) -> BaseWSGIServer:
    return make_server("127.0.0.1", 0, Response(body, status))


def test_home_lists_activities_with_their_authors_profiles(client: FlaskClient) -> None:
    response = client.get(HOME)
    assert response.status_code == 200
    assert [activity["handle"] for activity in response.json] == ["andrew", "worf", "garak"]
    assert response.json[0]["profile"] == ANDREW
    assert all(datetime.fromisoformat(activity["created_at"]).tzinfo for activity in response.json)


def test_home_and_its_work_are_traced(client: FlaskClient, spans: Any) -> None:
    client.get(HOME)
    request, work = spans.named(f"GET {HOME}"), spans.named(WORK)
    assert (request.kind, request.parent) == (SpanKind.SERVER, None)
    assert is_child(work, request)
    assert is_child(spans.named("find-profiles-mock-data"), work)
    assert datetime.fromisoformat(work.attributes["app.now"]).tzinfo
    assert work.attributes["app.result_length"] == 3


def test_a_user_has_only_their_own_activities(client: FlaskClient, spans: Any) -> None:
    response = client.get("/api/activities/@andrew")
    assert [(activity["handle"], activity["profile"]) for activity in response.json] == [("andrew", ANDREW)]
    assert spans.named("user-activities-mock-data").attributes["app.handle"] == "andrew"
    assert spans.named("GET /api/activities/@<handle>").status.status_code is StatusCode.UNSET
    assert client.get("/api/activities/@nobody").json["error"] == "User 'nobody' has no activities"


def test_a_trace_continues_in_the_profiles_service(serve: Any, spans: Any) -> None:
    response = client_with(serve(make_server("127.0.0.1", 0, create_profiles_app()))).get(HOME)
    assert response.json[1]["profile"]["name"] == "Worf"
    work, call, remote = spans.named(WORK), spans.named("GET"), spans.named("GET /api/profiles/<handles>")
    assert is_child(call, work)
    assert is_child(remote, call)
    assert is_child(spans.named("find-profiles-mock-data"), remote)
    assert (call.kind, remote.kind) == (SpanKind.CLIENT, SpanKind.SERVER)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (503, "{}", "status 503"),
        (200, "<!doctype html>", "bad address or answer"),
        (200, '{"andrew": null}', "bad address or answer"),
    ],
)
def test_a_bad_response_gives_a_feed_without_profiles(
    serve: Any, spans: Any, caplog: pytest.LogCaptureFixture, status: int, body: str, reason: str
) -> None:
    response = client_with(serve(server_returning(status, body))).get(HOME)
    assert [activity["profile"] for activity in response.json] == [None, None, None]
    assert spans.named(WORK).attributes["app.profiles_missing"] == reason
    assert "Responding without profiles" in caplog.text


@pytest.mark.parametrize(
    ("url", "reason"),
    [("http://127.0.0.1:9", "no connection"), ("profiles:4568", "bad address or answer")],
)
def test_a_service_that_cannot_be_reached_gives_a_feed_without_profiles(spans: Any, url: str, reason: str) -> None:
    response = client_with(url).get(HOME)
    assert (response.status_code, response.json[0]["profile"]) == (200, None)
    assert spans.named(WORK).attributes["app.profiles_missing"] == reason


def test_a_slow_service_times_out(spans: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_lookup, "TIMEOUT", 0.1)
    silent = server_returning(200, "{}")  # it accepts connections and never responds
    client_with(f"http://127.0.0.1:{silent.server_port}").get(HOME)
    silent.server_close()
    assert spans.named(WORK).attributes["app.profiles_missing"] == "timeout"


def test_the_slow_and_failing_routes_exist_only_in_debug_mode(client: FlaskClient, spans: Any) -> None:
    assert client.get("/api/examples/failing").status_code == 404
    response = create_app({"DEBUG": True}).test_client().get("/api/examples/failing")
    assert (response.status_code, "ZeroDivisionError" in "".join(response.json["traceback"])) == (500, True)
    assert spans.named("divide-by-likes").status.status_code is StatusCode.ERROR
