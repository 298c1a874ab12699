"""The Flask application: configuration, telemetry, routes, errors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response
from flask_cors import CORS

from backend import activities, errors, examples, telemetry
from backend.callers import Callers

ANY = re.compile("")
ORIGIN = re.compile(r"\*|https?://(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d+)?")


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the application.

    `config` goes over what the environment says; a bad value is a ValueError:
    PROFILES_URL, the base address of the profiles service; left out, profiles are looked up in this process;
    CORS_ORIGINS, whose pages may call, comma-separated;
    TRUST_TRACEPARENT, whether callers decide on traces, true or false.
    """
    app = Flask(__name__)
    app.config.from_mapping(
        PROFILES_URL=os.environ.get("PROFILES_URL") or None,
        CORS_ORIGINS=os.environ.get("CORS_ORIGINS", ""),
        TRUST_TRACEPARENT=os.environ.get("TRUST_TRACEPARENT", ""),
    )
    app.config.from_mapping(config or {})
    origins = origins_in(app.config["CORS_ORIGINS"])
    telemetry.instrument(app, callers=Callers(is_true(app.config, "TRUST_TRACEPARENT"), origins))
    errors.register(app)
    allow(app, origins)
    app.register_blueprint(activities.blueprint)
    if app.debug:
        app.register_blueprint(examples.blueprint)

    @app.get("/api/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "version": telemetry.project()["project"]["version"]}

    return app


def is_true(config: Mapping[str, Any], name: str) -> bool:
    """The setting `name`: true or false, as text or a bool; empty is false."""
    text = str(config[name]).strip().lower()
    if text not in {"true", "false", ""}:
        raise ValueError(f"{name}: {config[name]!r} is neither true nor false")
    return text == "true"


def origins_in(listed: str) -> list[re.Pattern[str]]:
    """What the comma-separated origins match; `*` matches all."""
    origins = [origin.strip() for origin in listed.split(",") if origin.strip()]
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise ValueError(f"CORS_ORIGINS: {origin!r} is no origin; one looks like https://app.example.com:3000")
    # As patterns, or flask-cors would take the brackets of an IPv6 address for one.
    return [ANY if each == "*" else re.compile(re.escape(each) + r"\Z", re.IGNORECASE) for each in origins]


def allow(app: Flask, origins: list[re.Pattern[str]]) -> None:
    """Let pages from `origins` call this backend and begin traces in the browser."""
    if origins:
        app.after_request(show_timing)  # which runs after what is registered later
        CORS(
            app,
            origins="*" if ANY in origins else origins,
            allow_headers=["content-type", "traceparent", "tracestate"],
            expose_headers=["traceresponse", "server-timing"],
        )


def show_timing(response: Response) -> Response:
    """Let a page that may read an answer read its Server-Timing as the browser's performance entries have it."""
    if origin := response.headers.get("Access-Control-Allow-Origin"):
        response.headers["Timing-Allow-Origin"] = origin
    return response
