"""The Flask application: receiver, JSON API and pages. It accepts only local host names by default."""

import json
import os
import re
from collections.abc import Callable, Collection
from dataclasses import asdict
from urllib.parse import urlsplit

import duckdb
from flask import Flask, Response, abort, jsonify, request
from werkzeug.exceptions import BadRequest, HTTPException, NotFound, ServiceUnavailable
from werkzeug.sansio.utils import host_is_trusted

from otlp_viewer import terminal
from otlp_viewer.query.types import Invalid
from otlp_viewer.receive import body
from otlp_viewer.receive.routes import receiver
from otlp_viewer.store import Store
from otlp_viewer.store.database import reason
from otlp_viewer.web import api, pages

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors {}"
)


PURPOSE = (
    "This port accepts OTLP over HTTP (OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf) at /v1/traces and /v1/logs."
    " Open it in a browser to see traces and logs."
)


def create_app(store: Store | None = None, received: Callable[[Collection[str]], object] | None = None) -> Flask:
    """Create the app. It calls `received` with the trace IDs of each request's spans.

    VIEWER_ALLOWED_HOSTS lists additional host names to accept, separated by commas. A leading dot includes all
    subdomains.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = body.MAX_BYTES
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.policies["json.dumps_kwargs"] = {"sort_keys": False}
    app.json.sort_keys = False  # type: ignore[attr-defined]
    store = store or Store()
    more_hosts = os.environ.get("VIEWER_ALLOWED_HOSTS", "").lower().split(",")
    allowed = ["localhost", "127.0.0.1", "viewer", *filter(None, map(str.strip, more_hosts))]
    # Additional hosts mean a forwarded port. Browser-based editors preview it in a frame.
    framed_by = "https: vscode-webview:" if any(more_hosts) else "'none'"

    @app.before_request
    def check_host_and_origin() -> None:
        """Prevent other sites from reading traces by DNS rebinding or cross-origin requests."""
        if request.method == "PRI" or request.mimetype.startswith("application/grpc"):
            abort(400, f"OTLP over gRPC is not supported. {PURPOSE}")
        if not request.headers.get("Host"):
            abort(400, f"The request has no Host header. {PURPOSE}")
        host = request.host.lower()
        # werkzeug cuts trusted names at the first colon, so they cannot be IPv6 addresses.
        if not (re.fullmatch(r"\[::1\](:\d+)?", host) or host_is_trusted(host, allowed)):
            abort(
                403,
                f"The viewer does not accept the host {host!r}. If it is yours, set VIEWER_ALLOWED_HOSTS to it and"
                " restart the viewer.",
            )
        origin = request.headers.get("Origin")
        if request.method not in ("GET", "HEAD") and origin and urlsplit(origin).netloc.lower() != host:
            abort(403, f"The viewer does not accept requests from pages of {origin[:100]!r}.")

    @app.errorhandler(HTTPException)
    def error_response(error: HTTPException) -> Response:
        if request.path.startswith("/v1/"):
            return body.failure(request, error)
        best_type = request.accept_mimetypes.best_match(["application/json", "text/html"])
        if best_type == "text/html" and not request.path.startswith("/api/"):
            return pages.error_page(error)
        response = jsonify(error=error.description)
        response.status_code = error.code or 500
        return response

    @app.errorhandler(duckdb.Error)
    def database_failed(error: duckdb.Error) -> Response:
        return error_response(ServiceUnavailable(f"The database has failed. Try again. {reason(error)}"))

    @app.errorhandler(Invalid)
    def invalid_query(error: Invalid) -> Response:
        return error_response(BadRequest(str(error)))

    @app.errorhandler(MemoryError)
    def out_of_memory(error: MemoryError) -> Response:
        return error_response(
            ServiceUnavailable("The response needs more memory than is available. Try again, or request less.")
        )

    @app.after_request
    def add_security_headers(response: Response) -> Response:
        """Restrict pages to scripts and files of the viewer, regardless of what a span contains."""
        response.headers["Content-Security-Policy"] = POLICY.format(framed_by)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        return response

    @app.get("/api/traces")
    def traces() -> Response:
        limit = request.args.get("limit", "100")
        if not (re.fullmatch("[0-9]{1,4}", limit) and 1 <= int(limit) <= 1000):
            abort(400, "limit must be an integer from 1 to 1000")
        return jsonify([api.summary_json(trace) for trace in store.traces(int(limit))])

    @app.get("/api/traces/<trace_id>")
    def trace(trace_id: str) -> Response:
        if not re.fullmatch("[0-9a-fA-F]{32}", trace_id):
            abort(400, "a trace ID has 32 hexadecimal digits")
        trace_id = trace_id.lower()
        if request.accept_mimetypes.best_match(["application/json", "text/plain"]) == "text/plain":
            if tree := store.trees([trace_id]).get(trace_id):
                return Response(terminal.render(tree), mimetype="text/plain")
        elif summary_and_spans := store.read_trace(trace_id):
            return Response(api.stream(*summary_and_spans, store.trace_logs(trace_id)), mimetype="application/json")
        raise NotFound("no trace with this ID is in memory")

    @app.get("/api/columns")
    def columns() -> Response:
        return jsonify([{"key_name": name, "type": type_} for name, type_ in store.columns(signal()).items()])

    @app.post("/api/query")
    def query() -> Response:
        if request.mimetype != "application/json":
            abort(415, "send the query as application/json")
        try:
            specification = json.loads(request.get_data())
        except (ValueError, RecursionError) as error:
            abort(400, f"the body must be JSON: {error}")
        return jsonify(api.answer_json(store.query(store.parse(specification, signal=signal()))))

    def signal() -> str:
        """Return the signal of the request: spans, or logs with ?signal=logs."""
        name = request.args.get("signal", "spans")
        if name not in ("spans", "logs"):
            abort(400, "signal must be spans or logs")
        return name

    @app.get("/api/health")
    def health() -> Response:
        return jsonify(status="ok", **asdict(store.health()))

    app.register_blueprint(receiver(store, received))
    app.register_blueprint(pages.pages(store))
    return app
