"""JSON error responses, each with its trace ID."""

from __future__ import annotations

import traceback
from typing import Any

from traced_flask import trace_url
from flask import Flask, current_app
from opentelemetry import trace
from werkzeug.exceptions import HTTPException


def register(app: Flask) -> None:
    """Return every error as `{"error": ..., "trace_id": ...}`, with `trace_url` in debug mode."""
    app.register_error_handler(HTTPException, handle_http_error)
    app.register_error_handler(Exception, handle_exception)


def handle_http_error(error: HTTPException) -> tuple[dict[str, Any], int, list[tuple[str, str]]]:
    """Handle an error that Flask or a view raised on purpose. Keep its headers (Allow, Retry-After)."""
    headers = [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"]
    return error_body(error.description or error.name), error.code or 500, headers


def handle_exception(error: Exception) -> tuple[dict[str, Any], int]:
    """Record an unhandled exception on the span and in the log. Return its traceback only in debug mode."""
    span = trace.get_current_span()
    span.record_exception(error)
    span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
    current_app.logger.exception("Unhandled exception")
    content = error_body("Internal Server Error")
    if current_app.debug:
        content["traceback"] = traceback.format_exception(error)
    return content, 500


def error_body(error: str) -> dict[str, Any]:
    context = trace.get_current_span().get_span_context()
    trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else None
    content: dict[str, Any] = {"error": error, "trace_id": trace_id}
    if current_app.debug and (url := trace_url()):
        content["trace_url"] = url
    return content
