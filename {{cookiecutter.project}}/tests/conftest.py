"""Fixtures: the application, a client for it, and the spans that it finished."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from flask import Flask
from flask.testing import FlaskClient
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from work import create_app

finished = InMemorySpanExporter()


class Spans:
    """The spans that were finished since the test began."""

    def all(self) -> list[ReadableSpan]:
        return list(finished.get_finished_spans())

    def names(self) -> list[str]:
        return [span.name for span in self.all()]

    def named(self, name: str) -> ReadableSpan:
        """The one span of that name."""
        found = [span for span in self.all() if span.name == name]
        assert len(found) == 1, f"{len(found)} spans are called {name!r}, among {self.names()}"
        return found[0]


Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Received:
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes


class Server:
    """An HTTP server on a free port of this machine: keeps what it is sent and answers as `answer` does."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.stopped = threading.Event()
        self.answer: Answer = self.answering(200)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = server.answer
                server.received.append(Received(self.path, headers, body))
                answer(self)

            do_POST = do_GET

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=[0.01], daemon=True)
        self.thread.start()

    def answering(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, after: float = 0
    ) -> Answer:
        """An answer that comes `after` seconds."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            if self.stopped.wait(after):
                return
            handler.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)

        return answer

    def hang(self, handler: BaseHTTPRequestHandler) -> None:
        """The answer that does not come while the test runs."""
        self.stopped.wait(60)

    def stop(self) -> None:
        self.stopped.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def other_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="session", autouse=True)
def tracing() -> None:
    """Set up telemetry, once for the process: tests send nothing, and no setting of the machine counts."""
    for variable in list(os.environ):
        if variable.startswith(("OTEL_", "HONEYCOMB_", "VIEWER_", "FLASK_", "TELEMETRY_")) or variable in {
            "PROFILES_URL",
            "CORS_ORIGINS",
            "SAMPLE_RATE",
        }:
            del os.environ[variable]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"  # the servers of tests are on this machine
    os.environ["OTEL_TRACES_EXPORTER"] = os.environ["OTEL_LOGS_EXPORTER"] = "none"
    create_app()
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.add_span_processor(SimpleSpanProcessor(finished))


@pytest.fixture
def spans() -> Iterator[Spans]:
    finished.clear()
    yield Spans()
    finished.clear()


@pytest.fixture
def app(spans: Spans) -> Flask:
    return create_app({"TESTING": True})


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
