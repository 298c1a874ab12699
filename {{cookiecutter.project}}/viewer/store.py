"""Keeps the newest spans and logs in memory, by trace."""

import heapq
from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from threading import Lock

from viewer import tree
from viewer.otlp import Event


class Store:
    """Holds at most `max_spans` spans and as many logs, oldest first out; safe between threads."""

    def __init__(self, max_spans: int = 100_000) -> None:
        self._max = max_spans
        self._lock = Lock()
        self._traces: dict[str, dict[str, Event]] = {}
        self._oldest: deque[tuple[str, str]] = deque()
        self._logs: deque[Event] = deque()
        self._logs_by_trace: dict[str, deque[Event]] = {}

    def add_spans(self, spans: Iterable[Event]) -> None:
        """Keep wide events of spans; one that is sent again replaces the first."""
        with self._lock:
            for span in spans:
                trace_id, span_id = span["trace.trace_id"], span["trace.span_id"]
                trace = self._traces.setdefault(trace_id, {})
                if span_id not in trace:
                    self._oldest.append((trace_id, span_id))
                trace[span_id] = span
            while len(self._oldest) > self._max:
                trace_id, span_id = self._oldest.popleft()
                del self._traces[trace_id][span_id]
                if not self._traces[trace_id]:
                    del self._traces[trace_id]

    def add_logs(self, logs: Iterable[Event]) -> None:
        """Keep wide events of log records."""
        with self._lock:
            for log in logs:
                self._logs.append(log)
                if "trace.trace_id" in log:
                    self._logs_by_trace.setdefault(log["trace.trace_id"], deque()).append(log)
            while len(self._logs) > self._max:
                trace_id = self._logs.popleft().get("trace.trace_id")
                if trace_id is not None:
                    self._logs_by_trace[trace_id].popleft()
                    if not self._logs_by_trace[trace_id]:
                        del self._logs_by_trace[trace_id]

    def counts(self) -> tuple[int, int]:
        """Return how many spans and how many logs are kept."""
        with self._lock:
            return len(self._oldest), len(self._logs)

    def traces(self, limit: int) -> list[Event]:
        """Return summaries of the `limit` traces that started last, newest first."""
        with self._lock:
            newest = heapq.nlargest(
                limit,
                (list(spans.values()) for spans in self._traces.values()),
                key=lambda spans: min(span["time"] for span in spans),
            )
        return [summary(spans) for spans in newest]

    def trace(self, trace_id: str) -> Event | None:
        """Return a trace's summary with `spans` in tree order and `logs` by time, or None."""
        with self._lock:
            spans = list(self._traces.get(trace_id, {}).values())
            logs = list(self._logs_by_trace.get(trace_id, ()))
        if not spans:
            return None
        return {
            **summary(spans),
            "spans": [node.span for node in tree.walk(spans)],
            "logs": sorted(logs, key=lambda log: str(log["time"])),
        }


def summary(spans: list[Event]) -> Event:
    """Return what a list of traces shows of one: times, counts, services, and what its root was."""
    by_start = sorted(spans, key=lambda span: str(span["time"]))
    root = next((span for span in by_start if "trace.parent_id" not in span), None)
    first = root or by_start[0]
    ids = {span["trace.span_id"] for span in spans}
    start = datetime.fromisoformat(by_start[0]["time"])
    end = max(datetime.fromisoformat(span["time"]) + timedelta(milliseconds=span["duration_ms"]) for span in spans)
    found = {
        "trace_id": first["trace.trace_id"],
        "name": first["name"],
        "service": first["service.name"],
        "services": sorted({span["service.name"] for span in spans}),
        "start": by_start[0]["time"],
        "duration_ms": root["duration_ms"] if root else (end - start) / timedelta(milliseconds=1),
        "span_count": len(spans),
        "error": any(span["error"] for span in spans),
        "complete": root is not None
        and all(span.get("trace.parent_id", root["trace.span_id"]) in ids for span in spans),
    }
    for name, attribute in (("route", "http.route"), ("status", "http.response.status_code")):
        if root and attribute in root:
            found[name] = root[attribute]
    return found
