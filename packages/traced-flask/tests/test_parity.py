"""The stock instrumentor and ours over the same requests: the same spans, but for the differences listed here.

Each request goes over a socket to a server of its own. What the stock instrumentor writes is changed by each of
DIFFERENCES and must then be what ours writes; a difference that changes nothing in any case fails too.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from wsgiref.types import WSGIApplication

import flask
import pytest
import traced_flask.flask as ours
from opentelemetry import trace
from opentelemetry.instrumentation import flask as stock
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.serving import WSGIRequestHandler, make_server

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
Record = dict[str, Any]  # a span's attributes, and beside them, in capitals, what else it has


@dataclass(frozen=True)
class Case:
    """A request, and how the application is configured for it."""

    target: str = "/users/1"
    method: str = "GET"
    headers: tuple[str, ...] = ()
    host: str | None = "shop.example:8080"
    body: str = ""
    config: dict[str, Any] = field(default_factory=dict)

    def raw(self) -> bytes:
        """The request as a client sends it; text is UTF-8."""
        lines = [f"{self.method} {self.target} HTTP/1.1", *self.headers, "User-Agent: test", "Connection: close"]
        if self.host is not None:
            lines.append(f"Host: {self.host}")
        if self.body:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", self.body]).encode("utf-8", "surrogateescape")


CASES = {
    **{f"method {method}": Case("/all", method) for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")},
    "method OPTIONS": Case("/all", "OPTIONS"),
    "method TRACE": Case("/all", "TRACE"),
    "method CONNECT": Case("/all", "CONNECT"),
    "method QUERY": Case("/all", "QUERY"),
    "method in lower case": Case("/all", "get"),
    "method unknown": Case("/all", "BREW"),
    "route with a parameter": Case("/users/1"),
    "route of a blueprint": Case("/shop/items/tea"),
    "static file": Case("/static/missing.css"),
    "status 204": Case("/status/204"),
    "status 304": Case("/status/304"),
    "status 418": Case("/status/418"),
    "status 502": Case("/status/502"),
    "status out of range": Case("/status/99"),
    "redirect": Case("/redirect"),
    "redirect to a slash": Case("/folder"),
    "no route": Case("/nowhere"),
    "no route, unknown method": Case("/nowhere", "BREW"),
    "method not allowed": Case("/users/1", "POST"),
    "converter does not match": Case("/users/x"),
    "exception": Case("/exception"),
    "exception that the server gets": Case("/exception", config={"PROPAGATE_EXCEPTIONS": True}),
    "exception that a handler takes": Case("/handled"),
    "abort": Case("/abort"),
    "HTTP exception": Case("/http-exception"),
    "exception before the view": Case("/users/1?fail=before"),
    "response before the view": Case("/users/1?answer=before"),
    "exception after the view": Case("/users/1?fail=after"),
    "exception in a teardown": Case("/users/1?fail=teardown"),
    "exception in a view and in a teardown": Case("/exception?fail=teardown"),
    "stream": Case("/stream"),
    "stream by HEAD": Case("/stream", "HEAD"),
    "stream with the request": Case("/stream-with-context"),
    "stream with spans": Case("/stream-with-spans"),
    "stream that fails": Case("/stream-that-fails/1"),
    "stream that fails before its first part": Case("/stream-that-fails/0"),
    "send_file": Case("/file"),
    "send_file, a range": Case("/file", headers=("Range: bytes=2-3",)),
    "send_file by HEAD": Case("/file", "HEAD"),
    "100-continue": Case("/all", "POST", ("Expect: 100-continue",), body="tea"),
    "body": Case("/all", "POST", body="tea"),
    "path in UTF-8": Case("/shop/items/茶"),
    "path, percent-encoded": Case("/shop/items/%E8%8C%B6%20%2B"),
    "path that is no UTF-8": Case("/shop/items/%FF"),
    "query": Case("/users/1?token=secret&x=1"),
    "query, empty": Case("/users/1?"),
    "query with odd bytes": Case("/users/1?\udcff=%00&茶"),
    "host without a port": Case(host="shop.example"),
    "host by IPv6": Case(host="[2001:db8::1]:8080"),
    "host by IPv6 without a port": Case(host="[2001:db8::1]"),
    "host with another's path": Case(host="shop.example/users"),
    "no host": Case(host=None),
    "proxy's headers": Case(headers=("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "Forwarded: for=x")),
    "proxy's headers, trusted": Case(
        headers=("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: a.example"),
        config={"PROXY": True},
    ),
    "user agent of a bot": Case(headers=("User-Agent: Googlebot/2.1",)),
    "mounted application": Case("/mounted/users/1"),
    "mounted application, no route": Case("/mounted/nowhere"),
    "mounted application, exception": Case("/mounted/exception"),
    "caller's trace": Case(headers=(f"traceparent: 00-{TRACE}-{PARENT}-01",)),
    "caller's trace, trusted": Case(
        headers=(f"traceparent: 00-{TRACE}-{PARENT}-01", "baggage: plan=gold"), config={"TRUST_TRACEPARENT": True}
    ),
    "caller's trace, malformed": Case(headers=("traceparent: 00-nonsense",)),
    "excluded": Case("/health"),
}


def server_address(record: Record, case: Case) -> None:
    host = record.get("server.address", "").rpartition(":")
    if host[2].isdecimal():
        record["server.address"], record["server.port"] = host[0], int(host[2])
    if "server.address" in record:
        record["server.address"] = record["server.address"].strip("[]")


def url_path(record: Record, case: Case) -> None:
    if "url.path" in record:
        record["url.path"] = record["url.path"].encode("latin-1").decode("utf-8", "replace")


def mount_point(record: Record, case: Case) -> None:
    if case.target.startswith("/mounted/"):
        record["url.path"] = "/mounted" + record["url.path"]
        if "http.route" in record:
            record["http.route"] = "/mounted" + record["http.route"]
            record["NAME"] = f"{case.method} {record['http.route']}"


def url_query(record: Record, case: Case) -> None:
    if "url.query" in record:
        record["url.query"] = "REDACTED"


def unmatched_name(record: Record, case: Case) -> None:
    if "http.route" not in record and record["NAME"] != "work":
        record["NAME"] = record["NAME"].partition(" ")[0]


def left_to_the_server(record: Record, case: Case) -> None:
    if case.config.get("PROPAGATE_EXCEPTIONS"):
        record.update({"http.response.status_code": 500, "error.type": "ZeroDivisionError"})


def teardown(record: Record, case: Case) -> None:
    if "fail=teardown" in case.target:
        events = [*record["EVENTS"], ("exception", "LookupError")]
        record.update({"EVENTS": events, "STATUS": ("ERROR", "LookupError: in teardown")})
        record.update({"http.response.status_code": 500, "error.type": "LookupError"})


def stream_that_fails(record: Record, case: Case) -> None:
    if case.target.startswith("/stream-that-fails"):
        record.update({"EVENTS": [("exception", "ValueError")], "STATUS": ("ERROR", "ValueError: in a stream")})
        record["error.type"] = "ValueError"
        if case.target.endswith("/0"):
            record["http.response.status_code"] = 500


def spans_of_a_stream(record: Record, case: Case) -> None:
    if case.target == "/stream-with-spans" and record["NAME"] == "work":
        record.update({"PARENT": "GET /stream-with-spans", "KIND": "INTERNAL"})


def strangers(record: Record, case: Case) -> None:
    if record["PARENT"] == PARENT and not case.config.get("TRUST_TRACEPARENT"):
        record.update({"PARENT": None, "LINKS": [PARENT]})


DIFFERENCES: dict[str, Callable[[Record, Case], None]] = {
    "server.address is a host without brackets and port; server.port is the client's": server_address,
    "url.path is UTF-8, which WSGI hands over as Latin-1": url_path,
    "url.path and http.route have the mount point, so that two applications do not share routes": mount_point,
    "url.query is redacted: it holds tokens and names": url_query,
    "A request without a route is named by its method alone: a name for each path would never end": unmatched_name,
    "An exception that the server gets is answered with 500, and error.type names it": left_to_the_server,
    "An exception in a teardown function makes the server answer 500": teardown,
    "A streamed body belongs to the request: its error is the span's": stream_that_fails,
    "A streamed body belongs to the request: its spans are the span's children": spans_of_a_stream,
    "A caller that is not trusted is linked, not followed": strangers,
}


MEASURED_DIFFERENTLY = {
    "excluded": "What is not traced is not measured, not as an active request either",
    "exception that the server gets": "A request that fails is measured too",
    "exception in a teardown": "A request that fails is measured too",
    "exception in a view and in a teardown": "A request that fails is measured too",
    "stream that fails": "The metric says what the span says",
    "stream that fails before its first part": "The metric says what the span says",
    "mounted application": "http.route has the mount point",
    "mounted application, exception": "http.route has the mount point",
}


class QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


def make_app(**config: Any) -> flask.Flask:
    """An application that is not instrumented yet."""
    app = flask.Flask(__name__)
    app.config.update(config)

    @app.teardown_request
    def teardown(error: BaseException | None) -> None:
        if flask.request.args.get("fail") == "teardown":
            raise LookupError("in teardown")

    return app


def add_routes(app: flask.Flask, work: trace.Tracer) -> None:
    """Give `app` the routes of the cases, after it has been instrumented."""
    methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "QUERY"]
    app.add_url_rule("/all", "all", lambda: flask.request.get_data() or "all", methods=methods)
    app.add_url_rule("/users/<int:id>", "user", lambda id: f"user {id}")
    app.add_url_rule("/status/<int:code>", "status", lambda code: ("", code))
    app.add_url_rule("/redirect", "redirect", lambda: flask.redirect("/users/1"))
    app.add_url_rule("/folder/", "folder", lambda: "folder")
    app.add_url_rule("/health", "health", lambda: "ok")
    app.add_url_rule("/exception", "exception", lambda: str(1 // 0))
    app.add_url_rule("/abort", "abort", lambda: flask.abort(503))
    app.add_url_rule("/stream", "stream", lambda: iter(["a", "b"]))

    @app.get("/handled")
    def handled() -> str:
        raise KeyError

    @app.errorhandler(KeyError)
    def handle(error: KeyError) -> tuple[str, int]:
        return "handled", 400

    @app.get("/http-exception")
    def http_exception() -> str:
        raise ServiceUnavailable

    @app.get("/stream-with-context")
    def stream_with_context() -> flask.Response:
        def parts() -> Iterator[str]:
            yield flask.request.path
            yield "end"

        return flask.Response(flask.stream_with_context(parts()))

    @app.get("/stream-with-spans")
    def stream_with_spans() -> Iterator[str]:
        yield "a"
        with work.start_as_current_span("work"):
            yield "b"

    @app.get("/stream-that-fails/<int:after>")
    def stream_that_fails(after: int) -> Iterator[str]:
        yield from "a" * after
        raise ValueError("in a stream")

    @app.get("/file")
    def file() -> flask.Response:
        return flask.send_file(io.BytesIO(b"a file"), download_name="file.txt")

    shop = flask.Blueprint("shop", __name__, url_prefix="/shop")
    shop.add_url_rule("/items/<name>", "item", lambda name: name)
    app.register_blueprint(shop)

    @app.before_request
    def before() -> str | None:
        if flask.request.args.get("fail") == "before":
            raise ValueError("before")
        return flask.request.args.get("answer")

    @app.after_request
    def after(response: flask.Response) -> flask.Response:
        if flask.request.args.get("fail") == "after":
            raise ValueError("after")
        return response


@contextlib.contextmanager
def serving(application: WSGIApplication) -> Iterator[tuple[str, int]]:
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=QuietHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield "127.0.0.1", server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def described(span: ReadableSpan, names: dict[int, str], port: int) -> Record:
    """A span as something to compare: what differs from run to run is replaced or left out."""
    record: Record = dict(span.attributes or {})
    if "client.port" in record:
        record["client.port"] = "a port"
    if record.get("server.port") == port:
        record["server.port"] = "the server's port"
    parent = span.parent and (names.get(span.parent.span_id) or trace.format_span_id(span.parent.span_id))
    return record | {
        "NAME": span.name,
        "KIND": span.kind.name,
        "STATUS": (span.status.status_code.name, span.status.description),
        "EVENTS": [(event.name, (event.attributes or {}).get("exception.type")) for event in span.events],
        "LINKS": [trace.format_span_id(link.context.span_id) for link in span.links],
        "PARENT": parent,
    }


@dataclass(frozen=True)
class Outcome:
    """What a client and a receiver of telemetry get for a request."""

    status: str
    body: bytes
    spans: list[Record]
    points: dict[str, list[tuple[Any, ...]]]  # of metrics: the attributes and the counts


def run(instrumentation: ModuleType, case: Case) -> Outcome:
    """Send the request of `case` to an application that `instrumentation` has instrumented."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider, meter_provider = TracerProvider(), MeterProvider([reader])
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app, inner = make_app(**case.config), make_app(**case.config)
    for each in (app, inner):
        instrumentation.FlaskInstrumentor().instrument_app(
            each,
            excluded_urls="/health",
            tracer_provider=provider,
            meter_provider=meter_provider,
            enable_commenter=False,
        )
        add_routes(each, provider.get_tracer("work"))
    application: WSGIApplication = DispatcherMiddleware(app, {"/mounted": inner})
    if case.config.get("PROXY"):
        application = ProxyFix(application, x_for=1, x_proto=1, x_host=1)
    with serving(application) as address, socket.create_connection(address, timeout=10) as connection:
        connection.sendall(case.raw())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        port = address[1]
    head, _, body = answer.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"").partition(b"\r\n\r\n")
    spans = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans if span.context}
    points = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for metric in resource.scope_metrics[0].metrics:
            points[metric.name] = [
                (dict(point.attributes or {}), getattr(point, "count", None), getattr(point, "value", None))
                for point in metric.data.data_points
            ]
    meter_provider.shutdown()
    status = head.partition(b"\r\n")[0].decode()
    return Outcome(status, body, [described(span, names, port) for span in spans], points)


