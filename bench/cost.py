"""The cost of tracing: the same application untraced, with only OpenTelemetry ("plain"), and with traced_flask.

Every figure is taken in turns with its baseline, and a ratio is that of a turn: whatever slows the machine down for a
while changes both. The application is apps/shop.py.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Final

from common import APPS, Server, Table, environment, gunicorn, progress, receiver, spread, table

Subject = dict[str, str]
"""The settings of the application with one kind of tracing."""
Figures = dict[str, list[float]]

THREE: Final = {"untraced": {"TRACED": "no"}, "plain": {"TRACED": "plain"}, "traced_flask": {"TRACED": "ours"}}
OVER_HTTP: Final = {name: subject | {"PROFILES": "http"} for name, subject in THREE.items()}
for name in ("plain", "traced_flask"):
    OVER_HTTP[f"{name}, requests untraced"] = OVER_HTTP[name] | {"REQUESTS": "no"}
LAYERS: Final[dict[str, tuple[str, Subject]]] = {
    "no provider": ("instrumentation, without a tracer provider", {"UP_TO": "instrumentation"}),
    "no exporter": ("and spans, without an exporter", {"UP_TO": "spans"}),
    "all": ("and encoding and sending them: all of it", {}),
    "metrics": ("all of it, with metrics", {"METRICS": "yes"}),
    "sampled": ("all of it, one trace in 10 kept", {"SAMPLE_RATE": "10"}),
}
STOCK_SAMPLING: Final = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """Return the names, rotated in each round."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


def ratio(found: Figures, name: str, baseline: str) -> str:
    """Return the median and quartiles of the ratio of two subjects in each turn."""
    if name == baseline:
        return "1"
    return spread([mine / theirs for mine, theirs in zip(found[name], found[baseline], strict=True)], "{:.2f}")


def rows_beside(what: str, found: Figures) -> list[list[str]]:
    """Return a row for each subject, with its ratios to the untraced and plain ones."""
    return [
        [what, name, spread(found[name], "{:.0f}"), *(ratio(found, name, each) for each in ("untraced", "plain"))]
        for name in found
    ]


# In process: microseconds of CPU for a request.


@contextlib.contextmanager
def answering(subject: Subject, endpoint: str) -> Iterator[Callable[[str, int], float]]:
    """A process that handles requests without a server and measures CPU microseconds per request."""
    process = subprocess.Popen(
        [sys.executable, APPS / "in_process.py"],
        env=environment(endpoint, **subject),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin  # noqa: S101
    assert process.stdout  # noqa: S101
    given, taken = process.stdin, process.stdout

    def cost(path: str, count: int) -> float:
        print(json.dumps({"path": path, "count": count}), file=given, flush=True)
        return float(taken.readline())

    try:
        yield cost
    finally:
        given.close()
        process.wait()


def in_process(subjects: Mapping[str, Subject], path: str, rounds: int, count: int, generations: int) -> Figures:
    """Measure the cost of a request for each subject, in rounds, with new processes for each generation."""
    found: Figures = {name: [] for name in subjects}
    for _ in range(generations):
        with receiver() as sink, contextlib.ExitStack() as stack:
            costs = {
                name: stack.enter_context(answering(subject, f"http://127.0.0.1:{sink.port}"))
                for name, subject in subjects.items()
            }
            for number in range(rounds):
                for name in in_turn(list(subjects), number):
                    found[name].append(costs[name](path, count))
    return found


def cpu_tables(quick: bool) -> list[Table]:
    """Measure CPU time per request by handler and by layer."""
    rounds, count, generations = (1, 20, 1) if quick else (16, 150, 3)
    rows = []
    for handler, path, subjects in (
        ("trivial, 1 span", "/trivial", THREE),
        ("feed, 3 spans", "/feed", THREE),
        ("feed over HTTP, 3 spans", "/feed", OVER_HTTP),
    ):
        progress(f"CPU in process: {handler}")
        rows += rows_beside(handler, in_process(subjects, path, rounds, count, generations))
    progress("CPU in process: layers")
    subjects = {"untraced": THREE["untraced"]} | {
        f"{name}, {layer}": THREE[name] | setting
        for name in ("plain", "traced_flask")
        for layer, (_, setting) in LAYERS.items()
    }
    subjects["plain, sampled"] = THREE["plain"] | STOCK_SAMPLING
    found = in_process(subjects, "/feed", rounds, count, generations)

    def added(name: str) -> str:
        return spread([mine - without for mine, without in zip(found[name], found["untraced"], strict=True)], "{:.0f}")

    return [
        table(
            "CPU of a request, in process",
            ["handler", "", "µs", "of untraced", "of plain"],
            rows,
            "Median and quartiles; a ratio is that of a turn. All that the process does counts, encoding and"
            " sending too. Over HTTP, a request to a second process by `requests` takes the place of the third"
            " span's lookup; without RequestsInstrumentor the feed has 2 spans, and the difference is what it costs.",
        ),
        table(
            "What is added to the feed's CPU, layer by layer",
            ["", "plain, µs", "traced_flask, µs"],
            [
                [what, *(added(f"{name}, {layer}") for name in ("plain", "traced_flask"))]
                for layer, (what, _) in LAYERS.items()
            ],
            "Each line has in it what stands above; the last two are settings of their own.",
        ),
    ]


# Under gunicorn, with one worker of four threads.


def ask(connection: HTTPConnection, path: str) -> float:
    """Send a request; return the milliseconds until the complete response."""
    start = time.perf_counter()
    connection.request("GET", path)
    connection.getresponse().read()
    return (time.perf_counter() - start) * 1e3


def ask_at(server: Server, rate: float, seconds: float) -> None:
    """Request the feed at a steady `rate` per second from four threads, even if responses are slower."""
    count, start = round(rate * seconds), time.monotonic()

    def some(first: int) -> None:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        for number in range(first, count, 4):
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
            ask(connection, "/feed")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(some, range(4)))


