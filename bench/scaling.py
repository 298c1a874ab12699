"""The cost of tracing at scale: a service at each sampling setting, the Collector, and many instances of one.

docs/scaling.md explains the tables. OTELCOL=<path of otelcol-contrib> measures the Collector, as does one in the path.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import psutil
from common import Table, free_port, progress, receiver, table
from cost import answering
from spans import exports

ROOT: Final = Path(__file__).resolve().parent.parent
CONFIG: Final = ROOT / "{{cookiecutter.__folder}}/deploy/collector/config.yaml"
SETTINGS: Final[dict[str, tuple[float, dict[str, str]]]] = {  # share of traces kept, and its settings
    "untraced": (0, {"OTEL_SDK_DISABLED": "true"}),
    "every trace": (1, {"SAMPLE_RATE": "1"}),
    "one in 10": (0.1, {"SAMPLE_RATE": "10"}),
    "one in 100": (0.01, {"SAMPLE_RATE": "100"}),
}
WARM_UP: Final = 20  # requests that apps/in_process.py adds
HOURS_FOR_A_MILLION: Final = 1 / 3600  # from microseconds for one
# The simulation.
REQUESTS_A_SECOND: Final = 20  # of one instance
SPANS_A_REQUEST: Final = 3
INTERVAL: Final = 0.5  # seconds between two batches of an instance
QUEUE: Final = 2048  # maximum spans in an instance's queue
CORES: Final = 2  # of the Collector
RESTART: Final = (60.0, 75.0)  # the Collector is down between these seconds
SECONDS: Final = 300.0


def measure_application(rounds: int, requests: int) -> dict[str, tuple[float, float]]:
    """CPU (microseconds) and bytes sent of a request at each setting: medians of rounds in turns."""
    cpu: dict[str, list[float]] = {name: [] for name in SETTINGS}
    sent: dict[str, list[float]] = {name: [] for name in SETTINGS}
    with receiver() as sink, contextlib.ExitStack() as stack:
        costs = {
            name: stack.enter_context(answering({"TRACED": "ours", **setting}, f"http://127.0.0.1:{sink.port}"))
            for name, (_, setting) in SETTINGS.items()
        }
        for _ in range(rounds):
            for name, cost in costs.items():
                before = sink.numbers("/taken")["bytes"]
                cpu[name].append(cost("/feed", requests))
                sent[name].append((sink.numbers("/taken")["bytes"] - before) / (requests + WARM_UP))
    return {name: (statistics.median(cpu[name]), statistics.median(sent[name])) for name in SETTINGS}


def measure_collector(program: str, count: int = 400_000) -> dict[str, float]:
    """CPU for a span, spans a second that it accepted here, and its largest memory."""
    many = exports(count, 1, failing=0.001)
    http, grpc, health = free_port(), free_port(), free_port()
    with receiver() as sink, tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(re.sub(r"\{\{.*?\}\}", "", CONFIG.read_text("utf-8")), "utf-8")
        changes = [
            f"receivers::otlp::protocols::http::endpoint: 127.0.0.1:{http}",
            f"receivers::otlp::protocols::grpc::endpoint: 127.0.0.1:{grpc}",
            f"extensions::health_check::endpoint: 127.0.0.1:{health}",
            "service::telemetry::metrics::level: none",
        ]
        gate = "--feature-gates=processor.tailsamplingprocessor.recordpolicy"
        honeycomb = {"HONEYCOMB_API_ENDPOINT": f"http://127.0.0.1:{sink.port}", "HONEYCOMB_API_KEY": "bench"}
        env = {**os.environ, **honeycomb, "COLLECTOR_STORAGE": folder}
        command = [program, gate, f"--config={config}", *(f"--config=yaml:{each}" for each in changes)]
        process = psutil.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(5)

            def send(body: bytes) -> float:
                headers = {"Content-Type": "application/x-protobuf"}
                request = urllib.request.Request(f"http://127.0.0.1:{http}/v1/traces", body, headers)
                with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                    answer.read()
                return float(process.memory_info().rss) / 2**20

            before, started = process.cpu_times(), time.monotonic()
            with ThreadPoolExecutor(4) as pool:
                memory = max(pool.map(send, many))
            seconds = time.monotonic() - started
            time.sleep(15)  # until all decisions are made and sent
            after = process.cpu_times()
            cpu = after.user + after.system - before.user - before.system
            return {"cpu": cpu / count * 1e6, "accepted": count / seconds, "memory": memory}
        finally:
            if process.poll() is None:
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
    made = lost = largest = 0
    caught_up = math.nan
    for step in range(int(SECONDS / INTERVAL)):
        now = step * INTERVAL
        room = 0 if RESTART[0] <= now < RESTART[1] else int(capacity * INTERVAL)
        order = list(range(instances))
        source.shuffle(order)
        for each in order:
            new = max(0, round(source.gauss(mean, math.sqrt(mean)))) * SPANS_A_REQUEST
            made += new
            sent = min(queues[each] + new, room)
            room -= sent
            left = queues[each] + new - sent
            lost += max(0, left - QUEUE)
            queues[each] = min(left, QUEUE)
        largest = max(largest, *queues)
        if now >= RESTART[1] and math.isnan(caught_up) and not any(queues):
            caught_up = now - RESTART[1]
    return {"spans": made / SECONDS, "largest": largest, "lost": lost / made, "caught_up": caught_up}


def application_tables(quick: bool) -> list[Table]:
    figures = measure_application(1, 100) if quick else measure_application(7, 2000)
    untraced, traced = figures["untraced"][0], figures["every trace"][0]
    rows = []
    for name, (cpu, sent) in figures.items():
        hours, more = cpu * HOURS_FOR_A_MILLION, (cpu - untraced) * HOURS_FOR_A_MILLION
        events = SETTINGS[name][0] * SPANS_A_REQUEST * 1e6
        rows.append([name, f"{hours:.3f}", f"{more:.3f}", f"{sent / 1e3:.2f}", f"{events:,.0f}"])
    columns = ["Setting", "CPU hours", "more than untraced", "GB sent", "Events at Honeycomb"]
    one = table("A million requests with three spans each", columns, rows)
    rows = []
    for services in (1, 2, 5, 10, 20):
        spans = SPANS_A_REQUEST * services + services - 1  # and a client span for each call between two
        hours = (traced - untraced) / SPANS_A_REQUEST * spans * HOURS_FOR_A_MILLION
        rows.append([f"{services}", f"{spans}", f"{hours:.2f}", f"{spans} million", f"{spans / 10:g} million"])
    columns = ["Services in a request", "Spans", "CPU hours for a million", "Events, every trace", "Events, one in 10"]
    return [one, table("More services", columns, rows)]


def collector_tables(program: str) -> list[Table]:
    collector = measure_collector(program)
    a_core = 1e6 / collector["cpu"]
    rows = [
        ["CPU seconds for a million spans", f"{collector['cpu']:.1f}"],
        ["Spans a second on one core", f"{a_core:,.0f}"],
        ["Spans a second accepted here, beside their senders", f"{collector['accepted']:,.0f}"],
        ["Memory at that rate, MiB", f"{collector['memory']:.0f}"],
    ]
    one = table("One Collector", ["", "Figure"], rows)
    rows = []
    for instances in (1, 10, 100, 200, 500, 1000):
        result = simulate(instances, a_core * CORES)
        use = result["spans"] / (a_core * CORES)
        caught_up = "never" if math.isnan(result["caught_up"]) else f"{result['caught_up']:.1f} s"
        fullest, lost = f"{result['largest']:,.0f}", f"{result['lost']:.1%}"
        rows.append([f"{instances:,}", f"{result['spans']:,.0f}", f"{use:.0%}", fullest, lost, caught_up])
    columns = ["Instances", "Spans a second", "Collector's CPU", "Fullest queue", "Spans lost", "Caught up after"]
    return [one, table("Simulation of many instances", columns, rows)]


def measure(quick: bool) -> list[Table]:
    """Tables of docs/scaling.md; those of the Collector where its program is found."""
    tables = application_tables(quick)
    program = os.environ.get("OTELCOL") or shutil.which("otelcol-contrib")
    if quick or program is None:
        progress("The Collector is left out" + ("" if quick else ": set OTELCOL to the path of otelcol-contrib"))
        return tables
    return tables + collector_tables(program)
