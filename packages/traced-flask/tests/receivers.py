"""Receivers of telemetry on this machine, for tests. They store requests and respond correctly or incorrectly."""

from __future__ import annotations

import dataclasses
import importlib
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclasses.dataclass
class Received:
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes


class Receiver:
    """An HTTP server on a free port, as a context manager. `answer` handles each request."""

    def __init__(self, answer: Answer | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer or answering(200)
        self.received: list[Received] = []
        self.connections = 0
        self.stopped = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            stopped = self.stopped

            def setup(self) -> None:
                receiver.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = receiver.answer
                receiver.received.append(Received(self.path, headers, body))
                answer(self)

            def do_CONNECT(self) -> None:
                receiver.received.append(Received(self.path, {}, b""))
                receiver.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *args: object) -> None:
                pass  # a client that has gone

        self.http = Server(("127.0.0.1", 0), Handler)
        if tls:
            self.http.socket = tls.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.http.server_port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=[0.01], daemon=True)

    def bodies(self) -> list[bytes]:
        return [received.body for received in self.received]

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stopped.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def answering(status: int, body: bytes = b"", headers: dict[str, str] | None = None, after: float = 0) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if stopped(handler).wait(after):
            return
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def then(*answers: Answer) -> Answer:
    """Use one handler after another, and keep the last."""
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


def at_most(size: int) -> Answer:
    """Respond 413 to a request of more than `size` bytes."""
    small, large = answering(200), answering(413)
    return lambda handler: (large if int(handler.headers["content-length"]) > size else small)(handler)


def raw(data: bytes, drip: bytes = b"", every: float = 0.05) -> Answer:
    """Send `data`, then `drip` repeatedly until the test or the connection ends."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.wfile.write(data)
        until = time.monotonic() + 30
        while drip and time.monotonic() < until and not stopped(handler).wait(every):
            handler.wfile.write(drip)

    return answer


def hang(handler: BaseHTTPRequestHandler) -> None:
    stopped(handler).wait(60)
    handler.close_connection = True


def tunnel(port: int) -> Answer:
    """Handle CONNECT like a proxy, but always connect to `port` of this machine."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        relay(handler.connection, port)

    return answer


def relay(client: socket.socket, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as server:
        there = threading.Thread(target=pump, args=[client, server], daemon=True)
        there.start()
        pump(server, client)


def pump(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def socks5(client: socket.socket, port: int) -> bytes:
    """Act as a SOCKS5 proxy (RFC 1928) that connects to `port` of this machine. Returns the requested name."""
    client.recv(2 + client.recv(2)[1] - 2)
    client.sendall(b"\x05\x00")
    client.recv(4)
    name = client.recv(client.recv(1)[0])
    client.recv(2)
    client.sendall(b"\x05\x00\x00\x01" + bytes(6))
    relay(client, port)
    return name


def needs(module: str) -> Any:
    """Return the module, or skip the test if it is not installed. In CI, all are."""
    return importlib.import_module(module) if os.environ.get("CI") else pytest.importorskip(module)


def unused_port() -> int:
    """A port that nothing uses, below those that the system gives to programs that ask for any port."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port


def wait_until(happened: Callable[[], object], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)


def stopped(handler: Any) -> threading.Event:
    event: threading.Event = handler.stopped
    return event
