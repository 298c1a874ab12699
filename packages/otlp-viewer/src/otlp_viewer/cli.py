"""The command `otlp-viewer`."""

import argparse
import errno
import gc
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NoReturn

from jinja2 import Environment
from waitress.server import create_server  # type: ignore[import-untyped]

from otlp_viewer.model import TraceSummary
from otlp_viewer.printer import Printer
from otlp_viewer.receive.grpc import Channel
from otlp_viewer.store import Store
from otlp_viewer.store.database import MIN_MEMORY
from otlp_viewer.web.app import create_app


def build_parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="otlp-viewer",
        description="Receive traces and logs over OTLP/HTTP, print each trace as a tree, and show them in a browser.",
        epilog="example: otlp-viewer --port 4318 --db traces.duckdb",
    )
    result.add_argument("--host", help="address to listen on (VIEWER_HOST; default 127.0.0.1)")
    result.add_argument("--port", help="port to listen on (VIEWER_PORT; default 4318)")
    result.add_argument("--db", metavar="FILE", help="file to store spans and logs in (VIEWER_DB; default: in memory)")
    result.add_argument(
        "--memory",
        metavar="SIZE",
        help="bytes for spans, logs and queries, such as 256MB or 1GB (VIEWER_MEMORY; default 512MB); the oldest are"
        " dropped when half of it is used",
    )
    result.add_argument("--version", action="version", version=f"otlp-viewer {version('otlp-viewer')}")
    return result


def size(text: str) -> int | None:
    """Return a size such as 512MB in bytes; None if it is invalid or less than 64 MB."""
    match = re.fullmatch(r"(\d{1,9})\s*([KMG]?)I?B?", text.strip().upper())
    number = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]] if match else 0
    return number if MIN_MEMORY <= number < 1 << 50 else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit code (1: cannot listen, 2: bad setting).

    Arguments override VIEWER_HOST, VIEWER_PORT, VIEWER_DB and VIEWER_MEMORY. VIEWER_TRACES is the URL of a trace's
    page without the ID. VIEWER_ALLOWED_HOSTS lists additional host names to accept.
    """
    options = build_parser().parse_args(arguments)
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: sys.exit(0))
    # By default, garbage collection takes 40% of the time of a response with 10,000 spans and frees nothing.
    gc.set_threshold(50_000, 20, 20)
    # Hide "Task queue depth is 1": the user can do nothing about it.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)

    host = options.host or os.environ.get("VIEWER_HOST") or "127.0.0.1"
    port = options.port or os.environ.get("VIEWER_PORT") or "4318"
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        source = "--port" if options.port else "VIEWER_PORT"
        print(f"otlp-viewer: {source} is {port!r}, not a port from 1 to 65535", file=sys.stderr)
        return 2

    memory = size(options.memory or os.environ.get("VIEWER_MEMORY") or "512MB")
    if memory is None:
        source = "--memory" if options.memory else "VIEWER_MEMORY"
        value = options.memory or os.environ.get("VIEWER_MEMORY")
        print(f"otlp-viewer: {source} is {value!r}, not a size of 64MB or more, such as 512MB", file=sys.stderr)
        return 2

    try:
        store = Store(options.db or os.environ.get("VIEWER_DB") or ":memory:", memory)
    except ValueError as error:
        source = "--db" if options.db else "VIEWER_DB"
        print(f"otlp-viewer: cannot open {source}: {error}", file=sys.stderr)
        return 2
    # A browser cannot open the wildcard addresses 0.0.0.0 and ::.
    address = "localhost" if not host.strip("0.:") else f"[{host}]" if ":" in host else host
    traces_page = os.environ.get("VIEWER_TRACES") or f"http://{address}:{port}/traces/"

    def page(trace: TraceSummary) -> str:
        return (store.honeycomb_page(trace.service) or traces_page) + trace.trace_id

    printer = Printer(store.trees, page=page, listing=f"http://{address}:{port}/traces")
    app = create_app(store, received=printer.received)
    servers: dict[int, Any] = {}
    try:
        # The app returns 413 in OTLP's format; this only limits what waitress buffers before that.
        # More threads than can do work at once, so that one is free to respond that the server is busy.
        # Incomplete requests occupy a connection but no thread. The limit leaves connections for pages.
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
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            problem = f"port {port} is in use; choose another with --port (VIEWER_PORT)"
        else:
            problem = f"cannot listen on {host}:{port} ({error}); set --host and --port (VIEWER_HOST, VIEWER_PORT)"
        print(f"otlp-viewer: {problem}", file=sys.stderr)
        return 1

    for dispatcher in servers.values():  # one for each address, and a trigger, which ignores this
        dispatcher.channel_class = Channel

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
    """Compile the templates in advance, so that the first request of a page does not wait."""
    for name in environment.list_templates():
        environment.get_template(name)


def command() -> NoReturn:
    """Run `main` and exit with its status."""
    try:
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    sys.stdout.flush()
    # Skip the interpreter's shutdown, in which DuckDB reports objects that threads still use.
    os._exit(code)
