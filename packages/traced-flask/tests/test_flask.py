"""FlaskInstrumentor: what is traced, under which name, with which settings."""

from __future__ import annotations

import importlib.metadata
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import flask
import pytest
from flask import Flask as FlaskImportedBefore
from opentelemetry import context, metrics, trace
from opentelemetry.instrumentation import propagators
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import INVALID_SPAN, SpanKind, StatusCode
from recorder import Recorder, attributes, events, ids
from traced_flask.flask import FlaskInstrumentor
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import EnvironBuilder, create_environ, run_wsgi_app


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


# Taking it on and off.


def test_a_provider_that_is_set_after_the_application_is_instrumented_is_used(run: Callable[..., Any]) -> None:
    result = run("""
from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from traced_flask import FlaskInstrumentor

app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)
app.add_url_rule("/hello", "hello", lambda: "hello")
app.test_client().get("/hello")
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)
app.test_client().get("/hello")
""")
    assert result.stdout.count('"name": "GET /hello"') == 1, result.stderr


def test_uninstrumenting_stops_tracing(recorder: Recorder) -> None:
    app = recorder.app()
    FlaskInstrumentor().uninstrument_app(app)
    assert "traceresponse" not in app.test_client().get("/hello/a").headers
    FlaskInstrumentor().instrument_app(app, tracer_provider=recorder.provider)
    app.test_client().get("/hello/b")
    assert recorder.names() == ["GET /hello/<name>"]


def test_uninstrumenting_keeps_a_middleware_around_the_application(recorder: Recorder) -> None:
    app = recorder.app()
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    FlaskInstrumentor().uninstrument_app(app)
    app.add_url_rule("/address", "address", lambda: flask.request.remote_addr or "")
    response = app.test_client().get("/address", headers={"X-Forwarded-For": "192.0.2.7"})
    assert (response.text, recorder.spans()) == ("192.0.2.7", [])


def test_an_application_is_instrumented_once(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    app = recorder.app()
    FlaskInstrumentor().instrument_app(app, tracer_provider=recorder.provider)
    app.test_client().get("/hello/a")
    assert len(recorder.spans()) == 1
    FlaskInstrumentor().uninstrument_app(app)
    FlaskInstrumentor().uninstrument_app(app)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "The application is already instrumented.",
        "The application is not instrumented.",
    ]


def test_every_application_is_instrumented_even_if_its_class_was_imported_before(recorder: Recorder) -> None:
    FlaskInstrumentor().instrument(tracer_provider=recorder.provider, excluded_urls="/health")
    try:
        app = FlaskImportedBefore("shop")
    finally:
        FlaskInstrumentor().uninstrument()
    for path in ("/users/<int:id>", "/health"):
        app.add_url_rule(path, path, lambda **_: "ok")
    for path in ("/users/1", "/health"):
        app.test_client().get(path)
    FlaskImportedBefore("another").test_client().get("/")
    assert recorder.names() == ["GET /users/<int:id>"]


