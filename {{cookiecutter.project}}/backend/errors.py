"""Errors as JSON, with the trace in which to look for the reason."""

from __future__ import annotations

import traceback
from typing import Any

from flask import Flask, current_app
from opentelemetry import trace
from werkzeug.exceptions import HTTPException

from backend import telemetry


def register(app: Flask) -> None:
    """Answer everything that fails with `{"error": ..., "trace_id": ...}`, and in debug `trace_url`."""
    app.register_error_handler(HTTPException, expected)
    app.register_error_handler(Exception, unexpected)


def expected(error: HTTPException) -> tuple[dict[str, Any], int, list[tuple[str, str]]]:
    """What Flask or a view refused, with the headers that belong to it (Allow, Retry-After)."""
    headers = [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"]
    return body(error.description or error.name), error.code or 500, headers


def unexpected(error: Exception) -> tuple[dict[str, Any], int]:
    """A fault: recorded on the span and in the log, shown to nobody outside of debug."""
    span = trace.get_current_span()
    span.record_exception(error)
    span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
    current_app.logger.exception("Unhandled exception")
    answer = body("Internal Server Error")
    if current_app.debug:
        answer["traceback"] = traceback.format_exception(error)
    return answer, 500


def body(error: str) -> dict[str, Any]:
    """What every error answers: its trace and, for who develops, where to look at that."""
    answer: dict[str, Any] = {"error": error, "trace_id": trace_id()}
    if current_app.debug and (url := telemetry.trace_url()):
        answer["trace_url"] = url
    return answer


def trace_id() -> str | None:
    """The current trace's id, 32 hexadecimal digits; None outside of a trace."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None
