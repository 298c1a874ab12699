"""The response headers that name the trace of a request."""

from __future__ import annotations

from opentelemetry.trace import SpanContext


def trace_headers(span: SpanContext) -> list[tuple[str, str]]:
    """Return `traceresponse` for programs and `Server-Timing` for browsers; nothing without a trace.

    https://www.w3.org/TR/trace-context-2/#trace-context-http-response-headers-format
    """
    if not span.is_valid:
        return []
    value = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    return [("traceresponse", value), ("Server-Timing", f'traceparent;desc="{value}"')]