def test_nothing_is_traced_where_opentelemetry_is_disabled(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    app = recorder.app()
    app.test_client().get("/hello/a")
    assert recorder.spans() == []


def test_an_application_can_be_instrumented_after_its_first_request(recorder: Recorder) -> None:
    app = flask.Flask("shop")
    app.add_url_rule("/", "index", lambda: "index")
    app.test_client().get("/")
    FlaskInstrumentor().instrument_app(app, tracer_provider=recorder.provider)
    app.test_client().get("/")
    assert recorder.names() == ["GET /"]


# The span.


def test_a_span_names_its_instrumentation_scope(recorder: Recorder) -> None:
    recorder.app().test_client().get("/hello/a")
    scope = recorder.only().instrumentation_scope
    assert scope
    assert (scope.name, scope.version) == ("traced_flask", importlib.metadata.version("traced-flask"))


def test_handlers_registered_earlier_also_run_within_the_span(recorder: Recorder) -> None:
    app = flask.Flask("shop")
    seen = []
    app.before_request(lambda: seen.append(trace.get_current_span()))
    app.teardown_request(lambda error: seen.append(trace.get_current_span()))
    FlaskInstrumentor().instrument_app(app, tracer_provider=recorder.provider)
    app.test_client().get("/")
    assert {span.get_span_context().span_id for span in seen} == {ids(recorder.only()).span_id}
    assert trace.get_current_span() is INVALID_SPAN


def test_a_request_within_another_span_is_an_internal_child(recorder: Recorder) -> None:
    with recorder.tracer.start_as_current_span("around") as around:
        recorder.app().test_client().get("/hello/a", headers={"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"})
    span = recorder.spans()[0]
    assert span.kind is SpanKind.INTERNAL
    assert span.parent == around.get_span_context()
    assert not span.links


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SERVER_PORT": "", "REMOTE_PORT": "x", "HTTP_HOST": "shop"}, {"server.address": "shop"}),
        ({"HTTP_HOST": "shop:99999999999999999999"}, {"server.address": "shop:99999999999999999999"}),
        ({"REMOTE_ADDR": "", "SERVER_PROTOCOL": "", "HTTP_HOST": ""}, {}),
        ({"REMOTE_ADDR": "192.0.2.7", "REMOTE_HOST": "a.example"}, {"client.address": "a.example"}),
    ],
)
def test_a_servers_missing_or_invalid_environ_values_are_tolerated(
    recorder: Recorder, environ: dict[str, str], expected: dict[str, str]
) -> None:
    status = run_wsgi_app(recorder.app(), {**create_environ("/nowhere"), **environ})[1]
    found = attributes(recorder.only())
    assert status == "404 NOT FOUND"
    assert {name: found[name] for name in expected} == expected
    assert {"client.address", "server.address"} & set(environ) <= set(expected)


