"""The response headers that name the trace of a request."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.propagators import ResponsePropagator, default_setter


class TraceHeaders(ResponsePropagator):
    """Writes `traceresponse`, which programs read, and `Server-Timing`, which browsers do.

    https://www.w3.org/TR/trace-context-2/#trace-context-http-response-headers-format
    """

    def inject(self, carrier: Any, context: Context | None = None, setter: Any = default_setter) -> None:
        """Write the headers of the current span of `context` into `carrier`; nothing where there is no span."""
        span = trace.get_current_span(context).get_span_context()
        if span.is_valid:
            value = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
            setter.set(carrier, "traceresponse", value)
            setter.set(carrier, "Server-Timing", f'traceparent;desc="{value}"')
