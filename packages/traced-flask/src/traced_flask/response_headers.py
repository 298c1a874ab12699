"""The response headers that name the trace of a request."""

from __future__ import annotations

from opentelemetry.trace import SpanContext


def trace_headers(span: SpanContext) -> list[tuple[str, str]]:
    """`traceresponse`, which programs read, and `Server-Timing`, which browsers do; nothing where there is no trace.

    https://www.w3.org/TR/trace-context-2/#trace-context-http-response-headers-format
    """
    if not span.is_valid:
        return []
    value = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    return [("traceresponse", value), ("Server-Timing", f'traceparent;desc="{value}"')]
