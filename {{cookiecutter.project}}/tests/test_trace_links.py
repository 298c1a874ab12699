"""Where a developer can look at a trace: links that nobody waits for, to Honeycomb or to the viewer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest
from honeycomb_stand_in import CLASSIC, CONFIGURATION, INGEST, Honeycomb, Key, honeycomb
from test_telemetry import run

from backend import trace_links
from backend.trace_links import TraceLinks, address

if TYPE_CHECKING:
    from conftest import Server

VIEWER = "http://127.0.0.1:4318/traces/"
THERE = "https://ui.honeycomb.io/acme/environments/production/datasets/backend-flask/trace?trace_id="


@pytest.fixture
def service() -> Iterator[Honeycomb]:
    with honeycomb() as service:
        yield service


class Found:
    """A key that changes, and the links that go with it."""

    def __init__(self, service: Honeycomb, key: str | None, viewer: str | None = VIEWER) -> None:
        self.key = key
        self.links = TraceLinks(lambda: self.key, service.url, "https://ui.honeycomb.io", "backend-flask", viewer)


def eventually(condition: Callable[[], Any], seconds: float = 10) -> Any:
    until = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < until:
        time.sleep(0.01)
    return answer


def test_a_link_leads_to_honeycomb_once_it_is_known_whose_the_key_is(service: Honeycomb) -> None:
    found = Found(service, INGEST)
    assert eventually(lambda: found.links() == THERE)
    assert [found.links() for _ in range(5)] == [THERE] * 5
    assert service.asked == ["GET /1/auth"]


def test_without_a_key_it_leads_to_the_viewer_and_nobody_is_asked(service: Honeycomb) -> None:
    assert Found(service, None).links() == VIEWER
    assert Found(service, None, viewer=None).links() is None
    assert service.asked == []


def keep_waiting(service: Honeycomb) -> tuple[threading.Event, threading.Event]:
    """Let it answer only once the second event is set; the first says that it was asked."""
    asked, answer = threading.Event(), threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> bool:
        asked.set()
        answer.wait(30)
        return False

    service.misbehave = hang
    return asked, answer


def test_nobody_waits_for_honeycomb(service: Honeycomb) -> None:
    asked, answer = keep_waiting(service)
    found = Found(service, INGEST)
    assert found.links() == VIEWER
    assert asked.wait(10)
    assert found.links() == VIEWER  # while Honeycomb still thinks
    answer.set()
    assert eventually(lambda: found.links() == THERE)


def test_a_new_key_is_asked_about_and_the_old_one_forgotten_at_once(service: Honeycomb) -> None:
    service.keys[CONFIGURATION] = Key(team="other", environment="test")
    found = Found(service, INGEST)
    assert eventually(lambda: found.links() == THERE)
    found.key = CONFIGURATION
    assert found.links() == VIEWER
    assert eventually(lambda: "https://ui.honeycomb.io/other/environments/test/" in str(found.links()))
    found.key = None
    assert found.links() == VIEWER


def test_an_answer_about_a_key_that_is_gone_counts_for_nothing(service: Honeycomb) -> None:
    asked, answer = keep_waiting(service)
    found = Found(service, INGEST)
    found.links()
    assert asked.wait(10)
    found.key = None
    assert found.links() == VIEWER
    answer.set()
    for thread in threading.enumerate():
        if thread.name == "trace-links":
            thread.join(10)
    assert found.links() == VIEWER


def page(handler: BaseHTTPRequestHandler) -> bool:
    handler.send_response(200)
    handler.send_header("Content-Length", "2")
    handler.end_headers()
    handler.wfile.write(b"[]")
    return True


def away(handler: BaseHTTPRequestHandler) -> bool:
    handler.send_response(302)
    handler.send_header("Location", f"http://127.0.0.1:{handler.server.server_address[1]}/2/auth")
    handler.send_header("Content-Length", "0")
    handler.end_headers()
    return True


@pytest.mark.parametrize("misbehave", [None, page, away])
def test_a_key_that_nothing_is_known_of_is_not_asked_about_all_the_time(
    service: Honeycomb, misbehave: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service.misbehave = misbehave
    if misbehave is None:
        service.keys.clear()
    found = Found(service, INGEST)
    for _ in range(50):
        assert found.links() == VIEWER
        time.sleep(0.002)
    assert eventually(lambda: service.asked == ["GET /1/auth"])
    assert not [record for record in caplog.records if record.name.startswith("backend")]
    assert "marked" not in caplog.text


def test_it_is_asked_again_later(service: Honeycomb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_links, "PAUSE", -trace_links.PATIENCE)
    keys = dict(service.keys)
    service.keys.clear()
    found = Found(service, INGEST)
    assert eventually(lambda: found.links() == VIEWER and service.asked)
    service.keys.update(keys)
    assert eventually(lambda: found.links() == THERE)


def test_a_classic_key_has_no_environment_and_names_are_written_as_addresses_need_them(service: Honeycomb) -> None:
    found = Found(service, CLASSIC)
    assert eventually(lambda: found.links() == "https://ui.honeycomb.io/acme/datasets/backend-flask/trace?trace_id=")
    account = {"team": {"slug": "a/b?c"}, "environment": {"slug": "d"}}
    assert address("https://ui", account, "My Service") == (
        "https://ui/a%2Fb%3Fc/environments/d/datasets/my-service/trace?trace_id="
    )


# In the answers of a process

ERRORS = """
    import time
    app = create_app()
    client = app.test_client()

    def error(path="/nowhere", **headers):
        answer = client.get(path, headers=headers)
        assert answer.status_code >= 404
        print(path, answer.json["trace_id"], answer.json.get("trace_url"))
        return answer.json
