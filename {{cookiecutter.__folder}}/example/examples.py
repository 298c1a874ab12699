"""Two routes with interesting traces: one slow, one failing. They exist only in debug mode."""

from __future__ import annotations

import random
import time

from flask import Blueprint
from opentelemetry import trace

blueprint = Blueprint("examples", __name__, url_prefix="/api/examples")
tracer = trace.get_tracer(__name__)


@blueprint.get("/slow")
def slow() -> dict[str, float]:
    """Spend 0.2 to 0.8 s in one span."""
    with tracer.start_as_current_span("read-every-row") as span:
        rows = random.randint(2_000, 8_000)
        span.set_attribute("app.rows", rows)
        time.sleep(rows / 10_000)
    return {"rows": rows}


@blueprint.get("/failing")
def failing() -> dict[str, str]:
    """Raise an exception that nothing handles."""
    with tracer.start_as_current_span("divide-by-likes") as span:
        likes = 0
        span.set_attribute("app.likes", likes)
        return {"share": str(1 / likes)}
