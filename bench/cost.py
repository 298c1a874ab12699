"""What tracing costs: the same application untraced, with OpenTelemetry alone ("plain"), and with traced_flask.

Every figure is taken in turns with its baseline, and a ratio is that of a turn: whatever slows the machine down for a
while changes both. The application is apps/shop.py.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

APPS: Final = Path(__file__).resolve().parent / "apps"
SETTINGS: Final = ("OTEL_", "TRACED", "PROFILES_URL", "UP_TO", "REQUESTS", "METRICS", "SAMPLE_RATE", "HONEYCOMB_")
PLAIN_DELAY: Final = 5.0  # seconds after which the last spans of the plain way leave

Table = dict[str, Any]
Figures = dict[str, list[float]]


@dataclass(frozen=True)
class Subject:
    """The application with one way of tracing."""

    traced: str
    env: Mapping[str, str] = field(default_factory=dict)

    def environ(self, port: int) -> dict[str, str]:
        """Its environment, with the receiver and the profiles on `port`; no setting of the machine counts."""
        base = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        url = f"http://127.0.0.1:{port}"
        return {
            **base,
            "TRACED": self.traced,
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "NO_PROXY": "*",
            **{name: value.replace("PORT", str(port)) for name, value in self.env.items()},
        }


HTTP: Final = {"PROFILES_URL": "http://127.0.0.1:PORT/"}
THREE: Final = {"untraced": Subject("no"), "plain": Subject("plain"), "traced_flask": Subject("ours")}
OVER_HTTP: Final = {
    **{f"{name}, over HTTP": Subject(subject.traced, HTTP) for name, subject in THREE.items()},
    "plain, over HTTP, requests untraced": Subject("plain", {**HTTP, "REQUESTS": "no"}),
    "traced_flask, over HTTP, requests untraced": Subject("ours", {**HTTP, "REQUESTS": "no"}),
}
LAYERS: Final = {
    f"{name}, {layer}": Subject(subject.traced, env)
    for name, subject in THREE.items()
    if name != "untraced"
    for layer, env in (
        ("no provider", {"UP_TO": "instrumentation"}),
        ("no exporter", {"UP_TO": "spans"}),
        ("metrics", {"METRICS": "yes"}),
        ("one trace in 10", {"SAMPLE_RATE": "10"} if name == "traced_flask" else
         {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}),
    )
}  # fmt: skip


@contextlib.contextmanager
def counterpart() -> Iterator[int]:
    """An OTLP receiver that also answers for the profiles, in a process of its own; the port."""
    process = subprocess.Popen([sys.executable, APPS / "counterpart.py"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout  # noqa: S101
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """The names, with another one first in each round."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


def ratio(found: Figures, name: str, baseline: str) -> str:
    """The ratio of two subjects, turn by turn: its median and quartiles."""
    return spread([mine / theirs for mine, theirs in zip(found[name], found[baseline], strict=True)], "{:.2f}")


def spread(values: Sequence[float], form: str) -> str:
    """The median and the quartiles of `values`."""
    if len(values) < 2:
        return form.format(values[0])
    low, middle, high = (form.format(each) for each in statistics.quantiles(values, n=4, method="inclusive"))
    return f"{middle} ({low} to {high})"


# In process: microseconds of CPU for a request.