"""


def test_in_development_every_error_leads_to_its_trace_in_the_viewer(server: Server) -> None:
    printed = run(
        ERRORS,
        """
        app.add_url_rule("/failing", view_func=lambda: 1 / 0)
        for path in ("/nowhere", "/failing"):
            found = error(path)
            assert found["trace_url"].endswith("/traces/" + found["trace_id"])
        assert "trace_url" not in error(traceparent=f"00-{1:032x}-{1:016x}-00")  # of which nothing is kept
        """,
        FLASK_DEBUG="1",
        TRUST_TRACEPARENT="true",
        VIEWER_ENDPOINT=server.url,
    )
    assert printed.count(f" {server.url}/traces/") == 2
    assert not any("x-honeycomb-trace-url" in received.headers for received in server.received)


def test_a_browser_may_have_another_address_for_the_viewer(server: Server) -> None:
    env = {"FLASK_DEBUG": "1", "VIEWER_ENDPOINT": server.url, "VIEWER_TRACES": "http://localhost:16686/trace/"}
    assert " http://localhost:16686/trace/" in run(ERRORS, "error()", **env)


@pytest.mark.parametrize("key", [None, INGEST])
def test_in_production_no_error_has_a_link(server: Server, service: Honeycomb, key: str | None) -> None:
    env = {"HONEYCOMB_API_KEY": key, "HONEYCOMB_API_ENDPOINT": service.url} if key else {}
    assert " None" in run(ERRORS, "error()", VIEWER_ENDPOINT=server.url, **env)
    assert "GET /1/auth" not in service.asked
    assert not any("x-honeycomb-trace-url" in received.headers for received in server.received)


def test_with_a_key_the_link_leads_to_honeycomb_and_the_viewer_is_told(server: Server, service: Honeycomb) -> None:
    printed = run(
        ERRORS,
        """
        until = time.monotonic() + 10
        while "honeycomb" not in error()["trace_url"] and time.monotonic() < until:
            time.sleep(0.05)
        """,
        FLASK_DEBUG="1",
        VIEWER_ENDPOINT=server.url,
        HONEYCOMB_API_KEY=INGEST,
        HONEYCOMB_API_ENDPOINT=service.url,
        OTEL_SERVICE_NAME="backend-flask",
    )
    assert f" {THERE}" in printed
    told = [received.headers.get("x-honeycomb-trace-url") for received in server.received]
    assert THERE in told
    assert "marked" not in str([(received.headers, received.body) for received in server.received])


def test_a_standard_endpoint_has_no_page_that_is_known(server: Server, service: Honeycomb) -> None:
    env = {"HONEYCOMB_API_KEY": INGEST, "HONEYCOMB_API_ENDPOINT": service.url}
    printed = run(ERRORS, "error()", FLASK_DEBUG="1", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=server.url, **env)
    assert " None" in printed
    assert "GET /1/auth" not in service.asked
