"""The Flask application: configuration, telemetry, routes, errors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from flask import Flask
from flask_cors import CORS

from backend import activities, errors, examples, telemetry

ORIGIN = re.compile(r"\*|https?://(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d+)?")


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the application.

    `config` goes over what the environment says: PROFILES_URL (base address of the profiles service; left out,
    profiles are looked up in this process) and CORS_ORIGINS (comma-separated). A bad value is a ValueError.
    """
    app = Flask(__name__)
    app.config.from_mapping(
        PROFILES_URL=os.environ.get("PROFILES_URL") or None,
        CORS_ORIGINS=os.environ.get("CORS_ORIGINS", ""),
    )
    app.config.from_mapping(config or {})
    telemetry.instrument(app)
    errors.register(app)
    allow_origins(app, app.config["CORS_ORIGINS"])
    app.register_blueprint(activities.blueprint)
    if app.debug:
        app.register_blueprint(examples.blueprint)

    @app.get("/api/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "version": telemetry.project()["project"]["version"]}

    return app


def allow_origins(app: Flask, listed: str) -> None:
    """Let pages from the comma-separated origins call this backend and begin traces in the browser."""
    origins = [origin.strip() for origin in listed.split(",") if origin.strip()]
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise ValueError(f"CORS_ORIGINS: {origin!r} is no origin; one looks like https://app.example.com:3000")
    if origins:
        CORS(
            app,
            # As patterns, or flask-cors would take the brackets of an IPv6 address for one.
            origins="*" if "*" in origins else [re.compile(re.escape(each) + r"\Z", re.IGNORECASE) for each in origins],
            allow_headers=["content-type", "traceparent", "tracestate"],
            expose_headers=["traceresponse", "server-timing"],
        )
