"""An OTLP/HTTP receiver for tests: stores what arrives, and misbehaves on request."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MESSAGES: dict[str, Any] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
}


@dataclass
class Receiver:
    """`behave` returns (status, headers) for each request, or None to hang; it may sleep."""

    behave: Callable[[], tuple[int, dict[str, str]] | None] = lambda: (200, {})
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def messages(self, path: str) -> Iterator[Any]:
        for where, _, body in list(self.requests):
            if where == path:
                yield MESSAGES[path].FromString(body)

    def spans(self) -> list[dict[str, Any]]:
        """Return all spans as flat dicts: name, service, hex IDs, attributes."""
        return [
            {
                "name": span.name,
                "service": attributes(resource_spans.resource.attributes).get("service.name"),
                "resource": attributes(resource_spans.resource.attributes),
                "trace_id": span.trace_id.hex(),
                "span_id": span.span_id.hex(),
                "parent_id": span.parent_span_id.hex(),
                "kind": span.kind,
                "status": span.status.code,
                "events": [event.name for event in span.events],
                **attributes(span.attributes),
            }
            for message in self.messages("/v1/traces")
            for resource_spans in message.resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        ]

    def traces(self) -> dict[str, list[dict[str, Any]]]:
        by_id: dict[str, list[dict[str, Any]]] = {}
        for span in self.spans():
            by_id.setdefault(span["trace_id"], []).append(span)
        return by_id


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}


@contextmanager
def receiving(port: int = 0, host: str = "127.0.0.1", **kwargs: Any) -> Iterator[Receiver]:
    """Run a receiver on `host`, at `port` or a free one. At the end, close its connections, as if it were killed."""
    receiver = Receiver(**kwargs)
    connections: set[socket.socket] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            connections.add(self.connection)

        def finish(self) -> None:
            connections.discard(self.connection)
            super().finish()

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            response = receiver.behave()
            if response is None:
                receiver.closing.wait(60)
                self.close_connection = True
                return
            status, headers = response
            if status == 200:
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *args: Any) -> None:
            pass  # a client that is killed

    server = Server((host, port), Handler)
    receiver.url = f"http://{host}:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield receiver
    finally:
        receiver.closing.set()
        server.shutdown()
        server.server_close()
        for connection in list(connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def eventually(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Return the result of `condition` as soon as it is true, or its last result after `seconds`."""
    until = time.monotonic() + seconds
    while not (response := condition()) and time.monotonic() < until:
        time.sleep(0.05)
    return response
