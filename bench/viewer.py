"""What otlp-viewer takes: spans a second, memory, queries, pages, beside another viewer where a binary is given.

OTEL_DESKTOP_VIEWER=<path of otel-desktop-viewer> measures that one with the same requests, in turn.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any, Final

import psutil
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

BATCH: Final = 512
PER_TRACE: Final = 10
ROUTES: Final = ("/books", "/books/{id}", "/checkout", "/search")
FIXED: Final[dict[str, str | int]] = {
    "http.request.method": "GET",
    "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0",
    "client.address": "127.0.0.1",
    "url.scheme": "http",
    "server.port": 8000,
}


def set_attributes(pairs: Any, values: dict[str, str | int]) -> None:
    for name, value in values.items():
        setattr(pairs.add(key=name).value, "string_value" if isinstance(value, str) else "int_value", value)


def exports(count: int, seed: int) -> list[bytes]:
    """Requests of BATCH spans of about 500 bytes, PER_TRACE of them in a trace, over ten minutes."""
    chance = random.Random(seed)
    start = time.time() - 700
    made = []
    for first in range(0, count, BATCH):
        message = ExportTraceServiceRequest()
        resource_spans = message.resource_spans.add()
        set_attributes(resource_spans.resource.attributes, {"service.name": "shop", "service.version": "1.4.2"})
        scope_spans = resource_spans.scope_spans.add()
        scope_spans.scope.name = "opentelemetry.instrumentation.flask"
        for number in range(first, min(first + BATCH, count)):
            route = chance.choice(ROUTES)
            span = scope_spans.spans.add(name=f"GET {route}", kind=2)
            span.trace_id = (seed << 64 | number // PER_TRACE + 1).to_bytes(16, "big")
            span.span_id = (seed << 40 | number + 1).to_bytes(8, "big")
            if number % PER_TRACE:
                span.parent_span_id = (seed << 40 | number - number % PER_TRACE + 1).to_bytes(8, "big")
            span.start_time_unix_nano = int((start + number / count * 600) * 1e9)
            slow = 20 if route == "/checkout" else 1
            span.end_time_unix_nano = span.start_time_unix_nano + int(chance.lognormvariate(1.5, 0.6) * slow * 1e6)
            set_attributes(
                span.attributes,
                FIXED
                | {
                    "http.route": route,
                    "url.path": route,
                    "app.user": f"user-{chance.randrange(1000)}",
                    "app.plan": chance.choice(("free", "member")),
                    "http.response.status_code": 500 if chance.random() < 0.02 else 200,
                    "app.result_length": chance.randrange(50),
                },
            )
        made.append(message.SerializeToString())
    return made


@dataclass
class Program:
    """A viewer that runs, and what it took."""

    address: str
    process: psutil.Process
    times: list[float] = field(default_factory=list)
    """Milliseconds of each request."""

    def megabytes(self) -> float:
        return float(self.process.memory_info().rss) / 1e6

    def cpu(self) -> float:
        used = self.process.cpu_times()
        return float(used.user + used.system)

    def send(self, bodies: Sequence[bytes], connections: int) -> None:
        """Send the bodies over so many connections at once; a request that is to be sent again is."""

        def one(mine: Sequence[bytes]) -> None:
            host, port = self.address.removeprefix("http://").split(":")
            connection = HTTPConnection(host, int(port), timeout=60)
            for body in mine:
                started = time.perf_counter()
                status = 0
                while status != 200:
                    connection.request("POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"})
                    with connection.getresponse() as answer:
                        status = answer.status
                        answer.read()
                self.times.append((time.perf_counter() - started) * 1000)

        with ThreadPoolExecutor(connections) as pool:
            list(pool.map(one, [bodies[n::connections] for n in range(connections)]))

    def get(self, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "text/html, application/json"}
        request = urllib.request.Request(self.address + path, data, headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return bytes(answer.read())


@contextlib.contextmanager
def running(command: Sequence[str], port: int) -> Iterator[Program]:
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            program = Program(f"http://127.0.0.1:{port}", psutil.Process(process.pid))
            for _ in range(300):
                with contextlib.suppress(OSError):
                    program.send([b""], 1)
                    break
                time.sleep(0.1)
            yield program
        except OSError as error:
            log.seek(0)
            raise RuntimeError(f"{command} does not answer: {log.read()[-2000:]}") from error
        finally:
            process.terminate()
            process.wait(10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def ours() -> contextlib.AbstractContextManager[Program]:
    port = free_port()
    return running([sys.executable, "-m", "otlp_viewer", "--port", str(port)], port)


def other(binary: str) -> contextlib.AbstractContextManager[Program]:
    http, grpc, browser = free_port(), free_port(), free_port()
    options = ["--http", str(http), "--grpc", str(grpc), "--browser", str(browser), "--open-browser=false"]
    return running([binary, *options], http)


def taken_in(program: Program, bodies: Sequence[bytes], connections: int) -> tuple[float, float, float]:
    """Return spans a second until they are kept, CPU seconds for 100,000, and the milliseconds of a median request."""
    used, started, count = program.cpu(), time.perf_counter(), len(bodies) * BATCH
    program.times.clear()
    program.send(bodies, connections)
    with contextlib.suppress(urllib.error.HTTPError):
        program.get("/api/health")  # otlp-viewer writes what waits before it answers
    wall = time.perf_counter() - started
    return count / wall, (program.cpu() - used) / count * 100_000, statistics.median(program.times)


def questions() -> list[Any]:
    """Twenty kinds of query."""
    duration = {"column": "duration_ms"}
    calculated = (
        [{"op": "COUNT"}],
        [{"op": "HEATMAP", **duration}],
        [{"op": "P50", **duration}, {"op": "P99", **duration}],
        [{"op": "COUNT_DISTINCT", "column": "app.user"}, {"op": "AVG", "column": "app.result_length"}],
    )
    breakdowns: tuple[list[str], ...] = ([], ["http.route"], ["http.route", "http.response.status_code"], ["app.user"])
    made: list[Any] = [{"calculations": each, "breakdowns": by} for each in calculated for by in breakdowns]
    for filters in (
        [{"column": "trace.parent_id", "op": "does-not-exist"}],
        [{"column": "http.response.status_code", "op": ">=", "value": 500}],
        [{"column": "app.user", "op": "in", "value": [f"user-{n}" for n in range(100)]}],
        [{"column": "name", "op": "contains", "value": "book"}, {"column": "app.plan", "op": "=", "value": "free"}],
    ):
        made.append({"calculations": calculated[1] + calculated[0], "breakdowns": ["http.route"], "filters": filters})
    return [one | {"time_range": 3600} for one in made]


def times(program: Program, rounds: int, path: str, body: Any = None) -> list[float]:
    """Return the milliseconds of each of so many requests."""
    moments = [time.perf_counter()]
    for _ in range(rounds):
        program.get(path, body)
        moments.append(time.perf_counter())
    return [(after - before) * 1000 for before, after in itertools.pairwise(moments)]


def measure(quick: bool) -> list[dict[str, Any]]:
    """Return the tables of this part."""
    count = 10_240 if quick else 100_352
    bodies, more = exports(count, 1), exports(count, 2)
    programs: dict[str, Callable[[], contextlib.AbstractContextManager[Program]]] = {"otlp-viewer": ours}
    if binary := os.environ.get("OTEL_DESKTOP_VIEWER"):
        programs["otel-desktop-viewer"] = lambda: other(binary)
    rows: dict[str, list[str]] = {}
    for start in programs.values():
        with start() as program:
            one = taken_in(program, bodies, 1)
            memory = program.megabytes()
            four = taken_in(program, more, 4)
            for name, value in (
                ("spans a second until kept, one connection", f"{one[0]:,.0f}"),
                ("the same, four connections", f"{four[0]:,.0f}"),
                ("CPU for 100,000 spans, s", f"{one[1]:.1f}"),
                (f"time of a request of {BATCH}, median, ms", f"{one[2]:.1f}"),
                (f"memory with {count:,} spans, MB", f"{memory:.0f}"),
                (f"memory with {2 * count:,} spans, MB", f"{program.megabytes():.0f}"),
            ):
                rows.setdefault(name, []).append(value)
    return [
        {"title": f"Taking in {count:,} spans", "columns": ["", *programs], "rows": [[k, *v] for k, v in rows.items()]},
        asked(bodies, count, 3 if quick else 10),
    ]


def asked(bodies: Sequence[bytes], count: int, rounds: int) -> dict[str, Any]:
    """Return a table of how long answers take while so many spans are kept."""
    with ours() as program:
        program.send(bodies, 1)
        trace_id = json.loads(program.get("/api/traces?limit=1"))[0]["trace_id"]
        box = f"{time.time() - 600:.0f},{time.time():.0f},60,1000000,duration_ms"
        query = urllib.parse.quote(json.dumps({"calculations": [{"op": "HEATMAP", "column": "duration_ms"}]}))
        taken = {"twenty kinds of query": [t for one in questions() for t in times(program, rounds, "/api/query", one)]}
        for name, path in (
            ("query page", f"/query?query={query}"),
            ("query page with the comparison of a box", f"/query?query={query}&box={box}"),
            (f"trace of {PER_TRACE} spans, API", f"/api/traces/{trace_id}"),
            ("list of traces, API", "/api/traces?limit=50"),
            ("first page", "/"),
        ):
            taken[name] = times(program, 2 * rounds, path)
    rows = [[k, f"{statistics.median(v):.1f}", f"{statistics.quantiles(v, n=20)[-1]:.1f}"] for k, v in taken.items()]
    return {"title": f"Answers with {count:,} spans, ms", "columns": ["", "median", "P95"], "rows": rows}