class InProcess:
    """A process that answers requests without a server."""

    def __init__(self, subject: Subject, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, APPS / "in_process.py"],
            env=subject.environ(port),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def cost(self, path: str, count: int) -> float:
        """Microseconds of CPU for one of `count` requests."""
        assert self._process.stdin  # noqa: S101
        assert self._process.stdout  # noqa: S101
        print(json.dumps({"path": path, "count": count}), file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def end(self) -> None:
        assert self._process.stdin  # noqa: S101
        self._process.stdin.close()
        self._process.wait()


def in_process(subjects: Mapping[str, Subject], path: str, rounds: int, count: int, generations: int) -> Figures:
    """What a request costs each subject, in rounds, in processes that are started again for each generation."""
    found: Figures = {name: [] for name in subjects}
    for _ in range(generations):
        with counterpart() as port, contextlib.ExitStack() as stack:
            processes = {}
            for name, subject in subjects.items():
                processes[name] = InProcess(subject, port)
                stack.callback(processes[name].end)
            for number in range(rounds):
                for name in in_turn(list(subjects), number):
                    found[name].append(processes[name].cost(path, count))
    return found


def cpu_tables(quick: bool) -> list[Table]:
    """CPU of a request by handler, and layer by layer."""
    rounds, count, generations = (1, 20, 1) if quick else (16, 150, 3)
    rows = []
    for handler, path, subjects in (
        ("trivial, 1 span", "/trivial", THREE),
        ("feed, 3 spans", "/feed", THREE),
        ("feed over HTTP, 3 spans", "/feed", OVER_HTTP),
    ):
        progress(f"CPU in process: {handler}")
        found = in_process(subjects, path, rounds, count, generations)
        untraced, plain = list(found)[:2]
        for name in found:
            beside = [ratio(found, name, each) if name != each else "1" for each in (untraced, plain)]
            rows.append([handler, name.replace(", over HTTP", ""), spread(found[name], "{:.0f}"), *beside])
    progress("CPU in process: layers")
    layers = in_process({**THREE, **LAYERS}, "/feed", rounds, count, generations)
    differences = {
        name: [mine - theirs for mine, theirs in zip(layers[name], layers["untraced"], strict=True)] for name in layers
    }
    shares = [
        [what, *(spread(differences[f"{name}{suffix}"], "{:.0f}") for name in ("plain", "traced_flask"))]
        for what, suffix in (
            ("instrumentation, without a tracer provider", ", no provider"),
            ("and spans, without an exporter", ", no exporter"),
            ("and encoding and sending them: all of it", ""),
            ("all of it, with metrics", ", metrics"),
            ("all of it, one trace in 10 kept", ", one trace in 10"),
        )
    ]
    return [
        {
            "title": "CPU of a request, in process",
            "columns": ["handler", "", "µs", "of untraced", "of plain"],
            "rows": rows,
            "note": "Median and quartiles; a ratio is that of a turn. All that the process does counts, encoding and"
            " sending too. Over HTTP, a request to a second process by `requests` takes the place of the third"
            " span's lookup; without RequestsInstrumentor the feed has 2 spans, and the difference is what it costs.",
        },
        {
            "title": "What is added to the feed's CPU, layer by layer",
            "columns": ["", "plain, µs", "traced_flask, µs"],
            "rows": shares,
            "note": "Each line has in it what stands above; the last two are settings of their own.",
        },
    ]


# Under gunicorn, with one worker of four threads.


@dataclass
class Server:
    """A subject under gunicorn."""

    port: int

    def get(self, path: str) -> bytes:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"{path} answers {answer.status}")
            return answer.read()

    def used(self) -> dict[str, float]:
        """Seconds of CPU and bytes of memory that the worker has used."""
        found: dict[str, float] = json.loads(self.get("/used"))
        return found


