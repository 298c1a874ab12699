"""Measures what a request costs in CPU: untraced, traced, and with one trace in ten kept, in one run.

    python bench/sampling.py [--requests 3000]        writes bench/sampling.md

Each kind runs in a process of its own, in turns, and counts all of that process's CPU: the thread that sends
included, the receiver, which is another process, not. The backend is as in production: INFO is logged, but nowhere.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "{{cookiecutter.project}}"
KINDS = {
    "untraced": {"OTEL_SDK_DISABLED": "true"},
    "traced, all kept": {},
    "traced, one in ten kept (`SAMPLE_RATE=10`)": {"SAMPLE_RATE": "10"},
    "traced, one in a thousand kept (`SAMPLE_RATE=1000`)": {"SAMPLE_RATE": "1000"},
}
PATHS = {"/api/activities/home": "3 spans", "/api/health": "never traced"}
ROUNDS = 5


def serve(count: int) -> None:
    """Answer `count` requests to each path, several times; print the least CPU of each in microseconds."""
    sys.path.insert(0, str(PROJECT))
    import logging

    from werkzeug.test import EnvironBuilder, run_wsgi_app

    logging.basicConfig(handlers=[logging.NullHandler()])
    from backend import telemetry

    telemetry.project = lambda: {  # type: ignore[assignment]
        "project": {"version": "0.1.0"},
        "tool": {"telemetry": {"service-name": "backend-flask", "honeycomb-api-endpoint": "http://127.0.0.1:9"}},
    }
    from backend.app import create_app

    app = create_app()
    least = {}
    for path in PATHS:
        environ = EnvironBuilder(path=path).get_environ()
        for _ in range(200):
            run_wsgi_app(app, dict(environ))
        took = []
        for _ in range(3):
            began = time.process_time()
            for _ in range(count):
                run_wsgi_app(app, dict(environ))
            took.append((time.process_time() - began) / count * 1e6)
        least[path] = min(took)
    telemetry.shutdown()
    print(json.dumps(least))


class Receiver(BaseHTTPRequestHandler):
    """Takes everything."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response_only(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


def measured(count: int) -> dict[str, dict[str, float]]:
    """Microseconds of CPU for a request, by kind and path: the median of the rounds."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "HONEYCOMB_", "VIEWER_"))
    }
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for number in range(ROUNDS):
        for kind, env in KINDS.items():
            print(f"round {number + 1} of {ROUNDS}: {kind}", file=sys.stderr)
            done = subprocess.run(
                [sys.executable, "-B", __file__, "--serve", "--requests", str(count)],
                env={**kept, "NO_PROXY": "*", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **env},
                stdout=subprocess.PIPE,
                check=True,
            )
            rounds[kind].append(json.loads(done.stdout))
    server.shutdown()
    return {
        kind: {path: statistics.median(each[path] for each in found) for path in PATHS}
        for kind, found in rounds.items()
    }


def report(found: dict[str, dict[str, float]], count: int) -> str:
    names = "opentelemetry-sdk", "opentelemetry-instrumentation-flask", "flask"
    lines = [
        "# What sampling saves",
        "",
        "CPU microseconds per request, of the whole process (`make bench` writes this anew). The home feed has three",
        "spans; a request that is not kept still gets its ids and headers, as `traceresponse` needs them.",
        "",
        "| | " + " | ".join(f"`{path}` ({what})" for path, what in PATHS.items()) + " | against all kept |",
        "|---|" + "---:|" * (len(PATHS) + 1),
    ]
    home = next(iter(PATHS))
    whole = found["traced, all kept"][home]
    for kind, by_path in found.items():
        lines.append(
            f"| {kind} | " + " | ".join(f"{by_path[path]:.0f}" for path in PATHS) + f" | {by_path[home] / whole:.2f} |"
        )
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    lines += [
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.python_implementation()} {platform.python_version()},"
        f" {os.cpu_count()} cores, {versions}; {count} requests, least of three, median of {ROUNDS} processes.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.requests)
    text = report(measured(arguments.requests), arguments.requests)
    (ROOT / "bench" / "sampling.md").write_text(text, encoding="utf-8")
    print(text)
    return None


if __name__ == "__main__":
    main()
