"""Handlers to measure beside the home feed, the same for every subject."""

from __future__ import annotations

import logging
import time

from flask import Flask
from opentelemetry import trace

logger = logging.getLogger(__name__)
tracer = trace.get_tracer(__name__)


def add(app: Flask) -> None:
    @app.get("/bench/trivial")
    def trivial() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/bench/20ms")
    def twenty_milliseconds() -> dict[str, str]:
        time.sleep(0.02)
        return {"status": "ok"}

    @app.get("/bench/log")
    def log() -> dict[str, str]:
        logger.info("One line for each request")
        return {"status": "ok"}

    @app.get("/bench/spans/<int:spans>/<int:attributes>")
    def many(spans: int, attributes: int) -> dict[str, int]:
        """So many child spans, each with so many attributes."""
        for _ in range(spans):
            with tracer.start_as_current_span("child") as span:
                for number in range(attributes):
                    span.set_attribute(f"app.attribute_{number}", number)
        return {"spans": spans}
