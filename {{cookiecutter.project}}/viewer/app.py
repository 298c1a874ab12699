"""The viewer's Flask app: where OTLP comes in and JSON goes out."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import duckdb
from flask import Flask, Response, abort, jsonify, request
from google.protobuf.message import Message  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from werkzeug.exceptions import HTTPException, ServiceUnavailable
from werkzeug.sansio.utils import host_is_trusted

from viewer import otlp, pages, query, tree
from viewer.store import Store

M = TypeVar("M", bound=Message)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors {}"
)


def create_app(store: Store | None = None, received: Callable[[set[str]], object] | None = None) -> Flask:
    """Make the app; `received` is called with the trace ids of the spans of each request.

    VIEWER_ALLOWED_HOSTS (names separated by commas, a leading dot for all subdomains) adds to the
    Host headers that are answered.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = otlp.MAX_BYTES
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.policies["json.dumps_kwargs"] = {"sort_keys": False}
    app.json.sort_keys = False  # type: ignore[attr-defined]
    kept = Store() if store is None else store
    more_hosts = os.environ.get("VIEWER_ALLOWED_HOSTS", "").lower().split(",")
    allowed = ["localhost", "127.0.0.1", "viewer", *filter(None, map(str.strip, more_hosts))]
    # Who names hosts opens a forwarded port, which editors in a browser show in a preview of theirs.
    framed_by = "https: vscode-webview:" if any(more_hosts) else "'none'"

    @app.before_request
    def refuse_foreign_hosts() -> None:
        """Keep a page elsewhere from reading traces here through a name it points at us."""
        host = request.host.lower()
        # werkzeug cuts a trusted name at its first colon, so it can name no IPv6 address.
        if not (re.fullmatch(r"\[::1\](:\d+)?", host) or host_is_trusted(host, allowed)):
            abort(
                403,
                f"This viewer does not answer to the host {host!r}. If the address is "
                "yours, set VIEWER_ALLOWED_HOSTS to that host and start the viewer again.",
            )

    @app.errorhandler(HTTPException)
    def as_json(error: HTTPException) -> Response:
        if request.path.startswith("/v1/"):
            return otlp.failure(request, error)
        wanted = request.accept_mimetypes.best_match(["application/json", "text/html"])
        if wanted == "text/html" and not request.path.startswith("/api/"):
            return pages.error_page(error)
        response = jsonify(error=error.description)
        response.status_code = error.code or 500
        return response

    @app.after_request
    def protect(response: Response) -> Response:
        """Let a page run and load nothing but our own files, whatever is in a span."""
        response.headers["Content-Security-Policy"] = POLICY.format(framed_by)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        return response

    pressure = otlp.Pressure()

    @contextmanager
    def received_as(message: M) -> Iterator[M]:
        """Fill `message` from the request, and see to it that what is kept of it is kept, or sent again."""
        body = otlp.read(request)
        with pressure.take(len(body)):
            try:
                yield otlp.decode(request, body, message)
            except duckdb.Error as error:
                reason = str(error).splitlines()[0]
                raise ServiceUnavailable(f"this cannot be kept now: {reason}", retry_after=otlp.RETRY_AFTER) from error

    @app.post("/v1/traces")
    def export_traces() -> Response:
        with received_as(ExportTraceServiceRequest()) as message:
            spans, refused = otlp.spans(message)
            kept.add_spans(spans)
        kept.in_honeycomb = otlp.in_honeycomb(request)
        if received is not None:
            received({span["trace.trace_id"] for span in spans})
        answer = ExportTraceServiceResponse()
        if refused:
            answer.partial_success.rejected_spans = refused
            answer.partial_success.error_message = (
                "refused by their ids: a trace id is 16 bytes, a span id 8, neither all zero"
            )
        return otlp.answer(request, answer)

    @app.post("/v1/logs")
    def export_logs() -> Response:
        with received_as(ExportLogsServiceRequest()) as message:
            kept.add_logs(otlp.logs(message))
        return otlp.answer(request, ExportLogsServiceResponse())

    @app.post("/v1/metrics")
    def export_metrics() -> Response:
        with received_as(ExportMetricsServiceRequest()):
            pass  # there is no place for them here, and refusing them would fill the sender's log
        return otlp.answer(request, ExportMetricsServiceResponse())

    @app.get("/api/traces")
    def traces() -> Response:
        limit = request.args.get("limit", "100")
        if not (re.fullmatch("[0-9]{1,4}", limit) and 1 <= int(limit) <= 1000):
            abort(400, "limit must be a whole number from 1 to 1000")
        return jsonify(kept.traces(int(limit)))

    @app.get("/api/traces/<trace_id>")
    def trace(trace_id: str) -> Response:
        if not re.fullmatch("[0-9a-fA-F]{32}", trace_id):
            abort(400, "a trace id is 32 hexadecimal digits")
        found = kept.trace(trace_id.lower())
        if found is None:
            abort(404, "no trace with this id is kept here")
        if request.accept_mimetypes.best_match(["application/json", "text/plain"]) == "text/plain":
            return Response(tree.render(found), mimetype="text/plain")
        return jsonify(found)

    @app.get("/api/columns")
    def columns() -> Response:
        return jsonify([{"key_name": name, "type": type_} for name, type_ in kept.columns().items()])

    @app.post("/api/query")
    def ask() -> Response:
        try:
            return jsonify(kept.query(json.loads(request.get_data())))
        except query.Invalid as error:
            abort(400, str(error))
        except (ValueError, RecursionError) as error:
            abort(400, f"the body must be JSON: {error}")

    @app.get("/api/health")
    def health() -> Response:
        spans, logs = kept.counts()
        return jsonify(status="ok", spans=spans, logs=logs)

    app.register_blueprint(pages.pages(kept))
    return app
