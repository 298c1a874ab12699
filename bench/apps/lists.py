"""The viewer's baseline: the same spans in a Python list, in one process, with neither HTTP nor pages.

python lists.py KEPT ROUNDS      reads OTLP requests, each after its length in a line of its own
"""

from __future__ import annotations

import collections
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from viewer import otlp  # the project's

Spans = collections.deque[dict[str, Any]]


def megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def latency_by_route(spans: Spans) -> list[tuple[float, float, str]]:
    """The start page's P90 and MAX, as anyone would write it without a database."""
    groups: dict[str, list[float]] = {}
    for span in spans:
        if "trace.parent_id" not in span:
            groups.setdefault(span.get("http.route", ""), []).append(span["duration_ms"])
    return sorted(
        (
            (statistics.quantiles(values, n=10, method="inclusive")[8], max(values), route)
            for route, values in groups.items()
        ),
        reverse=True,
    )


def main() -> None:
    kept, rounds = map(int, sys.argv[1:])
    before = megabytes()
    spans: Spans = collections.deque(maxlen=kept)
    spent, count = 0.0, 0
    while length := sys.stdin.buffer.readline():
        body = sys.stdin.buffer.read(int(length))
        began = time.process_time()
        message = ExportTraceServiceRequest()
        message.ParseFromString(body)
        found = otlp.spans(message)[0]
        spans.extend(found)
        spent += time.process_time() - began
        count += len(found)
    size = megabytes() - before
    took = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        latency_by_route(spans)
        took.append((time.perf_counter() - began) * 1000)
    json.dump({"cpu": spent / count * 1e6, "query": took[1:], "memory": size, "kept": len(spans)}, sys.stdout)


if __name__ == "__main__":
    main()
