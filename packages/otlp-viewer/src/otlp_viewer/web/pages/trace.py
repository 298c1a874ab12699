"""A trace: its waterfall, the details of one span, and its logs."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, abort, jsonify, render_template, request
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from otlp_viewer.messages import Log, Span
from otlp_viewer.model import LogFilter, Outline, SpanReference
from otlp_viewer.query.types import Invalid
from otlp_viewer.web import waterfall, wide
from otlp_viewer.web.pages import common
from otlp_viewer.web.pages.common import Json, Site, integer, parameter, respond_if_changed
from otlp_viewer.web.waterfall import Waterfall

PAGE_SIZE = 100
"""Rows in the HTML, for use without JavaScript. The script renders all rows on demand."""
MAX_LOGS = 100
MAX_SPAN_LOGS = 50
MAX_LINKS = 50
MAX_MARKS = 100_000
HTTP = ("http.", "url.", "server.", "client.", "network.", "user_agent.")


def add(blueprint: Blueprint, site: Site) -> None:
    @blueprint.get("/traces/<trace_id>", strict_slashes=False)
    def trace(trace_id: str) -> AnyResponse:
        return respond_if_changed(site, lambda: _page(site, trace_id.lower()))

    @blueprint.get("/traces/<trace_id>/spans/<key>")
    def span(trace_id: str, key: str) -> AnyResponse:
        """Return the details of one span, for the page's script, with the store's version as the ETag."""
        return respond_if_changed(
            site, lambda: render_template("span.html", **_details(site, _span_or_404(site, trace_id, key), key))
        )

    @blueprint.get("/traces/<trace_id>/spans/<key>/json")
    def span_json(trace_id: str, key: str) -> Response:
        """Return the JSON of one span, for copying if it is too long for the page."""
        return Response(_indented_json(_span_or_404(site, trace_id, key)), mimetype="application/json")

    @blueprint.get("/traces/<trace_id>/find")
    def search(trace_id: str) -> Response:
        """Return the store's rows of spans that contain a text, for the page's script."""
        return jsonify(site.store.find(trace_id.lower(), parameter("text")))


def _lay_out(site: Site, trace_id: str) -> tuple[Outline, Waterfall, list[str]]:
    trace = site.store.outline(trace_id) if re.fullmatch("[0-9a-f]{32}", trace_id) else None
    if trace is None:
        abort(
            404,
            "No trace with this ID is in memory. It may not have arrived yet, or was dropped to make room for newer"
            " traces.",
        )
    chart = waterfall.lay_out(trace.spans, aligned=request.args.get("clocks") != "sent")
    return trace, chart, waterfall.keys(chart.rows)


def _log_marks(site: Site, trace_id: str) -> dict[str, tuple[int, int]]:
    """Return the number of logs and the highest severity number of each span that has logs."""
    key = ("logs", trace_id, site.store.version)
    specification = {
        "calculations": [{"op": "COUNT"}, {"op": "MAX", "column": "severity_number"}],
        "breakdowns": ["trace.span_id"],
        "filters": [{"column": "trace.trace_id", "op": "=", "value": trace_id}],
    }
    try:
        query = common.timed(site.store, specification, signal="logs")
        groups = site.store.query(replace(query, limit=MAX_MARKS, granularity=query.end - query.start)).groups
    except Invalid:
        return {}
    marks = {str(group.key[0]): (int(group.values[0] or 0), int(group.values[1] or 0)) for group in groups}
    if len(marks) < MAX_MARKS:
        site.remember(key, marks)
    return marks


def _span_logs(site: Site, span: Span) -> list[Log]:
    """Return a span's newest logs. Skips the query if the trace's page has cached that there are none."""
    marks = site.recent.get(("logs", span.trace_id, site.store.version))
    if marks is not None and span.span_id not in marks:
        return []
    return site.store.logs(MAX_SPAN_LOGS + 1, LogFilter(trace_id=span.trace_id, span_id=span.span_id))


def _links_to(site: Site, trace_id: str) -> list[tuple[SpanReference, str]]:
    """Return the links to a trace, cached until new data arrives, because all span details need them."""
    key = ("links", trace_id, site.store.version)
    links: list[tuple[SpanReference, str]] | None = site.recent.get(key)
    if links is None:
        links = site.store.links_to(trace_id)
        site.remember(key, links)
    return links


def _span(site: Site, trace_id: str, key: str) -> Span | None:
    match = re.fullmatch(r"([0-9a-f]{16})(?:\.([0-9]{1,18}))?", key)
    return site.store.span(trace_id, match[1], int(match[2] or 0)) if match else None


def _span_or_404(site: Site, trace_id: str, key: str) -> Span:
    span = _span(site, trace_id.lower(), key)
    if span is None:
        abort(404, "This span is not in memory.")
    return span


def _indented_json(span: Span) -> str:
    return json.dumps(json.loads(wide.span_json(span)), indent=2)


def _page(site: Site, trace_id: str) -> str:
    outline, chart, keys = _lay_out(site, trace_id)
    summary = outline.summary
    key = parameter("span")
    chosen = _span(site, trace_id, key)
    if chosen is None:
        key, chosen = keys[0], _span(site, trace_id, keys[0])
    first = integer(parameter("from"), 0, len(keys) - 1)
    numbers = range(first, min(first + PAGE_SIZE, len(keys)))
    logs = site.store.logs(MAX_LOGS + 1, LogFilter(trace_id=trace_id))
    return render_template(
        "trace.html",
        page="traces",
        trace=summary,
        chart=chart,
        rows=[
            (keys[number], chart.rows[number], critical)
            for number, critical in waterfall.critical(chart.rows, numbers).items()
        ],
        first=first,
        rows_on_a_page=PAGE_SIZE,
        errors=sum(row.span.error for row in chart.rows),
        services=_by_share(chart),
        outline=_as_script(
            waterfall.outline(chart, keys, site.colors.of(summary.services), _log_marks(site, trace_id))
        ),
        logs=logs[:MAX_LOGS][::-1],
        more_logs=len(logs) > MAX_LOGS,
        honeycomb=_honeycomb(site, summary.services, trace_id),
        linked_from=[reference for reference, _ in _links_to(site, trace_id)][:MAX_LINKS],
        detail=waterfall.detail,
        chosen_key=key,
        clocks=request.args.get("clocks", ""),
        **(_details(site, chosen, key) if chosen else {"span": None, "key": ""}),
    )


def _as_script(data: Mapping[str, object]) -> Markup:
    """Return data as short JSON that cannot close its script element."""
    text = json.dumps(data, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704


def _by_share(chart: Waterfall) -> list[Json]:
    """Return the services of the trace, sorted by critical-path time, then by number of spans."""
    counts: dict[str, int] = {}
    for row in chart.rows:
        counts[row.span.service] = counts.get(row.span.service, 0) + 1
    numbers = {name: number for number, name in enumerate(counts)}  # as `waterfall.outline` has them
    total = sum(chart.critical_ms.values())
    names = sorted(counts, key=lambda name: (-chart.critical_ms.get(name, 0), -counts[name], name))
    return [
        {
            "name": name,
            "number": numbers[name],
            "spans": counts[name],
            "waited_ms": chart.critical_ms.get(name, 0),
            "share": chart.critical_ms.get(name, 0) / total if total else 0,
        }
        for name in names
    ]


def _honeycomb(site: Site, services: Any, trace_id: str) -> list[tuple[str, str]]:
    """Return the trace's Honeycomb URLs, with the names of their services."""
    pages: dict[str, list[str]] = {}
    for service in services:
        if page := site.store.honeycomb_page(service):
            pages.setdefault(page, []).append(service)
    return [(", ".join(names), page + trace_id) for page, names in pages.items()]


