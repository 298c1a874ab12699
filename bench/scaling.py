"""What tracing costs at scale: a service at each sampling setting, the Collector, and many instances in front of one.

docs/scaling.md explains the tables. The Collector is measured where its program is found, as in the tests: OTELCOL, or
otelcol-contrib in the path.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
CONFIG: Final = ROOT / "{{cookiecutter.project}}/deploy/collector/config.yaml"
REQUESTS: Final = 2000
ROUNDS: Final = 7
SETTINGS: Final[dict[str, dict[str, str]]] = {
    "untraced": {"OTEL_SDK_DISABLED": "true"},
    "every trace": {"SAMPLE_RATE": "1"},
    "one in 10": {"SAMPLE_RATE": "10"},
    "one in 100": {"SAMPLE_RATE": "100"},
}
# The simulation.
REQUESTS_A_SECOND: Final = 20  # of one instance
SPANS_A_REQUEST: Final = 3
INTERVAL: Final = 0.5  # seconds between two batches of an instance
QUEUE: Final = 2048  # spans that an instance holds at most
CORES: Final = 2  # that the Collector has
RESTART: Final = (60.0, 75.0)  # seconds between which the Collector is away
SECONDS: Final = 300.0


class Sink(BaseHTTPRequestHandler):
    """Takes everything, and counts its bytes."""

    protocol_version = "HTTP/1.1"
    taken = 0

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        Sink.taken += length
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


def application() -> None:
    """Answer requests in this process, and print the CPU seconds that they took, what is sent included."""
    from flask import Flask
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from traced_flask import FlaskInstrumentor, OTLPSpanExporter, sampler

    app = Flask("shop")
    if os.environ.get("OTEL_SDK_DISABLED") != "true":
        provider = TracerProvider(sampler=sampler())
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    FlaskInstrumentor().instrument_app(app)
    tracer = trace.get_tracer("shop")

    @app.get("/api/orders/<int:number>")
    def orders(number: int) -> dict[str, int]:
        with tracer.start_as_current_span("find-order") as span:
            span.set_attribute("app.order", number)
            with tracer.start_as_current_span("price-order"):
                return {"order": number}

    client = app.test_client()
    for _ in range(200):
        client.get("/api/orders/1")
    began = time.process_time()
    for number in range(REQUESTS):
        client.get(f"/api/orders/{number}")
        if number % 300 == 0:
            time.sleep(0.2)  # a queue that overflows would save the work of sending
    if os.environ.get("OTEL_SDK_DISABLED") != "true":
        provider.force_flush()
        time.sleep(1)
    print(json.dumps(time.process_time() - began))


def measure_application(url: str, rounds: int) -> dict[str, dict[str, float]]:
    """CPU and bytes of a request at each setting: medians of rounds in turns."""
    cpu: dict[str, list[float]] = {name: [] for name in SETTINGS}
    sent: dict[str, list[int]] = {name: [] for name in SETTINGS}
    base = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "HONEYCOMB_"))}
    for _ in range(rounds):
        for name, setting in SETTINGS.items():
            before = Sink.taken
            done = subprocess.run(
                [sys.executable, __file__],
                env={**base, "OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_LOGS_EXPORTER": "none", **setting},
                capture_output=True,
                text=True,
                check=True,
            )
            cpu[name].append(float(json.loads(done.stdout)) / REQUESTS)
            sent[name].append(Sink.taken - before)
    return {
        name: {"cpu": statistics.median(cpu[name]), "bytes": statistics.median(sent[name]) / REQUESTS}
        for name in SETTINGS
    }


def batches(count: int) -> list[bytes]:
    """Export requests of 510 spans, three to a trace and about 350 bytes to a span; one trace in a hundred failed."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    made = []
    for _ in range(count):
        message = ExportTraceServiceRequest()
        resource = message.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "shop"
        scope = resource.scope_spans.add()
        for _ in range(170):
            trace_id = random.randbytes(16)
            failed = random.random() < 0.01
            for number in range(SPANS_A_REQUEST):
                span = scope.spans.add(trace_id=trace_id, span_id=random.randbytes(8), name="GET /api/orders/<number>")
                if number:
                    span.parent_span_id = random.randbytes(8)
                span.start_time_unix_nano = 1_800_000_000_000_000_000
                span.end_time_unix_nano = span.start_time_unix_nano + 40_000_000
                for name in ("http.request.method", "http.route", "url.path", "user_agent.original", "app.customer"):
                    span.attributes.add(key=name).value.string_value = f"a value of {name}"
                span.attributes.add(key="http.response.status_code").value.int_value = 500 if failed else 200
                span.status.code = 2 if failed and not number else 0
        made.append(message.SerializeToString())
    return made


def collector_program() -> str | None:
    shared = ROOT.parent / "shared/collector/collector"
    if named := os.environ.get("OTELCOL"):
        return named
    if shared.exists():
        return subprocess.run([shared, "--build"], capture_output=True, text=True, check=True).stdout.split()[-1]
    return shutil.which("otelcol-contrib")


