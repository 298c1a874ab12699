"""The Flask application: the receiver, the JSON API and the pages, for local hosts alone."""

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
    "This port takes OTLP over HTTP (OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf) at /v1/traces and /v1/logs,"
    " and shows in a browser what it got."
)


def create_app(store: Store | None = None, received: Callable[[Collection[str]], object] | None = None) -> Flask:
    """Make the app; `received` is called with the trace ids of the spans of each request.

    VIEWER_ALLOWED_HOSTS (names separated by commas, a leading dot for all subdomains) adds to the
    Host headers that are answered.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = body.MAX_BYTES
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.policies["json.dumps_kwargs"] = {"sort_keys": False}
    app.json.sort_keys = False  # type: ignore[attr-defined]
    stored = store or Store()
    more_hosts = os.environ.get("VIEWER_ALLOWED_HOSTS", "").lower().split(",")
    allowed = ["localhost", "127.0.0.1", "viewer", *filter(None, map(str.strip, more_hosts))]
    # Who names hosts opens a forwarded port, which editors in a browser show in a preview of theirs.
    framed_by = "https: vscode-webview:" if any(more_hosts) else "'none'"

    @app.before_request
    def refuse_strangers() -> None:
        """Keep a page elsewhere from reading traces here, through a name it points at us or by asking from afar."""
        if request.method == "PRI" or request.mimetype.startswith("application/grpc"):
            abort(400, f"OTLP over gRPC is not spoken here. {PURPOSE}")
        if not request.headers.get("Host"):
            abort(400, f"A request names its host, and this one does not. {PURPOSE}")
        host = request.host.lower()
        # werkzeug cuts a trusted name at its first colon, so it can name no IPv6 address.
        if not (re.fullmatch(r"\[::1\](:\d+)?", host) or host_is_trusted(host, allowed)):
            abort(
                403,
                f"This viewer does not answer to the host {host!r}. If the address is "
                "yours, set VIEWER_ALLOWED_HOSTS to that host and start the viewer again.",
            )
        origin = request.headers.get("Origin")
        if request.method not in ("GET", "HEAD") and origin and urlsplit(origin).netloc.lower() != host:
            abort(403, f"A page of {origin[:100]!r} may not ask this viewer.")

    @app.errorhandler(HTTPException)
    def as_json(error: HTTPException) -> Response:
        if request.path.startswith("/v1/"):
            return body.failure(request, error)
        wanted = request.accept_mimetypes.best_match(["application/json", "text/html"])
        if wanted == "text/html" and not request.path.startswith("/api/"):
            return pages.error_page(error)
        response = jsonify(error=error.description)
        response.status_code = error.code or 500
        return response

    @app.errorhandler(duckdb.Error)
    def failed(error: duckdb.Error) -> Response:
        return as_json(ServiceUnavailable(f"The database has failed; ask again. {reason(error)}"))

    @app.errorhandler(Invalid)
    def refused(error: Invalid) -> Response:
        return as_json(BadRequest(str(error)))

    @app.errorhandler(MemoryError)
    def too_large(error: MemoryError) -> Response:
        return as_json(ServiceUnavailable("The answer needs more memory than there is; ask again, or ask for less."))

    @app.after_request
    def protect(response: Response) -> Response:
        """Let a page run and load nothing but our own files, whatever is in a span."""
        response.headers["Content-Security-Policy"] = POLICY.format(framed_by)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        return response

    @app.get("/api/traces")
    def traces() -> Response:
        limit = request.args.get("limit", "100")
        if not (re.fullmatch("[0-9]{1,4}", limit) and 1 <= int(limit) <= 1000):
            abort(400, "limit must be a whole number from 1 to 1000")
        return jsonify([api.summary_json(trace) for trace in stored.traces(int(limit))])

    @app.get("/api/traces/<trace_id>")
    def trace(trace_id: str) -> Response:
        if not re.fullmatch("[0-9a-fA-F]{32}", trace_id):
            abort(400, "a trace id is 32 hexadecimal digits")
        trace_id = trace_id.lower()
        if request.accept_mimetypes.best_match(["application/json", "text/plain"]) == "text/plain":
            if tree := stored.trees([trace_id]).get(trace_id):
                return Response(terminal.render(tree), mimetype="text/plain")
        elif found := stored.read_trace(trace_id):
            return Response(api.stream(*found, stored.trace_logs(trace_id)), mimetype="application/json")
        raise NotFound("there is no trace with this id in memory")

    @app.get("/api/columns")
    def columns() -> Response:
        return jsonify([{"key_name": name, "type": type_} for name, type_ in stored.columns(signal()).items()])

    @app.post("/api/query")
    def ask() -> Response:
        if request.mimetype != "application/json":
            abort(415, "send the query as application/json")
        try:
            given = json.loads(request.get_data())
        except (ValueError, RecursionError) as error:
            abort(400, f"the body must be JSON: {error}")
        return jsonify(api.answer_json(stored.query(stored.parse(given, signal=signal()))))

    def signal() -> str:
        """Return what the request is about: spans, or with ?signal=logs log records."""
        given = request.args.get("signal", "spans")
        if given not in ("spans", "logs"):
            abort(400, "signal must be spans or logs")
        return given

    @app.get("/api/health")
    def health() -> Response:
        return jsonify(status="ok", **asdict(stored.health()))

    app.register_blueprint(receiver(stored, received))
    app.register_blueprint(pages.pages(stored))
    return app