def _details(site: Site, span: Span, key: str) -> Json:
    store = site.store
    logs = _span_logs(site, span)
    raised = [one for one in span.events if one.name == "exception"]
    page = store.honeycomb_page(span.service)
    return {
        "span": span,
        "key": key,
        "groups": _groups(span),
        "raised": raised,
        "events": [one for one in span.events if one.name != "exception"],
        "links": [(one, store.span(one.trace_id, one.span_id)) for one in span.links[:MAX_LINKS]],
        "backlinks": [one for one, to in _links_to(site, span.trace_id) if to == span.span_id][:MAX_LINKS],
        "span_logs": logs[:MAX_SPAN_LOGS][::-1],
        "more_span_logs": len(logs) > MAX_SPAN_LOGS,
        "span_json": _indented_json(span),
        "span_in_honeycomb": page + span.trace_id if page else "",
    }


def _groups(span: Span) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the span's fields in groups: attributes (those of the application first), HTTP, resource, scope."""
    attributes = {name: value for name, value in span.attributes.items() if not name.startswith(HTTP)}
    names = sorted(attributes, key=lambda name: (not name.startswith("app."), name))
    http = {name: span.attributes[name] for name in sorted(span.attributes) if name.startswith(HTTP)}
    scope = {"name": span.scope.name, "version": span.scope.version, **span.scope.attributes}
    groups = [
        ("Attributes", {name: attributes[name] for name in names}),
        ("HTTP", http),
        ("Resource", dict(sorted(span.resource.items()))),
        ("Scope", {name: value for name, value in scope.items() if value not in ("", None)}),
    ]
    return [(title, fields) for title, fields in groups if fields]
