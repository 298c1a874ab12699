"""How many of 400 requests' spans arrive, and how long the server takes to stop, with collectors in every state.

The baseline is the same application with OpenTelemetry's own exporter and instrumentation, under the same gunicorn.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import Server, Table, environment, free_port, gunicorn, receiver, table

RECYCLED = ("--max-requests", "20")
SITUATIONS: dict[str, tuple[str, tuple[str, ...], signal.Signals]] = {  # collector, gunicorn's flags, signal
    "collector healthy, SIGTERM": ("healthy", (), signal.SIGTERM),
    "collector healthy, a worker recycled after 20 requests": ("healthy", RECYCLED, signal.SIGTERM),
    "collector refuses connections, SIGTERM": ("refuses", (), signal.SIGTERM),
    "collector refuses, a worker recycled after 20 requests": ("refuses", RECYCLED, signal.SIGTERM),
    "collector hangs, SIGTERM": ("hangs", (), signal.SIGTERM),
    "collector answers 503 for 4 s, then is healthy": ("recovers", (), signal.SIGTERM),
    "collector redirects (302)": ("redirects", (), signal.SIGTERM),
    "workers killed right after the requests": ("healthy", (), signal.SIGKILL),
}
FLAGS = {"plain": (), "ours": ("--config", "python:traced_flask.gunicorn")}


def answers(server: Server) -> bool:
    try:
        server.get("/trivial")
    except OSError:
        return False
    return True


def situation(traced: str, state: str, flags: tuple[str, ...], end: signal.Signals, requests: int) -> list[str]:
    """Return spans that arrived, were reported lost, and were lost silently; seconds of requests and shutdown."""
    with receiver(state) as collector, tempfile.TemporaryDirectory() as folder:
        port = free_port() if state == "refuses" else collector.port
        environ = environment(f"http://127.0.0.1:{port}", TRACED=traced, REQUESTS="no")
        flags = ("--workers", "2", "--keep-alive", "0", *FLAGS[traced], *flags)
        log = Path(folder) / "log"
        with gunicorn(environ, *flags, log=log) as server:
            started = time.monotonic()
            with ThreadPoolExecutor(4) as pool:
                answered = sum(pool.map(answers, [server] * requests))
            took = time.monotonic() - started
            if state == "recovers":
                time.sleep(6)
            started = time.monotonic()
            (os.killpg if end == signal.SIGKILL else os.kill)(server.process.pid, end)
            server.process.wait(120)
            stopped = time.monotonic() - started
        counts = re.findall(r"([\d,]+) spans? (?:were |was )?(?:lost|sent without an answer)", log.read_text("utf-8"))
        arrived = int(collector.numbers("/taken")["spans"])
    reported = sum(int(count.replace(",", "")) for count in counts)
    silent = max(0, answered + 1 - arrived - reported)  # plus the request that waits for startup
    return [f"{arrived} / {reported} / {silent}", f"{took:.1f}", f"{stopped:.1f}"]


def measure(quick: bool) -> list[Table]:
    """Return the table of this part."""
    rows = [
        [name, *situation("plain", *how, 40 if quick else 400), *situation("ours", *how, 40 if quick else 400)]
        for name, how in list(SITUATIONS.items())[: 1 if quick else None]
    ]
    measured = ("spans", "requests, s", "stop, s")
    columns = ["Situation", *(f"{who}: {what}" for who in ("plain", "traced-flask") for what in measured)]
    note = "Spans: arrived / reported in the log as lost or unanswered / lost in silence."
    return [table("400 requests, one span each", columns, rows, note)]
