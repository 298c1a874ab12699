"""What arrives of 400 requests' spans, and how long the server takes to stop, with collectors in every state.

The baseline is the same application with OpenTelemetry's own exporter and instrumentation, under the same gunicorn.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

APPS = Path(__file__).resolve().parent / "apps"
SITUATIONS = {  # the collector, gunicorn's flags, how it ends
    "collector healthy, SIGTERM": ("healthy", [], signal.SIGTERM),
    "collector healthy, a worker recycled after 20 requests": ("healthy", ["--max-requests", "20"], signal.SIGTERM),
    "collector refuses connections, SIGTERM": ("refuses", [], signal.SIGTERM),
    "collector refuses, a worker recycled after 20 requests": ("refuses", ["--max-requests", "20"], signal.SIGTERM),
    "collector hangs, SIGTERM": ("hangs", [], signal.SIGTERM),
    "collector answers 503 for 4 s, then is healthy": ("recovers", [], signal.SIGTERM),
    "collector redirects (302)": ("redirects", [], signal.SIGTERM),
    "workers killed right after the requests": ("healthy", [], signal.SIGKILL),
}


class Collector:
    """An OTLP receiver on a free port that counts spans and behaves as it is told."""

    def __init__(self, state: str) -> None:
        self.spans = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        recovered_at = time.monotonic() + 4
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if state == "hangs":
                    collector._stopped.wait(60)
                    return
                status = 302 if state == "redirects" else 200
                if state == "recovers" and time.monotonic() < recovered_at:
                    status = 503
                if status == 200:
                    resources = ExportTraceServiceRequest.FromString(body).resource_spans
                    count = sum(len(scope.spans) for resource in resources for scope in resource.scope_spans)
                    with collector._lock:
                        collector.spans += count
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "https://example.invalid/")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        if state == "refuses":
            self._server = None
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        else:
            self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            self._server.daemon_threads = True
            self.port = self._server.server_port
            threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._stopped.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()


@contextlib.contextmanager
def server(
    traced: str, collector: Collector, flags: list[str], log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hooks = ["--config", "python:traced_flask.gunicorn"] if traced == "ours" else []
    command = [sys.executable, "-m", "gunicorn", *hooks, "--chdir", str(APPS), "--bind", f"127.0.0.1:{port}"]
    command += ["--workers", "2", "--threads", "4", "--keep-alive", "0", "--no-control-socket", *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "HONEYCOMB_"))}
    environment |= {"TRACED": traced, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "delivery:create_app()"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 60
        while ask(port) != 200:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{traced} does not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield process, port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(port: int) -> int:
    """The status of one request; 0 for no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def situation(traced: str, state: str, flags: list[str], end: signal.Signals, requests: int) -> dict[str, Any]:
    collector = Collector(state)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        try:
            with server(traced, collector, flags, log) as (process, port):
                began = time.monotonic()
                with ThreadPoolExecutor(4) as pool:
                    answered = sum(status == 200 for status in pool.map(lambda _: ask(port), range(requests)))
                took = time.monotonic() - began
                if state == "recovers":
                    time.sleep(6)
                began = time.monotonic()
                if end == signal.SIGKILL:
                    os.killpg(process.pid, end)
                else:
                    process.send_signal(end)
                process.wait(120)
                stopped = time.monotonic() - began
            text = log.read_text(errors="replace")
        finally:
            collector.close()
    counts = re.findall(r"([\d,]+) spans? (?:were |was )?(?:lost|sent without an answer)", text)
    reported = sum(int(count.replace(",", "")) for count in counts)
    # The request that waits for the start is one more.
    return {"made": answered + 1, "arrived": collector.spans, "reported": reported, "took": took, "stopped": stopped}


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row for each situation: spans that arrived, were reported lost, and were lost in silence; seconds."""
    rows = []
    for name, (state, flags, end) in list(SITUATIONS.items())[: 1 if quick else None]:
        cells: list[str] = [name]
        for traced in ("plain", "ours"):
            found = situation(traced, state, flags, end, 40 if quick else 400)
            silent = max(0, found["made"] - found["arrived"] - found["reported"])
            cells += [f"{found['arrived']} / {found['reported']} / {silent}"]
            cells += [f"{found['took']:.1f}", f"{found['stopped']:.1f}"]
        rows.append(cells)
    return [
        {
            "title": "400 requests, one span each",
            "columns": [
                "Situation",
                *(
                    f"{who}: {what}"
                    for who in ("plain", "traced-flask")
                    for what in ("spans", "requests, s", "stop, s")
                ),
            ],
            "rows": rows,
            "note": "Spans: arrived / reported in the log as lost or unanswered / lost in silence.",
        }
    ]
