"""The span of a request to a Flask application, from the server's call to the end of the response body."""

from __future__ import annotations

import contextvars
import functools
import importlib.metadata
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import time_ns
from typing import Any, Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import flask
from opentelemetry import context as contexts
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.propagators import FuncSetter, get_global_response_propagator
from opentelemetry.metrics import MeterProvider
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import HTTP_RESPONSE_STATUS_CODE
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from traced_flask.callers import Callers
from traced_flask.http_metrics import HttpMetrics
from traced_flask.request_attributes import CapturedHeaders, describe, method_of, path_of
from traced_flask.response_headers import trace_headers

RequestHook = Callable[[Span, WSGIEnvironment], None]
ResponseHook = Callable[[Span, str, list[tuple[str, str]]], None]

SCOPE: Final = ("traced_flask", importlib.metadata.version("traced-flask"))
SCHEMA: Final = Schemas.V1_21_0.value
MATCH_ALL: Final = re.compile("")


def append(headers: list[tuple[str, str]], name: str, value: str) -> None:
    headers.append((name, value))


APPEND: Final = FuncSetter(append)  # type: ignore[no-untyped-call]


class Middleware:
    """WSGI middleware around an instrumented Flask application."""

    def __init__(
        self,
        app: flask.Flask,
        request_hook: RequestHook | None,
        response_hook: ResponseHook | None,
        tracer_provider: TracerProvider | None,
        excluded_urls: str,
        meter_provider: MeterProvider | None,
    ) -> None:
        self.app = app
        self.wsgi_app: WSGIApplication = app.wsgi_app
        self.request_hook = request_hook
        self.response_hook = response_hook
        self.tracer = trace.get_tracer(*SCOPE, tracer_provider, SCHEMA)
        self.meter_provider = meter_provider
        self.captured = CapturedHeaders()
        patterns = [pattern.strip() for pattern in excluded_urls.split(",") if pattern.strip()]
        self.excluded_urls = any_of(pattern for pattern in patterns if "//" in pattern)
        self.excluded_paths = any_of(pattern for pattern in patterns if "//" not in pattern)

    @functools.cached_property
    def callers(self) -> Callers:
        """The trusted callers, from the configuration at the first request."""
        return Callers.from_config(self.app.config)

    @functools.cached_property
    def metrics(self) -> HttpMetrics | None:
        """The metrics; None if no meter provider is set at the first request."""
        provider = self.meter_provider or metrics.get_meter_provider()
        if type(provider).__module__.startswith("opentelemetry.metrics"):  # the API's no-op providers
            return None
        return HttpMetrics(provider.get_meter(*SCOPE, SCHEMA))

    def excludes(self, environ: WSGIEnvironment) -> bool:
        """Return whether the request is excluded from traces and metrics."""
        path = path_of(environ)
        if self.excluded_paths and self.excluded_paths.search(path):
            return True
        host = environ.get("HTTP_HOST", "").partition("/")[0]  # or a path in the header could exclude any request
        return bool(self.excluded_urls and self.excluded_urls.search(f"{environ['wsgi.url_scheme']}://{host}{path}"))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        outer = current.get()
        is_mounted = outer is not None and outer.span is None  # inside an application whose span has not started yet
        if is_mounted or ((self.excluded_paths or self.excluded_urls) and self.excludes(environ)):
            return self.wsgi_app(environ, start_response)
        exchange = Exchange(self, environ, start_response)
        token = current.set(exchange)
        try:
            return exchange.wrap(self.wsgi_app(environ, exchange.start_response))
        except BaseException as error:
            exchange.crash(error)
            raise
        finally:
            if exchange.attached is not None:
                contexts.detach(exchange.attached)
            current.reset(token)

    def install(self) -> None:
        """Trace every request from now on."""
        self.app.wsgi_app = self  # type: ignore[method-assign]
        for signal, receiver in SIGNALS:
            signal.connect(receiver, self.app)

    def remove(self) -> None:
        """Stop tracing requests."""
        self.excluded_paths = MATCH_ALL
        if self.app.wsgi_app is self:  # not if another middleware wraps this one
            self.app.wsgi_app = self.wsgi_app  # type: ignore[assignment,method-assign]
        for signal, receiver in SIGNALS:
            signal.disconnect(receiver, self.app)


