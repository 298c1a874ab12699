"""OpenTelemetry's batch processors, with a `force_flush` that waits until telemetry is delivered.

OpenTelemetry specifies that a processor's ForceFlush also calls its exporter's. The SDK's processors (1.45) only export
what they hold, which is enough only for exporters that send before `export` returns.

https://opentelemetry.io/docs/specs/otel/trace/sdk/#forceflush-1
https://github.com/open-telemetry/opentelemetry-python/issues/4568 is about that method.
"""

from __future__ import annotations

import time
from typing import Any, Final

from opentelemetry.sdk._logs import export as logs
from opentelemetry.sdk.trace import export as traces

TIMEOUT: Final = 30_000  # ms, as in the SDK


class BatchSpanProcessor(traces.BatchSpanProcessor):
    """Takes the same arguments as OpenTelemetry's."""

    def __init__(self, span_exporter: traces.SpanExporter, *args: Any, **kwargs: Any) -> None:
        super().__init__(span_exporter, *args, **kwargs)
        self._flushed_exporter = span_exporter

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Wait until every ended span is delivered, at most `timeout_millis` ms. Return False if not."""
        deadline = _deadline(timeout_millis)
        return super().force_flush(timeout_millis) and self._flushed_exporter.force_flush(_remaining(deadline))


class BatchLogRecordProcessor(logs.BatchLogRecordProcessor):
    """Takes the same arguments as OpenTelemetry's."""

    def __init__(self, exporter: logs.LogRecordExporter, *args: Any, **kwargs: Any) -> None:
        super().__init__(exporter, *args, **kwargs)
        self._flushed_exporter = exporter

    def force_flush(self, timeout_millis: int = TIMEOUT) -> bool:
        """Wait until every log record is delivered, at most `timeout_millis` ms. Return False if not."""
        deadline = _deadline(timeout_millis)
        return super().force_flush(timeout_millis) and self._flushed_exporter.force_flush(_remaining(deadline))


def _deadline(timeout_millis: int | None) -> float:
    return time.monotonic() + (TIMEOUT if timeout_millis is None else timeout_millis) / 1000


def _remaining(deadline: float) -> int:
    return max(0, int((deadline - time.monotonic()) * 1000))