def at_rate(servers: Mapping[str, Server], rate: float, windows: int, seconds: float) -> Figures:
    """Measure CPU microseconds per request at `rate` per second, for all servers in parallel, by windows."""
    found: Figures = {name: [] for name in servers}
    for _ in range(windows):
        before = {name: server.numbers("/used")["cpu"] for name, server in servers.items()}
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: ask_at(server, rate, seconds), servers.values()))
        for name, server in servers.items():
            found[name].append((server.numbers("/used")["cpu"] - before[name]) / round(rate * seconds) * 1e6)
    return found


def latencies(server: Server, seconds: float) -> list[float]:
    """Measure the latency in milliseconds of the 20 ms handler, with two clients that send one request at a time."""
    until = time.monotonic() + seconds

    def client(_: int) -> list[float]:
        connection, found = HTTPConnection("127.0.0.1", server.port, timeout=30), []
        while time.monotonic() < until:
            found.append(ask(connection, "/20ms"))
        return found

    with ThreadPoolExecutor(2) as pool:
        return [each for found in pool.map(client, range(2)) for each in found]


def server_tables(quick: bool) -> list[Table]:
    """Measure CPU time at steady rates, latency and memory under gunicorn."""
    windows, seconds, rounds, turn = (1, 0.5, 1, 0.5) if quick else (6, 10.0, 12, 4.0)
    rows = []
    p50: Figures = {name: [] for name in THREE}
    p99: Figures = {name: [] for name in THREE}
    with receiver() as sink, contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                gunicorn(environment(f"http://127.0.0.1:{sink.port}", **subject), "--keep-alive", "60")
            )
            for name, subject in THREE.items()
        }
        for server in servers.values():
            ask_at(server, 50, turn)
        for rate in (10, 50, 200):
            progress(f"CPU at {rate} requests a second")
            rows += rows_beside(f"{rate} a second", at_rate(servers, rate, windows, seconds))
        progress("Latency")
        for number in range(rounds):
            for name in in_turn(list(servers), number):
                took = latencies(servers[name], turn)
                p50[name].append(statistics.median(took))
                p99[name].append(statistics.quantiles(took, n=100)[98])
        memory = {name: [server.numbers("/used")["memory"] / 1e6] for name, server in servers.items()}
    return [
        table(
            "CPU of a request to the feed at a steady rate, under gunicorn",
            ["rate", "", "µs", "of untraced", "of plain"],
            rows,
            "One worker of four threads; its whole CPU time by windows of 10 s. The plain way sends every 5 s,"
            " traced_flask every half second: the fewer requests, the fewer spans share the cost of sending.",
        ),
        table(
            "Latency of a handler that takes 20 ms, and memory",
            ["", "p50, ms", "p99, ms", "p99 of untraced", "memory, MB", "of plain"],
            [
                [
                    name,
                    spread(p50[name], "{:.2f}"),
                    spread(p99[name], "{:.2f}"),
                    ratio(p99, name, "untraced"),
                    spread(memory[name], "{:.1f}"),
                    ratio(memory, name, "plain"),
                ]
                for name in servers
            ],
            "Two clients, one request after another; memory is the worker's resident set at the end.",
        ),
    ]


def measure(quick: bool) -> list[Table]:
    """Return the tables of this part."""
    return cpu_tables(quick) + server_tables(quick)