def test_every_method_is_named_if_configured(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_INSTRUMENTATION_HTTP_CAPTURE_ALL_METHODS", "true")
    recorder.app().test_client().open("/hello/a", method="BREW")
    assert recorder.only().name == "BREW"
    assert attributes(recorder.only())["http.request.method"] == "BREW"


def test_an_unhandled_exception_is_recorded_once_with_its_message(recorder: Recorder) -> None:
    app = recorder.app({"PROPAGATE_EXCEPTIONS": True})
    app.add_url_rule("/fail", "fail", lambda: str(1 // 0))
    with pytest.raises(ZeroDivisionError):
        app.test_client().get("/fail")
    span = recorder.only()
    assert events(span) == [("exception", "ZeroDivisionError")]
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "ZeroDivisionError: integer division or modulo by zero"
    assert trace.get_current_span() is INVALID_SPAN


def test_an_exception_before_flask_matches_the_request_is_on_a_span(recorder: Recorder) -> None:
    class Broken(flask.sessions.SecureCookieSessionInterface):
        def open_session(self, app: flask.Flask, request: flask.Request) -> None:
            raise LookupError("no session")

    def must_not_be_called(*_: object) -> None:
        raise AssertionError

    app = recorder.app(request_hook=must_not_be_called, response_hook=must_not_be_called)
    app.session_interface = Broken()
    response = app.test_client().get("/hello/a")
    span = recorder.only()
    assert (response.status_code, span.name, events(span)) == (500, "GET", [("exception", "LookupError")])
    assert attributes(span)["http.response.status_code"] == 500
    assert trace.get_current_span() is INVALID_SPAN


def test_requests_in_threads_use_their_own_spans(recorder: Recorder) -> None:
    app = recorder.app()
    barrier = threading.Barrier(8, timeout=30)

    @app.get("/jobs/<int:number>")
    def work(number: int) -> str:
        barrier.wait()
        with recorder.tracer.start_as_current_span(f"work {number}"):
            barrier.wait()
        return ""

    threads = [threading.Thread(target=app.test_client().get, args=[f"/jobs/{number}"]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    requests = {ids(span).span_id: span for span in recorder.spans() if span.kind is SpanKind.SERVER}
    children = [span for span in recorder.spans() if span.kind is SpanKind.INTERNAL]
    assert len(requests) == len(children) == 8
    for child in children:
        assert child.parent
        assert attributes(requests[child.parent.span_id])["url.path"] == child.name.replace("work ", "/jobs/")


def test_a_copied_request_context_does_not_end_the_span(recorder: Recorder) -> None:
    app = recorder.app()

    @app.get("/copied")
    def copied() -> str:
        thread = threading.Thread(target=flask.copy_current_request_context(lambda: flask.request.path))
        thread.start()
        thread.join()
        return str(trace.get_current_span().is_recording())

    assert app.test_client().get("/copied").text == "True"
    assert recorder.names() == ["GET /copied"]


def test_a_request_from_a_view_to_its_own_application_is_a_child(recorder: Recorder) -> None:
    app = recorder.app()
    app.add_url_rule("/outer", "outer", lambda: app.test_client().get("/hello/a").text)
    assert app.test_client().get("/outer").text == "hello a"
    inner, outer = recorder.spans()
    assert (inner.name, outer.name) == ("GET /hello/<name>", "GET /outer")
    assert inner.parent == outer.get_span_context()


def test_an_unsampled_span_gets_no_attributes_and_the_response_says_so() -> None:
    recorder = Recorder(sampler=ALWAYS_OFF)
    response = recorder.app().test_client().get("/hello/a")
    assert recorder.spans() == []
    assert response.headers["traceresponse"].endswith(("-00", "-02"))


# Applications within applications, and other middleware.


def test_an_application_that_is_mounted_within_a_traced_one_shares_its_span(recorder: Recorder) -> None:
    outer, inner = flask.Flask("outer"), recorder.app()
    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/in": inner})  # type: ignore[method-assign]
    FlaskInstrumentor().instrument_app(outer, tracer_provider=recorder.provider)
    response = outer.test_client().get("/in/hello/a")
    span = recorder.only()
    assert (span.name, span.kind) == ("GET /in/hello/<name>", SpanKind.SERVER)
    assert response.headers.getlist("traceresponse") == [response.headers["traceresponse"]]


def test_a_middleware_that_responds_instead_of_flask_gets_a_span_named_by_method(recorder: Recorder) -> None:
    def answers(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"from a middleware"]

    app = flask.Flask("shop")
    app.wsgi_app = answers  # type: ignore[method-assign]
    FlaskInstrumentor().instrument_app(app, tracer_provider=recorder.provider)
    response = app.test_client().get("/any")
    assert (recorder.only().name, response.text) == ("GET", "from a middleware")
    assert attributes(recorder.only())["http.response.status_code"] == 200


def test_a_middleware_that_starts_the_application_late_is_traced(recorder: Recorder) -> None:
    app = flask.Flask("shop")
    around: WSGIApplication = app.wsgi_app

    def late(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        yield from around(environ, start_response)

    app.wsgi_app = late  # type: ignore[method-assign]
    FlaskInstrumentor().instrument_app(app, tracer_provider=recorder.provider)
    app.add_url_rule("/late", "late", lambda: "late")
    assert app.test_client().get("/late").text == "late"
    assert (recorder.only().name, attributes(recorder.only())["http.response.status_code"]) == ("GET /late", 200)
    assert trace.get_current_span() is INVALID_SPAN


# Hooks.


def test_hooks_see_the_request_and_may_change_the_span_and_the_headers(recorder: Recorder) -> None:
    def on_request(span: trace.Span, environ: WSGIEnvironment) -> None:
        assert span is trace.get_current_span()
        span.update_name(f"{flask.request.endpoint} for {environ['HTTP_X_USER']}")

    def on_response(span: trace.Span, status: str, headers: list[tuple[str, str]]) -> None:
        span.set_attribute("app.status", status)
        headers.append(("X-Hook", flask.request.path))

    app = recorder.app(request_hook=on_request, response_hook=on_response)
    response = app.test_client().get("/hello/a", headers={"X-User": "ann"})
    assert response.headers["X-Hook"] == "/hello/a"
    assert recorder.only().name == "hello for ann"
    assert attributes(recorder.only())["app.status"] == "200 OK"


# Headers.


def test_a_response_names_its_trace_in_addition_to_the_applications_headers(recorder: Recorder) -> None:
    app = recorder.app()
    app.add_url_rule("/timed", "timed", lambda: ("", {"Server-Timing": "db;dur=53"}))
    headers = app.test_client().get("/timed").headers
    own = ids(recorder.only())
    value = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
    assert headers["traceresponse"] == value
    assert headers.getlist("Server-Timing") == ["db;dur=53", f'traceparent;desc="{value}"']


def test_the_applications_response_propagator_replaces_ours(recorder: Recorder) -> None:
    propagators.set_global_response_propagator(propagators.TraceResponsePropagator())  # type: ignore[no-untyped-call]
    try:
        headers = recorder.app().test_client().get("/hello/a").headers
    finally:
        propagators.set_global_response_propagator(None)  # type: ignore[no-untyped-call]
    assert headers["Access-Control-Expose-Headers"] == "traceresponse"
    assert len(headers.getlist("traceresponse")) == 1
    assert "Server-Timing" not in headers


def test_a_response_without_a_provider_has_no_trace_headers(recorder: Recorder) -> None:
    app = flask.Flask("shop")
    FlaskInstrumentor().instrument_app(app, tracer_provider=trace.NoOpTracerProvider())
    assert "traceresponse" not in app.test_client().get("/").headers


def test_the_headers_in_the_environment_are_captured(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_"
    monkeypatch.setenv(prefix + "SERVER_REQUEST", "X-Plan, x-tag-.*")
    monkeypatch.setenv(prefix + "SERVER_RESPONSE", "content-type,x-many,set-cookie")
    monkeypatch.setenv(prefix + "SANITIZE_FIELDS", "set-cookie,.*secret.*")
    app = recorder.app()
    headers = [("X-Many", "a"), ("X-Many", "b"), ("Set-Cookie", "id=marked"), ("X-Other", "other")]
    app.add_url_rule("/headers", "headers", lambda: flask.Response(headers=headers))
    app.test_client().get("/headers", headers={"x-plan": "gold", "X-Tag-Secret": "marked", "X-Other": "other"})
    captured = {name: value for name, value in attributes(recorder.only()).items() if ".header." in name}
    assert captured == {
        "http.request.header.x_plan": ("gold",),
        "http.request.header.x_tag_secret": ("[REDACTED]",),
        "http.response.header.content_type": ("text/html; charset=utf-8",),
        "http.response.header.x_many": ("a,b",),
        "http.response.header.set_cookie": ("[REDACTED]",),
    }


# Excluded URLs.


@pytest.mark.parametrize(
    ("excluded", "url", "host", "is_excluded"),
    [
        ("/api/health", "/api/health", "localhost", True),
        ("/api/health", "/api/health?x=1", "localhost", True),
        ("/api/health", "/api/health", "evil.example/x?", True),
        ("/api/health", "/api/health", "", True),
        ("/api/health", "/home", "evil.example/api/health", False),
        ("/api/health", "/home?next=/api/health", "localhost", False),
        ("health", "/home", "health.example", False),
        ("^/health$", "/health", "localhost", True),
        ("^/health$", "/health/more", "localhost", False),
        (" /a , /b ,", "/b", "localhost", True),
        (" /a , /b ,", "/c", "localhost", False),
        ("http://localhost/arg/1", "/arg/1", "localhost", True),
        ("http://localhost/arg/1", "/arg/1", "other", False),
        ("http://localhost/home", "/api", "localhost/home", False),
        ("", "/health", "localhost", False),
        ("/gr\u00fc\u00dfe", "/gr%C3%BC%C3%9Fe", "localhost", True),
    ],
)
def test_an_excluded_url_has_no_span_and_no_trace_headers(
    recorder: Recorder, excluded: str, url: str, host: str, is_excluded: bool
) -> None:
    builder = EnvironBuilder(url)
    environ = builder.get_environ() | {"HTTP_HOST": host}
    headers = run_wsgi_app(recorder.app(excluded_urls=excluded), environ)[2]
    assert (recorder.spans() == []) == ("traceresponse" not in headers) == is_excluded


@pytest.mark.parametrize(
    ("environ", "argument", "traced"),
    [
        ({"OTEL_PYTHON_EXCLUDED_URLS": "/a"}, None, ["/b", "/c"]),
        ({"OTEL_PYTHON_EXCLUDED_URLS": "/a", "OTEL_PYTHON_FLASK_EXCLUDED_URLS": "/b"}, None, ["/a", "/c"]),
        ({"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "/b"}, "/c", ["/a"]),
        ({"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "/b"}, "", ["/a", "/b", "/c"]),
        ({}, "/c", ["/a", "/b"]),
        ({}, None, ["/a", "/b", "/c"]),
    ],
)
@pytest.mark.parametrize("opt_in", ["http", "http/dup"])
def test_the_environment_excludes_urls_besides_those_of_the_argument(
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    argument: str | None,
    traced: list[str],
    opt_in: str,
) -> None:
    for name, value in {**environ, "OTEL_SEMCONV_STABILITY_OPT_IN": opt_in}.items():
        monkeypatch.setenv(name, value)
    client = recorder.app(excluded_urls=argument).test_client()
    for path in ("/a", "/b", "/c"):
        client.get(path)
    assert [attributes(span)["url.path"] for span in recorder.spans()] == traced


# What the stock instrumentor does.


def test_the_stock_instrumentor_writes_old_and_new_conventions_with_the_query_redacted(run: Callable[..., Any]) -> None:
    result = run(
        """
import json
from flask import Flask
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from traced_flask import FlaskInstrumentor

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
app = Flask(__name__)
FlaskInstrumentor().instrument_app(app, tracer_provider=provider, response_hook=lambda span, *_: span.add_event("hook"))
app.test_client().get("/hello?token=marked-secret")
FlaskInstrumentor().uninstrument_app(app)
app.test_client().get("/hello")
(span,) = exporter.get_finished_spans()
print(json.dumps([dict(span.attributes), [event.name for event in span.events], span.instrumentation_scope.name]))
""",
        OTEL_SEMCONV_STABILITY_OPT_IN="database, http/dup",
    )
    assert '"http.method": "GET"' in result.stdout, result.stderr
    assert '"http.request.method": "GET"' in result.stdout
    assert '"url.query": "REDACTED"' in result.stdout
    assert '["hook"], "opentelemetry.instrumentation.flask"' in result.stdout
    assert "marked-secret" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "tags"),
    [
        ({"enable_commenter": True}, {"framework", "controller", "route"}),
        ({"commenter_options": {"framework": False}}, {"controller", "route"}),
        ({}, None),
        ({"enable_commenter": False}, None),
    ],
)
def test_the_stock_instrumentor_comments_sql_on_request(
    recorder: Recorder, arguments: dict[str, Any], tags: set[str] | None
) -> None:
    app = recorder.app(**arguments)
    app.add_url_rule("/sql", "sql", lambda: {"tags": context.get_value("SQLCOMMENTER_ORM_TAGS_AND_VALUES")})
    token = context.attach(context.get_current())
    response = app.test_client().get("/sql")
    context.detach(token)
    found = (response.json or {})["tags"]
    assert (found and set(found)) == tags
    assert len(recorder.spans()) == 1


def test_an_unknown_argument_is_an_error_as_with_the_stock_instrumentor() -> None:
    with pytest.raises(TypeError, match="excluded_paths"):
        FlaskInstrumentor().instrument_app(flask.Flask("shop"), excluded_paths="/health")


# Metrics.


def points(reader: InMemoryMetricReader) -> dict[str, Any]:
    """The data points of each metric."""
    data = reader.get_metrics_data()
    return {
        metric.name: list(metric.data.data_points)
        for resource in (data.resource_metrics if data else ())
        for metric in resource.scope_metrics[0].metrics
    }


def test_the_duration_equals_the_spans_and_its_exemplar_links_to_it(recorder: Recorder) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], exemplar_filter=AlwaysOnExemplarFilter())
    recorder.app(meter_provider=provider).test_client().get("/hello/a")
    span, (point,) = recorder.only(), points(reader)["http.server.request.duration"]
    assert span.start_time
    assert span.end_time
    assert point.sum == pytest.approx((span.end_time - span.start_time) / 1e9)
    assert point.explicit_bounds == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    (exemplar,) = point.exemplars
    assert (exemplar.trace_id, exemplar.span_id) == (ids(span).trace_id, ids(span).span_id)
    provider.shutdown()


def test_a_request_is_active_while_it_runs(recorder: Recorder) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    app = recorder.app(meter_provider=provider)
    active: list[int] = []

    @app.get("/work")
    def work() -> str:
        active.extend(point.value for point in points(reader)["http.server.active_requests"])
        return str(1 // 0)

    app.test_client().get("/work")
    active.extend(point.value for point in points(reader)["http.server.active_requests"])
    assert active == [1, 0]
    provider.shutdown()


def test_a_meter_provider_that_is_set_after_the_application_is_instrumented_is_used(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = recorder.app()
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    app.test_client().get("/hello/a")
    assert [point.count for point in points(reader)["http.server.request.duration"]] == [1]
    provider.shutdown()
