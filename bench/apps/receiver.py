"""The application's backends on a free port, which it prints: an OTLP receiver (POST) and the profiles (GET).

    python receiver.py [healthy | hangs | redirects | recovers]     recovers: 503 for four seconds, then healthy

/taken has how many bytes and spans were accepted.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PROFILES = {"andrew": {"name": "Andrew"}, "louis": {"name": "Louis"}, "mina": {"name": "Mina"}}
STATE = sys.argv[1]
START = time.monotonic()

taken = {"bytes": 0, "spans": 0}
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet per response

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if STATE == "hangs":
            time.sleep(60)
        elif STATE == "redirects":
            self.answer(302)
        elif STATE == "recovers" and time.monotonic() < START + 4:
            self.answer(503)
        else:
            with lock:
                taken["bytes"] += len(body)
                if self.path == "/v1/traces" and "Content-Encoding" not in self.headers:
                    resources = ExportTraceServiceRequest.FromString(body).resource_spans
                    taken["spans"] += sum(len(scope.spans) for resource in resources for scope in resource.scope_spans)
            self.answer(200)

    def do_GET(self) -> None:
        self.answer(200, json.dumps(taken if self.path == "/taken" else PROFILES).encode(), "application/json")

    def answer(self, status: int, body: bytes = b"", kind: str = "application/x-protobuf") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 302:
            self.send_header("Location", "https://example.invalid/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
