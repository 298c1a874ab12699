"""The Flask application: configuration, telemetry, routes, errors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response
from flask_cors import CORS
from werkzeug.utils import import_string

from backend import errors, telemetry

BLUEPRINTS: tuple[str, ...] = (
    # module:variable
    "{{'backend.hello' if cookiecutter.example == 'none' else 'example.activities'}}:blueprint",
)
ORIGIN = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d+)?")


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Create the application.

    `config` overrides the environment:
    CORS_ORIGINS: comma-separated origins whose pages may call the backend, or *. Raises ValueError if invalid.
    TRUST_TRACEPARENT: `true` to accept trace IDs and sampling decisions from callers.
    """
    app = Flask(__name__)
    app.config.from_mapping(CORS_ORIGINS=os.environ.get("CORS_ORIGINS", ""))
    app.config.from_mapping(config or {})
    telemetry.instrument(app)
    errors.register(app)
    allow_browsers(app, app.config["CORS_ORIGINS"])
    for name in BLUEPRINTS:
        app.register_blueprint(import_string(name))

    @app.get("/api/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "version": telemetry.VERSION}

    return app


def allow_browsers(app: Flask, allowed: str) -> None:
    """Let pages from `allowed` origins call this backend and start traces in the browser."""
    origins = [origin.strip() for origin in allowed.split(",") if origin.strip()]
    if not origins:
        return
    for origin in origins:
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise ValueError(f"CORS_ORIGINS: {origin!r} is not an origin such as https://app.example.com:3000")

    @app.after_request  # runs after flask-cors, which registers later
    def expose_timing(response: Response) -> Response:
        if origin := response.headers.get("Access-Control-Allow-Origin"):
            response.headers["Timing-Allow-Origin"] = origin
        return response

    CORS(
        app,
        # Compiled, because flask-cors would treat the brackets of an IPv6 address as a pattern.
        origins="*" if "*" in origins else [re.compile(re.escape(origin) + r"\Z", re.I) for origin in origins],
        allow_headers=["content-type", "traceparent", "tracestate"],
        expose_headers=["traceresponse", "server-timing"],
    )
