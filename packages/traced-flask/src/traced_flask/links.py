"""Links to the current trace: in Honeycomb if there is a key, else in the viewer."""

from __future__ import annotations

from opentelemetry import trace

from traced_flask import settings
from traced_flask.routes import routes, service_name, viewer_endpoint, without_credentials


def trace_url() -> str | None:
    """Return the URL of the current trace's page, for development.

    None outside of development, without a recorded trace, or if there is no page. The team of the Honeycomb key is
    requested in the background; until it is known, this is the URL in the viewer.
    """
    span = trace.get_current_span()
    context = span.get_span_context()
    if settings.disabled() or not settings.development() or not context.trace_flags.sampled:
        return None
    resource = getattr(span, "resource", None)
    service = resource.attributes.get("service.name") if resource else None
    base = routes().honeycomb_traces(str(service or service_name()))
    if base is None and without_credentials(viewer_endpoint() or "") in routes().to("traces"):
        base = viewer_traces()
    return base and base + trace.format_trace_id(context.trace_id)


def viewer_traces() -> str:
    """Return the URL of the viewer's traces. In containers, it differs between browsers and this process."""
    return settings.own("VIEWER_TRACES") or f"{viewer_endpoint()}/traces/"
