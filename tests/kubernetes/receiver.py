"""Honeycomb's place in a test's cluster: keeps the spans and the markers that arrive, and answers with what it has.

It runs in the project's own image, which has OpenTelemetry's messages.
"""

import gzip
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SPANS = []
KEYS = []
MARKERS = []


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}


def flat(message):
    for resource_spans in message.resource_spans:
        service = attributes(resource_spans.resource.attributes).get("service.name")
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield {
                    "trace_id": span.trace_id.hex(),
                    "span_id": span.span_id.hex(),
                    "root": not span.parent_span_id,
                    "service": service,
                    "error": span.status.code == 2,
                    "weight": attributes(span.attributes).get("SampleRate", 1),
                }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, what):
        body = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path.startswith("/1/"):
            self.answer(
                {"api_key_access": {"markers": True}, "team": {"slug": "team"}, "environment": {"slug": "test"}}
            )
        else:
            self.answer({"spans": SPANS, "keys": sorted(set(KEYS)), "markers": MARKERS})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            KEYS.append(self.headers.get("x-honeycomb-team"))
            SPANS.extend(flat(ExportTraceServiceRequest.FromString(body)))
        elif self.path.startswith("/1/markers/"):
            MARKERS.append(json.loads(body))
        self.answer({})

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", 4318), Handler).serve_forever()  # noqa: S104  it is alone in its pod
