"""The profiles service: a separate Flask application that imports nothing from the backend."""

import logging
import os
import tomllib
from pathlib import Path
from typing import Any

import traced_flask
from traced_flask import FlaskInstrumentor, LoggingHandler, OTLPLogExporter, OTLPSpanExporter
from flask import Flask
from flask.helpers import get_debug_flag
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from werkzeug.exceptions import HTTPException

from example.profiles import people

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))


def set_up_telemetry() -> None:
    """Send traces and logs, as backend/telemetry.py does."""
    endpoint = os.environ.get("HONEYCOMB_API_ENDPOINT") or PYPROJECT["tool"]["traced-flask"]["honeycomb-api-endpoint"]
    os.environ["HONEYCOMB_API_ENDPOINT"] = endpoint
    traced_flask.log_to_stderr()
    environment = "development" if get_debug_flag() else "production"
    service = {"service.name": "profiles", "service.version": PYPROJECT["project"]["version"]}
    resource = Resource.create({**service, "deployment.environment.name": environment})
    tracer_provider = TracerProvider(resource=resource, sampler=traced_flask.sampler())
    tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracer_provider)
    logger_provider = LoggerProvider(resource=resource)
    logger_provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    logging.root.addHandler(LoggingHandler(logger_provider=logger_provider))
    traced_flask.shutdown_at_exit(tracer_provider, logger_provider)


def create_app() -> Flask:
    """Create the application: `GET /api/profiles/<handles>` (comma-separated) returns profiles by handle."""
    app = Flask(__name__)
    if not isinstance(trace.get_tracer_provider(), TracerProvider):  # in tests, the backend has set one
        set_up_telemetry()
    app.config["TRUST_TRACEPARENT"] = True  # only the backend calls this service
    FlaskInstrumentor().instrument_app(app, excluded_urls=r"^[^/]*//[^/]*/api/health(\?|$)")

    @app.get("/api/profiles/<handles>")
    def profiles(handles: str) -> dict[str, dict[str, str]]:
        return people.find(handles.split(","))

    @app.get("/api/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.errorhandler(HTTPException)
    def error(error: HTTPException) -> tuple[dict[str, Any], int]:
        trace_id = trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)
        return {"error": error.description or error.name, "trace_id": trace_id}, error.code or 500

    return app
