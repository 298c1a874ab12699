"""Measures the viewer: ingest, pages, queries and memory, beside plain Python lists in the same run.

    python bench/viewer.py [--spans 500000]        writes bench/viewer.md; Linux only

The viewer runs as `python -m viewer` does, on one core; this script uses the other.
"""

import argparse
import collections
import contextlib
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "{{cookiecutter.project}}"
sys.path.insert(0, str(PROJECT))
sys.dont_write_bytecode = True

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest  # noqa: E402
from viewer import otlp  # noqa: E402
from viewer.questions import QUESTIONS  # noqa: E402

KEPT = 100_000
BATCH = 500
PER_TRACE = 5
ROUNDS = 15
ROUTES = ("/api/activities/home", "/api/activities/@<handle>", "/api/examples/slow", "/api/examples/failing")


def bodies(count: int, seed: int, start: float) -> Iterator[bytes]:
    """OTLP requests of BATCH spans, as the backend sends them: about 25 fields each, PER_TRACE spans in a trace."""
    chance = random.Random(seed)
    for first in range(0, count, BATCH):
        message = ExportTraceServiceRequest()
        resource_spans = message.resource_spans.add()
        for name, value in {
            "service.name": "backend-flask",
            "service.version": "0.1.0",
            "service.instance.id": "e3f72a0e-0c3a-4329-b0e2-1b0891dc8cc6",
            "deployment.environment.name": "development",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.version": "1.45.1",
        }.items():
            resource_spans.resource.attributes.add(key=name).value.string_value = value
        scope_spans = resource_spans.scope_spans.add()
        scope_spans.scope.name = "opentelemetry.instrumentation.flask"
        for number in range(first, first + BATCH):
            route = chance.choice(ROUTES)
            span = scope_spans.spans.add(name=f"GET {route}", kind=2)
            span.trace_id = (seed * 10**12 + number // PER_TRACE + 1).to_bytes(16, "big")
            span.span_id = (seed * 10**12 + number + 1).to_bytes(8, "big")
            if number % PER_TRACE:
                span.parent_span_id = (seed * 10**12 + number - number % PER_TRACE + 1).to_bytes(8, "big")
            span.start_time_unix_nano = int((start + number / count * 600) * 1e9)
            slow = 100 if route.endswith("slow") else 1
            span.end_time_unix_nano = span.start_time_unix_nano + int(chance.lognormvariate(1.5, 0.6) * slow * 1e6)
            for name, text in {
                "http.request.method": "GET",
                "http.route": route,
                "url.path": route,
                "url.scheme": "http",
                "server.address": "127.0.0.1",
                "client.address": "127.0.0.1",
                "user_agent.original": "python-requests/2.34.2",
                "network.protocol.version": "1.1",
                "app.user": f"user-{chance.randrange(1000)}",
            }.items():
                span.attributes.add(key=name).value.string_value = text
            for name, whole in {
                "http.response.status_code": 500 if route.endswith("failing") else 200,
                "server.port": 4567,
                "app.result_length": chance.randrange(50),
            }.items():
                span.attributes.add(key=name).value.int_value = whole
        yield message.SerializeToString()


@contextlib.contextmanager
def running() -> Iterator[tuple[str, int]]:
    """The viewer on one core: its address and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "viewer"],
        cwd=PROJECT,
        env={**os.environ, "VIEWER_PORT": str(port), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
    )
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(process.pid, {cores[0]})
    os.sched_setaffinity(0, set(cores[1:]) or {cores[0]})
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                get(f"{address}/api/health")
                break
            except OSError:
                time.sleep(0.1)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(10)
        os.sched_setaffinity(0, set(cores))


def get(url: str, body: bytes | None = None, content_type: str = "application/json") -> bytes:
    headers = {"Content-Type": content_type, "Accept": "text/html, application/json"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return bytes(answer.read())


def megabytes(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(do: Callable[[], object]) -> tuple[float, float]:
    """The median and the slowest of ROUNDS, in milliseconds, after one that is not counted."""
    do()
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        do()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took), max(took)


def latency_by_lists(spans: collections.deque[dict[str, Any]]) -> list[tuple[float, float, str]]:
    """The start page's P90 and MAX by route, as anyone would write it without a database."""
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


def lists(count: int, start: float) -> list[str]:
    """What the same costs with the events of the last KEPT spans in a list, and nothing sent over HTTP."""
    before = megabytes(os.getpid())
    kept: collections.deque[dict[str, Any]] = collections.deque(maxlen=KEPT)
    spent = 0.0
    for body in bodies(count, 99, start):
        began = time.process_time()
        message = ExportTraceServiceRequest()
        message.ParseFromString(body)
        kept.extend(otlp.spans(message)[0])
        spent += time.process_time() - began
    size = megabytes(os.getpid()) - before
    median, slowest = timed(lambda: latency_by_lists(kept))
    return [
        f"| ingest, CPU time for each span | {spent / count * 1e6:.0f} µs |",
        f"| P90 and MAX by route of {KEPT:,} spans | median {median:.0f} ms, slowest {slowest:.0f} ms |",
        f"| memory for {KEPT:,} spans | {size:.0f} MB |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--spans", type=int, default=500_000, help="how many to send in all")
    total = max(parser.parse_args().spans, 2 * KEPT)
    start = time.time() - 600
    rows = []
    with running() as (address, pid):
        idle = megabytes(pid)
        memory, rates = [], []
        for seed in range(1, total // KEPT + 1):
            ready = list(bodies(KEPT, seed, start))
            began, spent = time.perf_counter(), cpu(pid)
            for body in ready:
                get(f"{address}/v1/traces", body, "application/x-protobuf")
            rates.append((KEPT / (time.perf_counter() - began), (cpu(pid) - spent) / KEPT * 1e6))
            memory.append(megabytes(pid))
            print(f"{seed * KEPT:,} spans: {rates[-1][0]:,.0f} spans/s, {memory[-1]:.0f} MB", flush=True)
        full = rates[1:]  # those that came when KEPT were there
        rows.append(
            f"| ingest over HTTP, one core, with {KEPT:,} kept | {min(r for r, _ in full):,.0f} spans/s or more |"
        )
        rows.append(f"| ingest, CPU time for each span | {statistics.median(c for _, c in full):.0f} µs |")
        trace = json.loads(get(f"{address}/api/traces?limit=1"))[0]["trace_id"]
        for name, path in (
            ("start page: latency by route", "/"),
            ("traces page", "/traces"),
            ("traces page, searched for a text", "/traces?text=user-77"),
            ("trace page", f"/traces/{trace}"),
        ):
            median, slowest = timed(lambda path=path: get(address + path))  # type: ignore[misc]
            rows.append(f"| {name} | median {median:.0f} ms, slowest {slowest:.0f} ms |")
        for question in QUESTIONS:
            body = json.dumps({**question.query, "start_time": int(start), "time_range": 1200}).encode()
            median, slowest = timed(lambda body=body: get(f"{address}/api/query", body))  # type: ignore[misc]
            rows.append(f"| query: {question.name} | median {median:.0f} ms, slowest {slowest:.0f} ms |")
        every = {"calculations": [{"op": "P99", "column": "duration_ms"}], "breakdowns": ["app.user"]}
        body = json.dumps({**every, "start_time": int(start), "time_range": 1200}).encode()
        median, slowest = timed(lambda: get(f"{address}/api/query", body))
        rows.append(f"| query: P99 of all spans by 1,000 users | median {median:.0f} ms, slowest {slowest:.0f} ms |")
        box = urllib.parse.urlencode(
            {"query": json.dumps(QUESTIONS[0].query), "box": f"{start},{start + 600},100,100000,duration_ms"}
        )
        median, slowest = timed(lambda: get(f"{address}/query?{box}"))
        rows.append(f"| page of what sets a box apart | median {median:.0f} ms, slowest {slowest:.0f} ms |")
        rows.append(f"| memory when idle | {idle:.0f} MB |")
        for number, size in enumerate(memory, 1):
            rows.append(f"| memory after {number * KEPT:,} spans | {size:.0f} MB |")
    text = "\n".join(
        [
            "# The viewer",
            "",
            f"Written by `python bench/viewer.py`: {KEPT:,} spans kept, {total:,} sent in requests of {BATCH}, on one"
            f" core of a machine with {os.cpu_count()}; Python {platform.python_version()}, DuckDB {version('duckdb')}."
            f" A trace has {PER_TRACE} spans, a span about 25 fields.",
            "",
            "| viewer | |",
            "|---|---|",
            *rows,
            "",
            "The baseline, in the same run: the same events in a Python list, in one process, without HTTP or pages.",
            "",
            "| plain lists | |",
            "|---|---|",
            *lists(2 * KEPT, start),
            "",
        ]
    )
    (ROOT / "bench" / "viewer.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
