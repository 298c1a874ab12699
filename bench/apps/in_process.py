"""Answers requests without a server, in a process of its own, and prints what they cost in CPU.

    python in_process.py      reads {"path": ..., "count": ...} as lines of JSON, answers each with one

Everything that the process does for the requests counts, in all its threads, until nothing is left to send.
"""

from __future__ import annotations

import gc
import io
import json
import sys
import time
from collections.abc import Callable

from opentelemetry import trace
from shop import create_app

BATCH = 400  # requests; then what they left is sent, so that no queue runs over
PAUSE, IDLE = 0.01, 0.0003  # seconds, and how much CPU time a process that does nothing takes in a pause


def environ(path: str) -> dict[str, object]:
    """What gunicorn gives for `curl http://127.0.0.1:4567<path>`."""
    return {
        "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input": io.BytesIO(),
        "wsgi.input_terminated": True,
        "wsgi.url_scheme": "http",
        "SERVER_SOFTWARE": "gunicorn",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "RAW_URI": path,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1:4567",
        "HTTP_USER_AGENT": "curl/8.5.0",
        "HTTP_ACCEPT": "*/*",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "4567",
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
    }


def ask(app: Callable[..., object], path: str, count: int) -> None:
    """Ask `count` times, and read and close each response as a server does."""
    given = environ(path)
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
    """Send what there is, and wait until the process does nothing for two pauses."""
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
        ask(app, asked["path"], 20)
        settle()
        gc.collect()
        before = time.process_time()
        ask(app, asked["path"], asked["count"])
        settle()
        print(json.dumps((time.process_time() - before) / asked["count"] * 1e6), flush=True)


if __name__ == "__main__":
    main()
