"""The command `otlp-viewer`."""

import argparse
import gc
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from jinja2 import Environment
from waitress.server import create_server  # type: ignore[import-untyped]

from otlp_viewer.model import TraceSummary
from otlp_viewer.printer import Printer
from otlp_viewer.receive.grpc import Channel
from otlp_viewer.store import Store
from otlp_viewer.store.database import SMALLEST_MEMORY
from otlp_viewer.web.app import create_app


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="otlp-viewer",
        description="Receive traces and logs over OTLP/HTTP, print each trace as a tree, and show them in a browser.",
        epilog="example: otlp-viewer --port 4318 --db traces.duckdb",
    )
    made.add_argument("--host", help="address to listen on (VIEWER_HOST; default 127.0.0.1)")
    made.add_argument("--port", help="port to listen on (VIEWER_PORT; default 4318)")
    made.add_argument("--db", metavar="FILE", help="file to store spans and logs in (VIEWER_DB; default: in memory)")
    made.add_argument(
        "--memory",
        metavar="SIZE",
        help="bytes for spans, logs and queries, such as 256MB or 1GB (VIEWER_MEMORY; default 512MB); the oldest are"
        " dropped when half of it is full",
    )
    return made


def size(text: str) -> int | None:
    """Return the bytes that a size such as 512MB means; None where it means none, or less than 64 MB."""
    found = re.fullmatch(r"(\d{1,9})\s*([KMG]?)I?B?", text.strip().upper())
    bytes_ = int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]] if found else 0
    return bytes_ if SMALLEST_MEMORY <= bytes_ < 1 << 50 else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit code (1: cannot listen, 2: bad setting).

    Arguments go before the variables VIEWER_HOST, VIEWER_PORT, VIEWER_DB and VIEWER_MEMORY. VIEWER_TRACES is where a
    browser finds a trace, but for its id; VIEWER_ALLOWED_HOSTS adds to the hosts that are answered.
    """
    given = parser().parse_args(arguments)
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: sys.exit(0))
    # By default the garbage collector takes 40 % of the time of an answer of 10,000 spans, and finds nothing.
    gc.set_threshold(50_000, 20, 20)
    # "Task queue depth is 1" says nothing that a person at this terminal can act on.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)

    host = given.host or os.environ.get("VIEWER_HOST") or "127.0.0.1"
    port = given.port or os.environ.get("VIEWER_PORT") or "4318"
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        named = "--port" if given.port else "VIEWER_PORT"
        print(f"otlp-viewer: {named} is {port!r}, not a port from 1 to 65535", file=sys.stderr)
        return 2

    memory = size(given.memory or os.environ.get("VIEWER_MEMORY") or "512MB")
    if memory is None:
        named = "--memory" if given.memory else "VIEWER_MEMORY"
        wrong = given.memory or os.environ.get("VIEWER_MEMORY")
        print(f"otlp-viewer: {named} is {wrong!r}, not a size of 64MB or more, such as 512MB", file=sys.stderr)
        return 2

    try:
        store = Store(given.db or os.environ.get("VIEWER_DB") or ":memory:", memory)
    except ValueError as error:
        named = "--db" if given.db else "VIEWER_DB"
        print(f"otlp-viewer: cannot open {named}: {error}", file=sys.stderr)
        return 2
    # Nothing is left of 0.0.0.0 and ::, which are every address and no place to open.
    address = "localhost" if not host.strip("0.:") else f"[{host}]" if ":" in host else host
    here = os.environ.get("VIEWER_TRACES") or f"http://{address}:{port}/traces/"

    def page(trace: TraceSummary) -> str:
        return (store.honeycomb_page(trace.service) or here) + trace.trace_id

    printer = Printer(store.trees, page=page, listing=f"http://{address}:{port}/traces")
    app = create_app(store, received=printer.received)
    servers: dict[int, Any] = {}
    try:
        # The app answers 413 in OTLP's own form; waitress only bounds what it buffers before that.
        # More threads than it can work with, so that one is free to say that it is busy.
        # Half-sent requests hold a connection, not a thread; there are connections enough for pages beside them.
        server = create_server(
            app,
            map=servers,
            host=host,
            port=int(port),
            threads=12,
            max_request_body_size=1 << 26,
            connection_limit=1000,
            recv_bytes=1 << 18,
            channel_timeout=60,
            asyncore_use_poll=True,
        )
    except (OSError, ValueError) as error:
        print(
            f"otlp-viewer: cannot listen on {host}:{port} ({error}); --host and --port (VIEWER_HOST, VIEWER_PORT)"
            " name another address",
            file=sys.stderr,
        )
        return 1

    for one in servers.values():  # of each address; and what wakes them, which has no use for it
        one.channel_class = Channel

    print(f"otlp-viewer: waiting for traces, http://{address}:{port}/", flush=True)
    printer.start()
    threading.Thread(target=compile_templates, args=[app.jinja_env], daemon=True).start()
    try:
        server.run()
    finally:
        printer.stop()
        store.close()
    return 0


def compile_templates(environment: Environment) -> None:
    """Do what the first to open each page would wait for."""
    for name in environment.list_templates():
        environment.get_template(name)


def command() -> NoReturn:
    """Run `main` and end the process with its code."""
    try:
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    sys.stdout.flush()
    # Not by the interpreter's own end, at which DuckDB's module lists what was still in use by a thread.
    os._exit(code)
