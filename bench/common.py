"""Shared by all parts: tables, the application under gunicorn, and its receiver."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

APPS: Final = Path(__file__).resolve().parent / "apps"
SETTINGS: Final = ("OTEL_", "HONEYCOMB_", "SAMPLE_RATE", "TRACED", "PROFILES", "UP_TO", "REQUESTS", "METRICS")

Table = dict[str, Any]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> Table:
    return {"title": title, "columns": list(columns), "rows": [list(row) for row in rows], "note": note}


def spread(values: Sequence[float], form: str) -> str:
    """Return the median and the quartiles of `values`."""
    if len(values) < 2:
        return form.format(values[0])
    low, middle, high = (form.format(each) for each in statistics.quantiles(values, n=4, method="inclusive"))
    return f"{middle} ({low} to {high})"


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def environment(endpoint: str, **settings: str) -> dict[str, str]:
    """Return the application's environment, which sends to `endpoint` and ignores the machine's settings."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    return {**base, "NO_PROXY": "*", "OTEL_SERVICE_NAME": "shop", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **settings}


@dataclass
class Server:
    """A process that serves HTTP."""

    process: subprocess.Popen[bytes]
    port: int

    def get(self, path: str) -> bytes:
        """Return the body of a response; raises OSError for a status other than 200."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return bytes(answer.read())

    def numbers(self, path: str) -> dict[str, float]:
        found: dict[str, float] = json.loads(self.get(path))
        return found


@contextlib.contextmanager
def receiver(state: str = "healthy") -> Iterator[Server]:
    """apps/receiver.py in a separate process, so that it does not affect the measurement."""
    process = subprocess.Popen([sys.executable, APPS / "receiver.py", state], stdout=subprocess.PIPE)
    try:
        assert process.stdout  # noqa: S101
        yield Server(process, int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def gunicorn(environ: dict[str, str], *flags: str, log: Path | None = None) -> Iterator[Server]:
    """apps/shop.py under gunicorn, with four threads for each worker."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        log, port = log or Path(folder) / "log", free_port()
        command = [sys.executable, "-m", "gunicorn", "shop:create_app()", "--chdir", str(APPS), "--threads", "4"]
        command += ["--bind", f"127.0.0.1:{port}", "--worker-tmp-dir", folder, "--no-control-socket", *flags]
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environ, stdout=output, stderr=output, start_new_session=True)
        server = Server(process, port)
        try:
            until = time.monotonic() + 60
            while True:
                try:
                    server.get("/trivial")
                    break
                except OSError as error:
                    if process.poll() is not None or time.monotonic() > until:
                        raise RuntimeError(f"gunicorn does not start:\n{log.read_text()[-2000:]}") from error
                    time.sleep(0.1)
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