@functools.cache
def outcomes(name: str) -> tuple[Outcome, Outcome]:
    """What the stock instrumentor and what ours makes of a case."""
    return run(stock, CASES[name]), run(ours, CASES[name])


def changed(records: list[Record], case: Case, change: Callable[[Record, Case], None]) -> list[Record]:
    records = copy.deepcopy(records)
    for record in records:
        change(record, case)
    return records


def in_order(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda record: str(record["NAME"]))


@pytest.mark.parametrize("name", CASES)
def test_spans_equal_the_stock_instrumentors_except_for_listed_differences(name: str) -> None:
    plain, traced = outcomes(name)
    expected = plain.spans
    for change in DIFFERENCES.values():
        expected = changed(expected, CASES[name], change)
    assert in_order(traced.spans) == in_order(expected)
    assert (traced.status, traced.body) == (plain.status, plain.body)


@pytest.mark.parametrize("reason", DIFFERENCES)
def test_every_listed_difference_exists(reason: str) -> None:
    assert any(
        changed(spans, case, DIFFERENCES[reason]) != spans
        for name, case in CASES.items()
        for spans in [outcomes(name)[0].spans]
    )


@pytest.mark.parametrize("name", CASES)
def test_metrics_equal_the_stock_instrumentors_except_for_listed_differences(name: str) -> None:
    plain, traced = outcomes(name)
    assert (traced.points != plain.points) == (name in MEASURED_DIFFERENTLY)
    for attributes, count, _ in traced.points.get("http.server.request.duration", ()):
        assert count == 1
        assert any(attributes.items() <= span.items() for span in traced.spans)
