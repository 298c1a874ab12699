"""A first route. Add your own next to it, and list their blueprints in app.py."""

from __future__ import annotations

from flask import Blueprint
from opentelemetry import trace

blueprint = Blueprint("hello", __name__, url_prefix="/api/hello")
tracer = trace.get_tracer(__name__)


@blueprint.get("")
def hello() -> dict[str, str]:
    with tracer.start_as_current_span("say-hello") as span:
        message = "Hello, world!"
        span.set_attribute("app.message_length", len(message))
        return {"message": message}
