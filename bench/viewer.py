"""What the viewer takes: ingest, pages, questions and memory, beside plain Python lists."""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psutil
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from report import COLOURS, Ratio, plot, save, table
from subjects import BENCH, project

from conftest import environment, free_ports  # isort: skip  # in tests/, which subjects adds to the path
from processes import answers, running  # isort: skip
from receiver import eventually  # isort: skip

Figures = dict[str, Any]

KEPT: Final = 100_000  # the viewer's own bound
BATCH: Final = 500
PER_TRACE: Final = 5
ROUTES: Final = ("/api/activities/home", "/api/activities/@<handle>", "/api/examples/slow", "/api/examples/failing")


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
def viewer_on_one_core() -> Iterator[tuple[str, psutil.Process]]:
    """The viewer as `python -m viewer`, its address and its process; this process has the other cores."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "viewer"]
    log = project().parent / "viewer.log"
    cores = sorted(os.sched_getaffinity(0))
    with running(command, project(), log, VIEWER_PORT=str(port)) as process:
        os.sched_setaffinity(process.process.pid, {cores[0]})
        os.sched_setaffinity(0, set(cores[1:]) or {cores[0]})
        try:
            address = f"http://127.0.0.1:{port}"
            if not eventually(lambda: answers(f"{address}/api/health"), 30):
                raise RuntimeError(f"the viewer does not answer:\n{process.output()}")
            yield address, psutil.Process(process.process.pid)
        finally:
            os.sched_setaffinity(0, set(cores))


def get(url: str, body: bytes | None = None, content_type: str = "application/json") -> bytes:
    headers = {"Content-Type": content_type, "Accept": "text/html, application/json"}
    request = urllib.request.Request(url, body, headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return bytes(answer.read())


def megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def timed(rounds: int, do: Callable[[], object]) -> list[float]:
    """Milliseconds of each round, after one that does not count."""
    do()
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        do()
        took.append((time.perf_counter() - began) * 1000)
    return took


def measure(quick: bool) -> Figures:
    total, kept, rounds = (4 * BATCH, BATCH, 1) if quick else (500_000, KEPT, 15)
    start = time.time() - 600
    rates, spent, memory, asked = [], [], [], {}
    with viewer_on_one_core() as (address, process):
        idle = megabytes(process)
        for seed in range(1, total // kept + 1):
            ready = list(bodies(kept, seed, start))
            began, before = time.perf_counter(), cpu(process)
            for each in ready:
                get(f"{address}/v1/traces", each, "application/x-protobuf")
            rates.append(kept / (time.perf_counter() - began))
            spent.append((cpu(process) - before) / kept * 1e6)
            memory.append(megabytes(process))
            print(f"{seed * kept:,} spans: {rates[-1]:,.0f} in a second", file=sys.stderr, flush=True)
        for name, path, body in questions(address, start):
            asked[name] = timed(rounds, lambda path=path, body=body: get(address + path, body))  # type: ignore[misc]
    return {
        "sent": total,
        "kept": min(total, KEPT),
        "step": kept,
        "rates": rates,
        "cpu": spent,
        "idle": idle,
        "memory": memory,
        "asked": asked,
        "lists": lists(2 * kept, start, rounds),
    }


START_PAGE: Final = "start page: latency by route"


def questions(address: str, start: float) -> Iterator[tuple[str, str, bytes | None]]:
    """What is asked of the viewer: its name, its path, and its body if it has one."""
    trace = json.loads(get(f"{address}/api/traces?limit=1"))[0]["trace_id"]
    yield START_PAGE, "/", None
    yield "traces page", "/traces", None
    yield "traces page, searched for a text", "/traces?text=user-77", None
    yield "trace page", f"/traces/{trace}", None
    span_of_time = {"start_time": int(start), "time_range": 1200}
    offered = json.loads((project() / "queries.json").read_text(encoding="utf-8"))
    for one in offered:
        yield f"query: {one['name']}", "/api/query", json.dumps({**one["query"], **span_of_time}).encode()
    by_user = {"calculations": [{"op": "P99", "column": "duration_ms"}], "breakdowns": ["app.user"], **span_of_time}
    yield "query: P99 of all spans by 1,000 users", "/api/query", json.dumps(by_user).encode()
    box = f"{start},{start + 600},100,100000,duration_ms"
    path = "/query?" + urllib.parse.urlencode({"query": json.dumps(offered[0]["query"]), "box": box})
    yield "page of what sets a box apart", path, None


def lists(count: int, start: float, rounds: int) -> Figures:
    """What the same costs with the events of the last KEPT spans in a list."""
    done = subprocess.run(
        [sys.executable, "-B", str(BENCH / "apps" / "lists.py"), str(KEPT), str(rounds)],
        env=environment(PYTHONPATH=str(project())),
        input=b"".join(f"{len(body)}\n".encode() + body for body in bodies(count, 99, start)),
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: Figures = json.loads(done.stdout)
    return figures


def report(figures: Figures, plots: Path) -> str:
    plain, rates = figures["lists"], figures["rates"][1:]  # those that came when it was full
    ratios = {
        "CPU to take in a span, µs": (figures["cpu"][1:], [plain["cpu"]]),
        "P90 and MAX by route, ms (the viewer: the whole page)": (figures["asked"][START_PAGE], plain["query"]),
        "memory for what is kept, MB": ([figures["memory"][-1] - figures["idle"]], [plain["memory"]]),
    }
    beside = [(what, mine, theirs, Ratio.of_medians(mine, theirs)) for what, (mine, theirs) in ratios.items()]
    draw(figures, plots / "viewer.svg")
    lines = [
        "## The viewer",
        "",
        f"{figures['sent']:,} spans of about 25 fields, {PER_TRACE} in a trace, sent in requests of {BATCH} to the"
        f" viewer on one core; it keeps {figures['kept']:,}, and takes {min(rates):,.0f} spans in a second or more."
        " The baseline: the same events in a Python list, in one process, with neither HTTP nor pages.",
        "",
        table(
            ["", "the viewer", "lists", "the viewer / lists", ""],
            [
                [
                    what,
                    f"{statistics.median(mine):.0f}",
                    f"{statistics.median(theirs):.0f}",
                    str(ratio),
                    ratio.verdict(),
                ]
                for what, mine, theirs, ratio in beside
            ],
        ),
    ]
    if any(ratio.verdict() == "worse" for *_, ratio in beside):
        lines += ["What is worse buys pages, any of Honeycomb's questions of any field, and spans over HTTP.", ""]
    return "\n".join(
        [
            *lines,
            table(
                ["asked of it when it is full", "ms: median (least to most)"],
                [
                    [name, f"{statistics.median(took):.0f} ({min(took):.0f} to {max(took):.0f})"]
                    for name, took in figures["asked"].items()
                ],
            ),
            f"Its memory is {figures['idle']:.0f} MB when it is idle, {figures['memory'][0]:.0f} MB after"
            f" {figures['step']:,} spans and {figures['memory'][-1]:.0f} MB after {figures['sent']:,}:",
            "",
            "![Memory of the viewer against the spans that it was sent](plots/viewer.svg)",
        ]
    )


def draw(figures: Figures, path: Path) -> None:
    figure, (axes,) = plot(height=2.6)
    sent = [number * figures["step"] for number in range(len(figures["memory"]) + 1)]
    memory = [figures["idle"], *figures["memory"]]
    axes.plot(sent, memory, marker="o", color=COLOURS["ours"])
    axes.axvline(figures["kept"], color="#888888", linewidth=0.8, linestyle=":")
    axes.annotate(" full from here on", (figures["kept"], 0), (2, 4), textcoords="offset points", fontsize=8)
    axes.set_ylim(bottom=0, top=max(memory) * 1.15)
    axes.set_xlim(left=0)
    axes.set_xticks(sent, [f"{number:,}" for number in sent])
    axes.set_title("The viewer's memory, MB, by spans that it was sent")
    save(figure, path)