def free_ports(count: int) -> list[int]:
    """Ports that nothing uses."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def usage(pid: int) -> tuple[float, float]:
    """CPU seconds and MiB of memory of a process, as Linux counts them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_collector(program: str, url: str, count: int = 800) -> dict[str, float]:
    """CPU for a million spans, spans a second that it accepted here, and its largest memory."""
    many = batches(count)
    http, grpc, health = free_ports(3)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(re.sub(r"\{\{.*?\}\}", "", CONFIG.read_text("utf-8")), "utf-8")
        changes = [
            f"receivers::otlp::protocols::http::endpoint: 127.0.0.1:{http}",
            f"receivers::otlp::protocols::grpc::endpoint: 127.0.0.1:{grpc}",
            f"extensions::health_check::endpoint: 127.0.0.1:{health}",
            "service::telemetry::metrics::level: none",
        ]
        gate = "--feature-gates=processor.tailsamplingprocessor.recordpolicy"
        env = {**os.environ, "HONEYCOMB_API_ENDPOINT": url, "HONEYCOMB_API_KEY": "bench", "COLLECTOR_STORAGE": folder}
        command = [program, gate, f"--config={config}", *(f"--config=yaml:{each}" for each in changes)]
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(5)

            def send(body: bytes) -> float:
                headers = {"Content-Type": "application/x-protobuf"}
                request = urllib.request.Request(f"http://127.0.0.1:{http}/v1/traces", body, headers)
                with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                    answer.read()
                return usage(process.pid)[1]

            before, _ = usage(process.pid)
            began = time.monotonic()
            with ThreadPoolExecutor(4) as pool:
                memory = max(pool.map(send, many))
            seconds = time.monotonic() - began
            time.sleep(15)  # until everything is decided and sent
            spans = 510 * count
            cpu = usage(process.pid)[0] - before
            return {"cpu": cpu / spans * 1e6, "accepted": spans / seconds, "memory": memory}
        finally:
            process.terminate()
            process.wait(60)


def simulate(instances: int, capacity: float) -> dict[str, float]:
    """Instances that send twice a second to a Collector that takes `capacity` spans a second, and is away for a while.

    Requests come at random (Poisson, as a normal distribution). What the Collector cannot take stays in the instances'
    queues; what a queue cannot hold is lost.
    """
    source = random.Random(instances)
    mean = REQUESTS_A_SECOND * INTERVAL
    queues = [0] * instances
    made = taken = lost = largest = 0
    caught_up = math.nan
    for step in range(int(SECONDS / INTERVAL)):
        now = step * INTERVAL
        room = 0.0 if RESTART[0] <= now < RESTART[1] else capacity * INTERVAL
        order = list(range(instances))
        source.shuffle(order)
        for each in order:
            new = max(0, round(source.gauss(mean, math.sqrt(mean)))) * SPANS_A_REQUEST
            made += new
            waiting = queues[each] + new
            sent = min(waiting, int(room))
            room -= sent
            taken += sent
            left = waiting - sent
            lost += max(0, left - QUEUE)
            queues[each] = min(left, QUEUE)
        largest = max(largest, *queues)
        if now >= RESTART[1] and math.isnan(caught_up) and not any(queues):
            caught_up = now - RESTART[1]
    return {"spans": made / SECONDS, "largest": largest, "lost": lost / made, "caught_up": caught_up}


def measure(quick: bool) -> list[dict[str, Any]]:
    """Tables of docs/scaling.md; those of the Collector where its program is found."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    figures = measure_application(url, 1 if quick else ROUNDS)
    untraced, traced = figures["untraced"]["cpu"], figures["every trace"]["cpu"]
    rates = {"untraced": 0.0, "every trace": 1.0, "one in 10": 0.1, "one in 100": 0.01}
    tables: list[dict[str, Any]] = [
        {
            "title": "A million requests with three spans each",
            "columns": ["Setting", "CPU hours", "more than untraced", "GB sent", "Events at Honeycomb"],
            "rows": [
                [
                    name,
                    f"{each['cpu'] / 3600 * 1e6:.3f}",
                    f"{(each['cpu'] - untraced) / 3600 * 1e6:.3f}",
                    f"{each['bytes'] / 1e3:.2f}",
                    f"{rates[name] * SPANS_A_REQUEST * 1e6:,.0f}",
                ]
                for name, each in figures.items()
            ],
        }
    ]
    rows = []
    for services in (1, 2, 5, 10, 20):
        spans = SPANS_A_REQUEST * services + services - 1  # and a client span for each call between two
        hours = (traced - untraced) / SPANS_A_REQUEST * spans / 3600 * 1e6
        rows.append([services, spans, f"{hours:.2f}", f"{spans} million", f"{spans / 10:g} million"])
    columns = ["Services in a request", "Spans", "CPU hours for a million", "Events, every trace", "Events, one in 10"]
    tables.append({"title": "More services", "columns": columns, "rows": rows})
    program = None if quick else collector_program()
    if program is None:
        return tables
    collector = measure_collector(program, url)
    a_core = 1e6 / collector["cpu"]
    tables.append(
        {
            "title": "One Collector",
            "columns": ["", "Figure"],
            "rows": [
                ["CPU seconds for a million spans", f"{collector['cpu']:.1f}"],
                ["Spans a second on one core", f"{a_core:,.0f}"],
                ["Spans a second accepted here, beside their senders", f"{collector['accepted']:,.0f}"],
                ["Memory at that rate, MiB", f"{collector['memory']:.0f}"],
            ],
        }
    )
    rows = []
    for instances in (1, 10, 100, 200, 500, 1000):
        result = simulate(instances, a_core * CORES)
        use = result["spans"] / (a_core * CORES)
        caught_up = "never" if math.isnan(result["caught_up"]) else f"{result['caught_up']:.1f} s"
        fullest, lost = f"{result['largest']:,.0f}", f"{result['lost']:.1%}"
        rows.append([f"{instances:,}", f"{result['spans']:,.0f}", f"{use:.0%}", fullest, lost, caught_up])
    columns = ["Instances", "Spans a second", "Collector's CPU", "Fullest queue", "Spans lost", "Caught up after"]
    tables.append({"title": "Simulation of many instances", "columns": columns, "rows": rows})
    return tables


if __name__ == "__main__":
    application()
