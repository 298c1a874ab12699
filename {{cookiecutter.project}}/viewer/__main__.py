"""Starts the viewer: an OTLP/HTTP receiver that prints each finished trace as a tree."""

import logging
import os
import signal
import sys

from waitress.server import create_server  # type: ignore[import-untyped]

from viewer.app import create_app
from viewer.store import Store
from viewer.tree import Printer


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit code (1: cannot listen, 2: bad setting)."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: sys.exit(0))
    # "Task queue depth is 1" says nothing that a person at this terminal can act on.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)

    host = os.environ.get("VIEWER_HOST") or "127.0.0.1"
    port = os.environ.get("VIEWER_PORT") or "4318"
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        print(f"viewer: VIEWER_PORT is {port!r}, not a port from 1 to 65535", file=sys.stderr)
        return 2

    try:
        store = Store(path=os.environ.get("VIEWER_DB") or ":memory:")
    except ValueError as error:
        print(f"viewer: cannot open VIEWER_DB: {error}", file=sys.stderr)
        return 2
    # Nothing is left of 0.0.0.0 and ::, which are every address and no place to open.
    shown = "localhost" if not host.strip("0.:") else f"[{host}]" if ":" in host else host
    here = os.environ.get("VIEWER_TRACES") or f"http://{shown}:{port}/traces/"
    printer = Printer(store.trees, page=lambda: store.in_honeycomb or here)
    app = create_app(store, received=printer.received)
    try:
        # The app answers 413 in OTLP's own form; waitress only bounds what it buffers before that.
        # More threads than it can work with, so that one is free to say that it is busy.
        server = create_server(app, host=host, port=int(port), threads=12, max_request_body_size=1 << 26)
    except (OSError, ValueError) as error:
        print(
            f"viewer: cannot listen on {host}:{port} ({error}); VIEWER_HOST and VIEWER_PORT name another address",
            file=sys.stderr,
        )
        return 1

    print(f"viewer: waiting for traces, http://{shown}:{port}/", flush=True)
    printer.start()
    try:
        server.run()
    finally:
        printer.stop()
        store.close()
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except SystemExit:
        code = 0
    sys.stdout.flush()
    # Not by the interpreter's own end, at which DuckDB's module lists what was still in use by a thread.
    os._exit(code)