def any_of(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Combine patterns into one; None if there are none."""
    joined = "|".join(f"(?:{pattern})" for pattern in patterns)
    return re.compile(joined) if joined else None


class Exchange:
    """One request and its response, with their span.

    Flask calls `start_response`. If the body is streamed, the server iterates over the exchange.
    """

    span: Span | None = None
    context: Context
    attached: contextvars.Token[Context] | None = None
    in_flask = False  # whether hooks may use `flask.request`
    status = 0
    error: BaseException | None = None
    error_type: str | None = None
    is_complete = False  # whether the body is complete when the application returns
    headers: Sequence[tuple[str, str]] = ()
    is_sent = False  # whether the status and a part of the body have been sent
    is_ended = False

    def __init__(self, middleware: Middleware, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self.start_time = time_ns()
        self.middleware = middleware
        self.environ = environ
        self.server_start_response = start_response
        if middleware.metrics:
            self.active = method_of(environ), environ["wsgi.url_scheme"]
            middleware.metrics.enter(*self.active)

    def begin(self, route: str | None = None) -> Span:
        """Start the span."""
        middleware, environ = self.middleware, self.environ
        name, self.attributes = describe(environ, route)
        if trace.get_current_span() is trace.INVALID_SPAN:
            kind = SpanKind.SERVER
            parent, links = middleware.callers.parent(environ)
        else:
            kind, parent, links = SpanKind.INTERNAL, contexts.get_current(), ()
        self.span = span = middleware.tracer.start_span(name, parent, kind, self.attributes, links, self.start_time)
        self.context = trace.set_span_in_context(span, parent)
        if middleware.captured.of_requests and kind is SpanKind.SERVER:
            span.set_attributes(middleware.captured.in_request(environ))
        return span

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        """Set the status on the span, add the trace to the headers, and start the response."""
        span, middleware = self.span or self.begin(), self.middleware
        self.headers = headers
        code = status.partition(" ")[0]
        self.status = int(code) if code.isdecimal() else 0
        span.set_attribute(HTTP_RESPONSE_STATUS_CODE, self.status)
        if not 100 <= self.status < 500:
            self.error_type = code
            span.set_attribute(ERROR_TYPE, self.error_type)
            if self.error is None:
                span.set_status(StatusCode.ERROR)
        if propagator := get_global_response_propagator():  # type: ignore[no-untyped-call]
            propagator.inject(headers, self.context, APPEND)
        else:
            headers += trace_headers(span.get_span_context())
        if middleware.captured.of_responses:
            span.set_attributes(middleware.captured.in_response(headers))
        if middleware.response_hook and self.in_flask:
            middleware.response_hook(span, status, headers)
        return self.server_start_response(status, headers, *([exc_info] if exc_info else []))

    def record(self, error: BaseException) -> None:
        """Record an unhandled exception."""
        if error is not self.error:
            self.error = error
            span = self.span or self.begin()
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))

    def crash(self, error: BaseException) -> None:
        """End the span with an exception that reaches the server, which returns 500 unless the status has been sent."""
        if self.is_ended:
            return
        span = self.span or self.begin()
        self.record(error)
        if not self.is_sent:
            self.status = 500
            span.set_attribute(HTTP_RESPONSE_STATUS_CODE, self.status)
        module, name = type(error).__module__, type(error).__qualname__
        self.error_type = name if module == "builtins" else f"{module}.{name}"
        span.set_attribute(ERROR_TYPE, self.error_type)
        self.end()

    def end(self) -> None:
        """End the span and record metrics, once."""
        if self.is_ended:
            return
        self.is_ended = True
        span = self.span or self.begin()
        now = time_ns()
        span.end(now)
        if http_metrics := self.middleware.metrics:
            seconds = (now - self.start_time) / 1e9
            http_metrics.record(seconds, self.attributes, self.status, self.error_type, self.context)
            http_metrics.leave(*self.active)
        self.error = None  # its traceback refers to this exchange

    def wrap(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return `body` if it is complete or a file that the server sends itself, else this exchange around it."""
        file_wrapper = self.environ.get("wsgi.file_wrapper")
        is_file = isinstance(file_wrapper, type) and isinstance(body, file_wrapper)
        if self.is_complete or is_file or isinstance(body, (list, tuple)):
            self.end()
            return body
        self.body = body
        lengths = [int(value) for name, value in self.headers if name.lower() == "content-length" and value.isdecimal()]
        self.remaining = lengths[0] if lengths else 0  # bytes; without Content-Length it only gets negative
        self.run = contextvars.copy_context().run  # the body runs with the span and the application's context variables
        return self

    def __iter__(self) -> Iterator[bytes]:
        self.parts = self.run(iter, self.body)
        return self

    def __next__(self) -> bytes:
        try:
            part = self.run(next, self.parts)
        except StopIteration:
            self.end()
            raise
        except BaseException as error:
            self.crash(error)
            raise
        if part:
            self.is_sent = True
            self.remaining -= len(part)
            if self.remaining == 0:
                self.end()
        return part

    def close(self) -> None:
        """Close the body. The server calls this at its end or when the client disconnects."""
        try:
            if close := getattr(self.body, "close", None):
                self.run(close)
        except BaseException as error:
            self.crash(error)
            raise
        if not self.is_ended:
            (self.span or self.begin()).add_event("client disconnected")
        self.end()


current: Final[contextvars.ContextVar[Exchange | None]] = contextvars.ContextVar("exchange", default=None)


def start_span(app: flask.Flask, **_: Any) -> None:
    """Start the span and make it current, after Flask has matched the route."""
    exchange = current.get()
    if exchange is not None and exchange.span is None:
        rule = flask.request.url_rule
        span = exchange.begin(None if rule is None else rule.rule)
        exchange.attached = contexts.attach(exchange.context)
        exchange.in_flask = True
        if exchange.middleware.request_hook:
            exchange.middleware.request_hook(span, exchange.environ)


def record_exception(app: flask.Flask, exception: BaseException, **_: Any) -> None:
    """Record the exception for which Flask returns 500."""
    if (exchange := current.get()) is not None:
        exchange.record(exception)


def check_streaming(app: flask.Flask, response: flask.Response, **_: Any) -> None:
    """Record whether the body is complete or streamed."""
    if (exchange := current.get()) is not None:
        exchange.is_complete = not response.is_streamed


SIGNALS: Final = (
    (flask.request_started, start_span),
    (flask.got_request_exception, record_exception),
    (flask.request_finished, check_streaming),
)