@contextlib.contextmanager
def serving(subjects: Mapping[str, Subject]) -> Iterator[dict[str, Server]]:
    """The subjects, each under a gunicorn of its own."""
    with counterpart() as port, contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        servers = {}
        for name, subject in subjects.items():
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                server = servers[name] = Server(free.getsockname()[1])
            command = [sys.executable, "-m", "gunicorn", "shop:create_app()", "--chdir", str(APPS), "--threads", "4"]
            command += ["--bind", f"127.0.0.1:{server.port}", "--worker-tmp-dir", folder, "--no-control-socket"]
            process = subprocess.Popen(command, env=subject.environ(port), stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        for server in servers.values():
            for _ in range(300):
                with contextlib.suppress(OSError):
                    server.used()
                    break
                time.sleep(0.1)
        yield servers


def ask_at(server: Server, path: str, rate: float, seconds: float) -> int:
    """Ask at a steady `rate` a second from four threads, whether or not answers come as fast; how many were asked."""
    count = round(rate * seconds)
    start = time.monotonic()

    def some(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        for number in range(first, count, 4):
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
            ask_once(connection, path)

    threads = [threading.Thread(target=some, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count


def ask_once(connection: http.client.HTTPConnection, path: str) -> float:
    """Ask, and return the seconds until the whole answer; a connection that the server has closed is opened again."""
    for attempt in (1, 2):
        start = time.perf_counter()
        try:
            connection.request("GET", path)
            connection.getresponse().read()
            break
        except (http.client.HTTPException, OSError):
            connection.close()
            if attempt == 2:
                raise
    return time.perf_counter() - start


def at_rate(servers: Mapping[str, Server], rate: float, windows: int, seconds: float) -> Figures:
    """Microseconds of CPU for a request to the feed at `rate` a second, all servers at the same time, by windows."""
    found: Figures = {name: [] for name in servers}
    before = {name: server.used()["cpu"] for name, server in servers.items()}
    for _ in range(windows):
        threads = [
            threading.Thread(target=ask_at, args=[server, "/feed", rate, seconds]) for server in servers.values()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name, server in servers.items():
            now = server.used()["cpu"]
            found[name].append((now - before[name]) / (rate * seconds) * 1e6)
            before[name] = now
    return found


def latency(server: Server, path: str, seconds: float) -> list[float]:
    """Milliseconds that each answer took, asked one after another by two clients."""
    found: list[float] = []
    until = time.monotonic() + seconds

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        while time.monotonic() < until:
            found.append(ask_once(connection, path) * 1e3)

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def server_tables(quick: bool) -> list[Table]:
    """CPU at steady rates, latency and memory, under gunicorn."""
    windows, seconds, rounds, turn = (1, 0.5, 1, 0.5) if quick else (6, 2 * PLAIN_DELAY, 12, 4.0)
    rows, latencies = [], []
    with serving(THREE) as servers:
        for server in servers.values():
            ask_at(server, "/feed", 50, turn)
        for rate in (10, 50, 200):
            progress(f"CPU at {rate} requests a second")
            found = at_rate(servers, rate, windows, seconds)
            for name in found:
                beside = [ratio(found, name, each) if name != each else "1" for each in ("untraced", "plain")]
                rows.append([f"{rate} a second", name, spread(found[name], "{:.0f}"), *beside])
        progress("Latency")
        took: dict[str, list[list[float]]] = {name: [] for name in servers}
        for number in range(rounds):
            for name in in_turn(list(servers), number):
                took[name].append(latency(servers[name], "/20ms", turn))
        p50 = {name: [statistics.median(each) for each in took[name]] for name in servers}
        p99 = {name: [statistics.quantiles(each, n=100)[98] for each in took[name]] for name in servers}
        memory = {name: [server.used()["memory"] / 1e6] for name, server in servers.items()}
    for name in servers:
        latencies.append(
            [
                name,
                spread(p50[name], "{:.2f}"),
                spread(p99[name], "{:.2f}"),
                ratio(p99, name, "untraced") if name != "untraced" else "1",
                f"{memory[name][0]:.1f}",
                ratio(memory, name, "plain") if name != "plain" else "1",
            ]
        )
    return [
        {
            "title": "CPU of a request to the feed at a steady rate, under gunicorn",
            "columns": ["rate", "", "µs", "of untraced", "of plain"],
            "rows": rows,
            "note": "One worker of four threads; its whole CPU time by windows of 10 s. The plain way sends every 5 s,"
            " traced_flask every half second: the fewer requests, the fewer spans share the cost of sending.",
        },
        {
            "title": "Latency of a handler that takes 20 ms, and memory",
            "columns": ["", "p50, ms", "p99, ms", "p99 of untraced", "memory, MB", "of plain"],
            "rows": latencies,
            "note": "Two clients, one request after another; memory is the worker's resident set at the end.",
        },
    ]


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(quick: bool) -> list[Table]:
    """The tables of this part."""
    return cpu_tables(quick) + server_tables(quick)
