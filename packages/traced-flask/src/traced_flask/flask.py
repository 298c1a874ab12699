"""Traces Flask applications: what `opentelemetry.instrumentation.flask` does, for less CPU time, to a stream's end.

Usage:
    from flask import Flask
    from traced_flask import FlaskInstrumentor

    app = Flask(__name__)
    FlaskInstrumentor().instrument_app(app, excluded_urls="/health")

Each request has a SERVER span, or an INTERNAL one where a span is current already:
- It has the stable HTTP semantic conventions, its name is the method and the route (`GET /users/<id>`), or the method
  alone where no route matches. Query strings are redacted.
- It starts when Flask has matched the route. It ends when the application returns a complete body, or with the last
  part of a streamed one; a generator runs in the span's context. A file that the server sends by itself
  (`wsgi.file_wrapper`) is not waited for. A client that leaves before the end adds the event "client disconnected".
- An unhandled exception is recorded on it, even one in a teardown function or in a generator.
- Its trace is the caller's as far as the caller is trusted: see `callers.Callers`, TRUST_TRACEPARENT, CORS_ORIGINS.
- The response names the trace in `traceresponse` and `Server-Timing`, unless
  `opentelemetry.instrumentation.propagators.set_global_response_propagator` has set other headers.

With a meter provider, `http.server.request.duration` (seconds) and `http.server.active_requests` are recorded.

Hooks are the stock ones: `request_hook(span, environ)` is called when the span has started,
`response_hook(span, status, headers)` before the response starts; it may add headers.

`excluded_urls` and OTEL_PYTHON_FLASK_EXCLUDED_URLS, else OTEL_PYTHON_EXCLUDED_URLS, are comma-separated regular
expressions. One with `//` is searched in the URL, any other in its path, always without the query. A request that
matches any of them is neither traced nor measured. (The stock instrumentor ignores the variable if there is an
argument.) `excluded_urls=""` excludes nothing.

OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST, ..._SERVER_RESPONSE and ..._SANITIZE_FIELDS and
OTEL_PYTHON_INSTRUMENTATION_HTTP_CAPTURE_ALL_METHODS are supported. OTEL_SDK_DISABLED=true switches everything off.

The stock instrumentor traces the application instead, with the query redacted, for what only it can do:
`OTEL_SEMCONV_STABILITY_OPT_IN=http/dup`, `enable_commenter=True`, `commenter_options`, and any argument that is not
named here.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Collection
from typing import Any, Final

import flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor as StockInstrumentor
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, TracerProvider

from traced_flask import settings
from traced_flask.middleware import Middleware, RequestHook, ResponseHook
from traced_flask.redaction import redact

EXTENSION: Final = "traced_flask"  # in Flask.extensions: what removes the instrumentation

logger = logging.getLogger(__name__)


def all_excluded_urls(argument: str | None) -> str:
    """Return the argument and what the environment adds to it."""
    if argument == "":
        return ""
    variable = os.environ.get("OTEL_PYTHON_FLASK_EXCLUDED_URLS", os.environ.get("OTEL_PYTHON_EXCLUDED_URLS"))
    return ",".join(filter(None, (argument, variable)))


def redact_and_call(hook: ResponseHook | None, span: Span, status: str, headers: list[tuple[str, str]]) -> None:
    """The response hook of an application that the stock instrumentor traces."""
    redact(span)
    if hook:
        hook(span, status, headers)


class FlaskInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments one application, or all that are created after `instrument()`, as the module describes."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """The versions of Flask that are instrumented."""
        return ("flask >= 3.0",)

    @staticmethod
    def instrument_app(
        app: flask.Flask,
        request_hook: RequestHook | None = None,
        response_hook: ResponseHook | None = None,
        tracer_provider: TracerProvider | None = None,
        excluded_urls: str | None = None,
        enable_commenter: bool = False,
        commenter_options: dict[str, Any] | None = None,
        meter_provider: MeterProvider | None = None,
        **more: Any,
    ) -> None:
        """Trace every request of `app`; without a provider, the global one is used, even if it is set later."""
        if settings.disabled():
            return
        if EXTENSION in app.extensions:
            logger.warning("The application is already instrumented.")
            return
        excluded_urls = all_excluded_urls(excluded_urls)
        opt_in = os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")
        if enable_commenter or commenter_options or more or "http/dup" in map(str.strip, opt_in):
            StockInstrumentor.instrument_app(  # type: ignore[no-untyped-call]
                app,
                request_hook=request_hook,
                response_hook=functools.partial(redact_and_call, response_hook),
                tracer_provider=tracer_provider,
                excluded_urls=excluded_urls,
                enable_commenter=enable_commenter or bool(commenter_options),
                commenter_options=commenter_options,
                meter_provider=meter_provider,
                **more,
            )
            app.extensions[EXTENSION] = functools.partial(StockInstrumentor.uninstrument_app, app)
            return
        middleware = Middleware(app, request_hook, response_hook, tracer_provider, excluded_urls, meter_provider)
        middleware.install()
        app.extensions[EXTENSION] = middleware.remove

    @staticmethod
    def uninstrument_app(app: flask.Flask) -> None:
        """Stop tracing `app`."""
        if (remove := app.extensions.pop(EXTENSION, None)) is None:
            logger.warning("The application is not instrumented.")
            return
        remove()

    def _instrument(self, **kwargs: Any) -> None:
        """Instrument every application from its construction on, also of classes that are imported already."""
        self.flask_init = flask.Flask.__init__

        @functools.wraps(self.flask_init)
        def instrumented(app: flask.Flask, *args: Any, **arguments: Any) -> None:
            self.flask_init(app, *args, **arguments)
            self.instrument_app(app, **kwargs)

        flask.Flask.__init__ = instrumented  # type: ignore[assignment,method-assign]

    def _uninstrument(self, **kwargs: Any) -> None:
        flask.Flask.__init__ = self.flask_init  # type: ignore[method-assign]
