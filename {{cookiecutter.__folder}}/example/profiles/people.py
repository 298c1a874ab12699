"""The people and their profiles, instead of a database."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry import trace

tracer = trace.get_tracer(__name__)

PEOPLE = {
    "andrew": {"name": "Andrew Brown", "title": "Captain"},
    "worf": {"name": "Worf", "title": "Strategic operations officer"},
    "garak": {"name": "Elim Garak", "title": "Tailor"},
}


def find(handles: Iterable[str]) -> dict[str, dict[str, str]]:
    """The profiles of `handles`, by handle. A handle without a profile is left out."""
    with tracer.start_as_current_span("find-profiles-mock-data") as span:
        wanted = set(handles)
        found = {handle: profile for handle, profile in PEOPLE.items() if handle in wanted}
        span.set_attribute("app.handles_length", len(wanted))
        span.set_attribute("app.result_length", len(found))
        return found
