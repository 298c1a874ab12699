"""A streamed body belongs to its request: in process, and with the servers that people run."""

from __future__ import annotations

import contextlib
import gc
import http.client
import importlib.util
import json
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import INVALID_SPAN, StatusCode
from receivers import unused_port, wait_until
from recorder import Recorder, attributes, events, ids
from werkzeug.test import create_environ, run_wsgi_app


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_spans_across_parts_of_a_generator_are_children(recorder: Recorder) -> None:
    app = recorder.app()

    @app.get("/stream")
    def stream() -> Iterator[str]:
        with recorder.tracer.start_as_current_span("around"):
            yield "a"
            with recorder.tracer.start_as_current_span("within"):
                yield "b"

    body, _, _ = run_wsgi_app(app, create_environ("/stream"))
    for _part in body:
        assert trace.get_current_span() is INVALID_SPAN
    within, around, request = recorder.spans()
    assert (within.name, around.name, request.name) == ("within", "around", "GET /stream")
    assert within.parent == ids(around)
    assert around.parent == ids(request)
    assert request.end_time
    assert around.end_time
    assert request.end_time >= around.end_time


def test_a_generator_keeps_the_request(recorder: Recorder) -> None:
    app = recorder.app()

    @app.get("/stream/<name>")
    def stream(name: str) -> flask.Response:
        def parts() -> Iterator[str]:
            yield flask.request.path
            yield str(trace.get_current_span().is_recording())

        return flask.Response(flask.stream_with_context(parts()))

    assert app.test_client().get("/stream/a").text == "/stream/aTrue"
    assert recorder.names() == ["GET /stream/<name>"]


@pytest.mark.parametrize(("after", "status"), [(0, 500), (1, 200)])
def test_an_error_in_a_generator_is_recorded_with_the_clients_status(
    recorder: Recorder, after: int, status: int
) -> None:
    app = recorder.app()

    @app.get("/stream")
    def stream() -> Iterator[str]:
        yield from "a" * after
        raise LookupError("marked")

    with pytest.raises(LookupError):
        list(run_wsgi_app(app, create_environ("/stream"))[0])
    span = recorder.only()
    assert (events(span), attributes(span)["error.type"]) == ([("exception", "LookupError")], "LookupError")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "LookupError: marked")
    assert attributes(span)["http.response.status_code"] == status


def test_a_client_that_disconnects_early_is_not_an_error(recorder: Recorder) -> None:
    app = recorder.app()

    @app.get("/stream")
    def stream() -> Iterator[str]:
        with recorder.tracer.start_as_current_span("work"):
            yield "a"
            yield "b"

    app.test_client().get("/stream").close()
    work, request = recorder.spans()
    assert work.parent == ids(request)
    assert events(request) == [("client disconnected", None)]
    assert request.status.status_code is StatusCode.UNSET
    assert "error.type" not in attributes(request)


def test_closing_a_body_runs_within_the_span(recorder: Recorder) -> None:
    app = recorder.app()
    seen: list[trace.Span] = []

    @app.get("/stream")
    def stream() -> flask.Response:
        response = flask.Response(iter("ab"))
        response.call_on_close(lambda: seen.append(trace.get_current_span()))
        return response

    app.test_client().get("/stream").close()
    assert [span.get_span_context() for span in seen] == [ids(recorder.only())]


def test_an_error_while_a_body_is_closed_is_on_the_span(recorder: Recorder) -> None:
    app = recorder.app()

    @app.get("/stream")
    def stream() -> Iterator[str]:
        try:
            yield "a"
        finally:
            raise LookupError("while closing")

    body, _, _ = run_wsgi_app(app, create_environ("/stream"))
    next(iter(body))
    with pytest.raises(LookupError):
        body.close()  # type: ignore[attr-defined]
    assert events(recorder.only()) == [("exception", "LookupError")]


@pytest.mark.parametrize("path", ["/hello/a", "/nowhere", "/pieces", "/length"])
def test_a_complete_body_ends_the_span_even_if_nobody_closes_it(recorder: Recorder, path: str) -> None:
    app = recorder.app()
    app.add_url_rule("/pieces", "pieces", lambda: flask.Response(["a", "b"]))
    app.add_url_rule("/length", "length", lambda: flask.Response(iter("a"), headers={"Content-Length": "1"}))
    answer = app.test_client().get(path)  # which takes one part, and not the end
    assert len(recorder.spans()) == 1
    assert answer.status_code in (200, 404)


def test_a_stream_ends_and_is_measured_once_after_its_last_part(recorder: Recorder) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    app = recorder.app(meter_provider=provider)
    app.add_url_rule("/stream", "stream", lambda: iter("ab"))
    answer = app.test_client().get("/stream")
    assert recorder.spans() == []
    assert answer.text == "ab"
    answer.close()
    assert (recorder.names(), events(recorder.only())) == (["GET /stream"], [])
    data = reader.get_metrics_data()
    assert data
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    points = {metric.name: metric.data.data_points[0] for metric in metrics}
    assert points["http.server.request.duration"].count == 1  # type: ignore[union-attr]
    assert points["http.server.active_requests"].value == 0  # type: ignore[union-attr]
    provider.shutdown()


def test_an_ended_stream_is_not_kept_in_memory(recorder: Recorder) -> None:
    app = recorder.app()
    held: list[weakref.ref[Any]] = []

    @app.get("/stream")
    def stream() -> flask.Response:
        response = flask.Response(iter("a"))
        held.append(weakref.ref(response))
        return response

    app.test_client().get("/stream").close()
    gc.collect()
    assert held[0]() is None


