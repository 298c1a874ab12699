"""Errors as JSON, with the trace that shows what went wrong."""

from __future__ import annotations

import traceback
from typing import Any

from traced_flask import trace_url
from flask import Flask, current_app
from opentelemetry import trace
from werkzeug.exceptions import HTTPException


def register(app: Flask) -> None:
    """Answer every error with `{"error": ..., "trace_id": ...}`, and in debug mode `trace_url`."""
    app.register_error_handler(HTTPException, expected)
    app.register_error_handler(Exception, unexpected)


def expected(error: HTTPException) -> tuple[dict[str, Any], int, list[tuple[str, str]]]:
    """An error that Flask or a view raised on purpose, with its headers (Allow, Retry-After)."""
    headers = [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"]
    return body(error.description or error.name), error.code or 500, headers


def unexpected(error: Exception) -> tuple[dict[str, Any], int]:
    """An exception that nobody handled: recorded on the span and in the log, and shown only in debug mode."""
    span = trace.get_current_span()
    span.record_exception(error)
    span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
    current_app.logger.exception("Unhandled exception")
    answer = body("Internal Server Error")
    if current_app.debug:
        answer["traceback"] = traceback.format_exception(error)
    return answer, 500


def body(error: str) -> dict[str, Any]:
    context = trace.get_current_span().get_span_context()
    trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else None
    answer: dict[str, Any] = {"error": error, "trace_id": trace_id}
    if current_app.debug and (url := trace_url()):
        answer["trace_url"] = url
    return answer
