"""The application with a route of the tests' own, so that those of telemetry need none of the example's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask
from opentelemetry import trace

from backend import app as backend

WORK = "/work"
tracer = trace.get_tracer(__name__)


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """The application, where `GET /work` does a piece of work in two spans, one in the other."""
    app = backend.create_app(config)

    @app.get(WORK)
    def work() -> list[str]:
        with tracer.start_as_current_span("do-work"), tracer.start_as_current_span("do-a-part-of-it"):
            return []

    return app
