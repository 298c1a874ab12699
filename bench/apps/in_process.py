"""Handles requests without a server, in a separate process, and prints their CPU time.

    python in_process.py      reads {"path": ..., "count": ...} as lines of JSON, answers each with one

Everything that the process does for the requests counts, in all its threads, until nothing is left to send.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable

from opentelemetry import trace
from shop import create_app
from werkzeug.test import create_environ

WARM_UP = 20  # requests that are not measured
BATCH = 400  # requests before a flush, so that no queue overflows
PAUSE, IDLE = 0.01, 0.0003  # seconds; the pause and the CPU time of an idle process in a pause
CLIENT = {"User-Agent": "curl/8.5.0", "Accept": "*/*"}


def ask(app: Callable[..., object], path: str, count: int) -> None:
    """Send `count` requests, and read and close each response as a server does."""
    given = create_environ(path, "http://127.0.0.1:4567", headers=CLIENT)
    given |= {"REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "50000", "SERVER_SOFTWARE": "gunicorn"}
    statuses: list[str] = []
    for number in range(count):
        body = app(dict(given), lambda status, headers, exc_info=None: statuses.append(status))
        for _ in body:
            pass
        if close := getattr(body, "close", None):
            close()
        if statuses.pop() != "200 OK":
            raise RuntimeError(f"{path} did not answer 200")
        if number % BATCH == BATCH - 1:
            settle()


def settle() -> None:
    """Flush telemetry and wait until the process is idle for two pauses."""
    if flush := getattr(trace.get_tracer_provider(), "force_flush", None):
        flush()
    idle, before = 0, time.process_time()
    while idle < 2:
        time.sleep(PAUSE)
        now = time.process_time()
        idle = idle + 1 if now - before < IDLE else 0
        before = now


def main() -> None:
    app = create_app()
    for line in sys.stdin:
        asked = json.loads(line)
        ask(app, asked["path"], WARM_UP)
        settle()
        gc.collect()
        before = time.process_time()
        ask(app, asked["path"], asked["count"])
        settle()
        print(json.dumps((time.process_time() - before) / asked["count"] * 1e6), flush=True)


if __name__ == "__main__":
    main()
