"""People and their profiles, in place of a database."""

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
    """Return the profiles of `handles` by handle, without handles that have none."""
    with tracer.start_as_current_span("find-profiles-mock-data") as span:
        unique = set(handles)
        profiles = {handle: profile for handle, profile in PEOPLE.items() if handle in unique}
        span.set_attribute("app.handles_length", len(unique))
        span.set_attribute("app.result_length", len(profiles))
        return profiles
