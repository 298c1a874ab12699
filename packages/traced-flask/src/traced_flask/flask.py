"""Traces Flask applications like `opentelemetry.instrumentation.flask`, in less CPU time and to the end of streams.

Usage:
    from flask import Flask
    from traced_flask import FlaskInstrumentor

    app = Flask(__name__)
    FlaskInstrumentor().instrument_app(app, excluded_urls="/health")

Each request gets a SERVER span, or an INTERNAL one if a span is already current:
- It follows the stable HTTP semantic conventions. Its name is the method and the route (`GET /users/<id>`), or only the
  method if no route matches. Query strings are redacted.
- It starts when Flask has matched the route. It ends when the application returns a complete body, or with the last
  part of a streamed one; a generator runs in the span's context. The span does not wait for a file that the server
  sends itself (`wsgi.file_wrapper`). A client that disconnects early adds the event "client disconnected".
- It records unhandled exceptions, even those in teardown functions and generators.
- It continues the caller's trace as far as the caller is trusted: see `callers.Callers`, TRUST_TRACEPARENT,
  CORS_ORIGINS.
- The response names the trace in `traceresponse` and `Server-Timing`, unless
  `opentelemetry.instrumentation.propagators.set_global_response_propagator` has set other headers.

With a meter provider, `http.server.request.duration` (seconds) and `http.server.active_requests` are recorded.

Hooks have the stock signatures. `request_hook(span, environ)` is called after the span starts, and
`response_hook(span, status, headers)` before the response starts. It may add headers.

`excluded_urls` and OTEL_PYTHON_FLASK_EXCLUDED_URLS, else OTEL_PYTHON_EXCLUDED_URLS, are comma-separated regular
expressions. One with `//` is searched in the URL, any other in its path, always without the query. A request that
matches any of them is neither traced nor measured. (The stock instrumentor ignores the variable if there is an
argument.) `excluded_urls=""` excludes nothing.

OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST, ..._SERVER_RESPONSE and ..._SANITIZE_FIELDS and
OTEL_PYTHON_INSTRUMENTATION_HTTP_CAPTURE_ALL_METHODS are supported. OTEL_SDK_DISABLED=true turns everything off.

Some features need the stock instrumentor, which then traces the application, with the query redacted:
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

EXTENSION: Final = "traced_flask"  # in Flask.extensions: a function that removes the instrumentation

logger = logging.getLogger(__name__)


def all_excluded_urls(argument: str | None) -> str:
    """Return the argument and what the environment adds to it."""
    if argument == "":
        return ""
    variable = os.environ.get("OTEL_PYTHON_FLASK_EXCLUDED_URLS", os.environ.get("OTEL_PYTHON_EXCLUDED_URLS"))
    return ",".join(filter(None, (argument, variable)))


def redact_and_call(hook: ResponseHook | None, span: Span, status: str, headers: list[tuple[str, str]]) -> None:
    """Response hook for applications that the stock instrumentor traces."""
    redact(span)
    if hook:
        hook(span, status, headers)


class FlaskInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments one application, or all that are created after `instrument()`. See the module's docstring."""

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
        """Trace every request of `app`. The default provider is the global one, even if it is set later."""
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
        """Instrument every application that is created from now on, even of classes that are already imported."""
        self.flask_init = flask.Flask.__init__

        @functools.wraps(self.flask_init)
        def instrumented(app: flask.Flask, *args: Any, **arguments: Any) -> None:
            self.flask_init(app, *args, **arguments)
            self.instrument_app(app, **kwargs)

        flask.Flask.__init__ = instrumented  # type: ignore[assignment,method-assign]

    def _uninstrument(self, **kwargs: Any) -> None:
        flask.Flask.__init__ = self.flask_init  # type: ignore[method-assign]