class FileWrapper:
    """As a server's `wsgi.file_wrapper`."""

    def __init__(self, file: Any, size: int = 8192) -> None:
        self.file, self.size = file, size

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(self.size), b"")


def test_a_file_reaches_the_server_as_the_servers_own_wrapper(recorder: Recorder, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"a file")
    app = recorder.app()
    app.add_url_rule("/file", "file", lambda: flask.send_file(path))
    environ = create_environ("/file") | {"wsgi.file_wrapper": FileWrapper}
    body = app(environ, lambda status, headers, exc_info=None: lambda data: None)
    assert isinstance(body, FileWrapper)
    assert recorder.names() == ["GET /file"]
    body.file.close()


# The same with real servers.

APPLICATION = """
import json, logging, os, sys
import flask
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from traced_flask import FlaskInstrumentor

def line(span):
    return json.dumps({
        "name": span.name, "parent": span.parent and span.parent.span_id, "span": span.context.span_id,
        "status": span.status.status_code.name, "events": [event.name for event in span.events],
        "attributes": dict(span.attributes),
    }) + "\\n"

provider = TracerProvider()
trace.set_tracer_provider(provider)
out = open(os.environ["SPANS"], "a", buffering=1)
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out, formatter=line)))
app = flask.Flask(__name__)
FlaskInstrumentor().instrument_app(app)
tracer = trace.get_tracer("work")

@app.get("/stream")
def stream():
    yield "a"
    with tracer.start_as_current_span("work"):
        yield "b"

@app.get("/fail")
def fail():
    yield "a"
    raise LookupError("in the middle")

@app.get("/endless")
def endless():
    with tracer.start_as_current_span("work"):
        while True:
            yield "x" * 65536

@app.get("/file")
def file():
    return flask.send_file(os.environ["FILE"])

if "gunicorn" in sys.modules:
    from gunicorn.http.wsgi import Response
    sendfile = Response.sendfile
    def counted(self, file):
        sent = sendfile(self, file)
        out.write(json.dumps({"name": "sendfile", "sent": sent}) + "\\n")
        return sent
    Response.sendfile = counted
"""
GUNICORN = ["gunicorn", "app:app", "--bind", "127.0.0.1:{port}", "--workers", "1", "--worker-class"]
SERVERS = {
    "gunicorn sync": [*GUNICORN, "sync"],
    "gunicorn gthread": [*GUNICORN, "gthread", "--threads", "4"],
    "gunicorn gevent": [*GUNICORN, "gevent"],
    "waitress": ["waitress", "--listen", "127.0.0.1:{port}", "app:app"],
    "flask run": ["flask", "run", "--port", "{port}"],
}


class Server:
    """A server in a process of its own, and the spans that its application has ended."""

    def __init__(self, name: str, port: int, folder: Path) -> None:
        self.name = name
        self.port = port
        self.folder = folder

    def spans(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "spans").read_text().splitlines()]

    def new(self, count: int, since: int) -> dict[str, dict[str, Any]]:
        """The `count` spans that have ended since there were `since`, by name."""
        wait_until(lambda: len(self.spans()) >= since + count)
        return {span["name"]: span for span in self.spans()[since:]}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param == "gunicorn gevent" and importlib.util.find_spec("gevent") is None:
        pytest.skip("gevent is not installed")
    folder = tmp_path_factory.mktemp("server")
    (folder / "app.py").write_text(APPLICATION)
    (folder / "spans").touch()
    (folder / "file").write_bytes(os.urandom(1 << 20))
    port = unused_port()
    process = subprocess.Popen(
        [sys.executable, "-m", *(word.format(port=port) for word in SERVERS[request.param])],
        cwd=folder,
        env={**os.environ, "SPANS": str(folder / "spans"), "FILE": str(folder / "file")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: listening(port), 60)
        server = Server(request.param, port, folder)
        get(server, "/").read()  # gunicorn listens before its worker is there
        server.new(1, since=0)
        yield server
    finally:
        process.terminate()
        process.wait(20)


def listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def get(server: Server, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", path)
    return connection.getresponse()


def test_a_server_streams_within_the_span(server: Server) -> None:
    before = len(server.spans())
    assert get(server, "/stream").read() == b"ab"
    spans = server.new(2, before)
    assert spans["work"]["parent"] == spans["GET /stream"]["span"]
    assert spans["GET /stream"]["parent"] is None
    assert (spans["GET /stream"]["status"], spans["GET /stream"]["events"]) == ("UNSET", [])


def test_an_error_in_a_stream_of_a_server_is_on_the_span(server: Server) -> None:
    before = len(server.spans())
    with contextlib.suppress(http.client.HTTPException, OSError):
        get(server, "/fail").read()
    span = server.new(1, before)["GET /fail"]
    assert (span["status"], span["events"]) == ("ERROR", ["exception"])
    assert span["attributes"]["error.type"] == "LookupError"


def test_a_client_that_disconnects_from_a_server_is_not_an_error(server: Server) -> None:
    before = len(server.spans())
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(1024).startswith(b"HTTP/1.1 200")
    spans = server.new(2, before)
    assert spans["work"]["parent"] == spans["GET /endless"]["span"]
    assert (spans["GET /endless"]["status"], spans["GET /endless"]["events"]) == ("UNSET", ["client disconnected"])


def test_a_server_sends_a_file_as_it_would_untraced(server: Server) -> None:
    before = len(server.spans())
    assert get(server, "/file").read() == (server.folder / "file").read_bytes()
    sends_files = server.name.startswith("gunicorn")
    records = server.new(2 if sends_files else 1, before)
    assert records["GET /file"]["attributes"]["http.response.status_code"] == 200
    assert records.get("sendfile") == ({"name": "sendfile", "sent": True} if sends_files else None)
