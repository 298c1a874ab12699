"""A trace: its waterfall, the details of one span, and its logs."""

import json
import re
import time
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
from otlp_viewer.web.pages.common import Json, Site, parameter, unless_same, whole
from otlp_viewer.web.waterfall import Waterfall

ROWS_ON_A_PAGE = 100
"""Rows in the page itself, for readers without its script; the script draws all rows, as they are needed."""
MOST_LOGS = 100
MOST_SPAN_LOGS = 50
MOST_LINKS = 50
MOST_MARKS = 100_000
FRESH_SECONDS = 60
"""A trace that started in the last minute may still get spans, however complete it looks."""
HTTP = ("http.", "url.", "server.", "client.", "network.", "user_agent.")


def add(blueprint: Blueprint, site: Site) -> None:
    @blueprint.get("/traces/<trace_id>", strict_slashes=False)
    def trace(trace_id: str) -> AnyResponse:
        return unless_same(site, lambda: _page(site, trace_id.lower()))

    @blueprint.get("/traces/<trace_id>/spans/<key>")
    def span(trace_id: str, key: str) -> str:
        """The details of one span, for the page's script."""
        chosen = _span(site, trace_id.lower(), key)
        if chosen is None:
            abort(404, "This span is not in memory.")
        return render_template("span.html", **_details(site, chosen, key))

    @blueprint.get("/traces/<trace_id>/find")
    def search(trace_id: str) -> Response:
        """The rows in the store of spans that hold a text, for the page's script."""
        return jsonify(site.store.find(trace_id.lower(), parameter("text")))


def _laid_out(site: Site, trace_id: str) -> tuple[Outline, Waterfall, list[str]]:
    found = site.store.outline(trace_id) if re.fullmatch("[0-9a-f]{32}", trace_id) else None
    if found is None:
        abort(404, "No trace with this ID is in memory. It has not arrived yet, or newer traces have taken its place.")
    chart = waterfall.lay_out(found.spans, aligned=request.args.get("clocks") != "sent")
    return found, chart, waterfall.keys(chart.rows)


def _log_marks(site: Site, trace_id: str) -> dict[str, tuple[int, int]]:
    """Return the number of logs, and the highest severity number, of the trace's spans that have any."""
    key = ("logs", trace_id, site.store.version)
    specification = {
        "calculations": [{"op": "COUNT"}, {"op": "MAX", "column": "severity_number"}],
        "breakdowns": ["trace.span_id"],
        "filters": [{"column": "trace.trace_id", "op": "=", "value": trace_id}],
    }
    try:
        query = common.timed(site.store, specification, signal="logs")
        groups = site.store.query(replace(query, limit=MOST_MARKS, granularity=query.end - query.start)).groups
    except Invalid:
        return {}
    marks = {str(one.key[0]): (int(one.values[0] or 0), int(one.values[1] or 0)) for one in groups}
    if len(marks) < MOST_MARKS:
        site.remember(key, marks)
    return marks


def _span_logs(site: Site, span: Span) -> list[Log]:
    """Return a span's newest logs. Whether it has any is known while nothing has come since its trace was shown."""
    marks = site.recent.get(("logs", span.trace_id, site.store.version))
    if marks is not None and span.span_id not in marks:
        return []
    return site.store.logs(MOST_SPAN_LOGS + 1, LogFilter(trace_id=span.trace_id, span_id=span.span_id))


def _links_to(site: Site, trace_id: str) -> list[tuple[SpanReference, str]]:
    """Return the links to a trace, which every span's details need: the store is asked once until something comes."""
    key = ("links", trace_id, site.store.version)
    found: list[tuple[SpanReference, str]] | None = site.recent.get(key)
    if found is None:
        found = site.store.links_to(trace_id)
        site.remember(key, found)
    return found


def _span(site: Site, trace_id: str, key: str) -> Span | None:
    found = re.fullmatch(r"([0-9a-f]{16})(?:\.([0-9]{1,18}))?", key)
    return site.store.span(trace_id, found[1], int(found[2] or 0)) if found else None


def _page(site: Site, trace_id: str) -> str:
    found, chart, keys = _laid_out(site, trace_id)
    summary = found.summary
    key = parameter("span")
    chosen = _span(site, trace_id, key)
    if chosen is None:
        key, chosen = keys[0], _span(site, trace_id, keys[0])
    first = whole(parameter("from"), 0, len(keys) - 1)
    numbers = range(first, min(first + ROWS_ON_A_PAGE, len(keys)))
    logs = site.store.logs(MOST_LOGS + 1, LogFilter(trace_id=trace_id))
    fresh = time.time() - summary.start_ns / 1e9 < FRESH_SECONDS
    return render_template(
        "trace.html",
        page="traces",
        trace=summary,
        chart=chart,
        rows=[(keys[at], chart.rows[at], critical) for at, critical in waterfall.critical(chart.rows, numbers).items()],
        first=first,
        rows_on_a_page=ROWS_ON_A_PAGE,
        errors=sum(row.span.error for row in chart.rows),
        services=_by_share(chart),
        outline=_in_page(waterfall.outline(chart, keys, site.colors.of(summary.services), _log_marks(site, trace_id))),
        logs=logs[:MOST_LOGS][::-1],
        more_logs=len(logs) > MOST_LOGS,
        live=not summary.complete or fresh,
        honeycomb=_honeycomb(site, summary.services, trace_id),
        linked_from=[one for one, _ in _links_to(site, trace_id)][:MOST_LINKS],
        about=waterfall.about,
        chosen_key=key,
        clocks=request.args.get("clocks", ""),
        **(_details(site, chosen, key) if chosen else {"span": None}),
    )


def _in_page(data: Mapping[str, object]) -> Markup:
    """Return data as short JSON in which nothing can end the element that holds it."""
    text = json.dumps(data, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704


def _by_share(chart: Waterfall) -> list[Json]:
    """Return the trace's services: those that it waits for longest first, then those with most spans."""
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
    """Return where Honeycomb shows the trace: names of services, and the address for them."""
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
        "links": [(one, store.span(one.trace_id, one.span_id)) for one in span.links[:MOST_LINKS]],
        "backlinks": [one for one, to in _links_to(site, span.trace_id) if to == span.span_id][:MOST_LINKS],
        "span_logs": logs[:MOST_SPAN_LOGS][::-1],
        "more_span_logs": len(logs) > MOST_SPAN_LOGS,
        "span_json": json.dumps(json.loads(wide.span_json(span)), indent=2),
        "span_in_honeycomb": page + span.trace_id if page else "",
    }


def _groups(span: Span) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the span's fields in groups: its own, HTTP, scope, resource; the program's own first."""
    own = {name: value for name, value in span.attributes.items() if not name.startswith(HTTP)}
    names = sorted(own, key=lambda name: (not name.startswith("app."), name))
    http = {name: span.attributes[name] for name in sorted(span.attributes) if name.startswith(HTTP)}
    scope = {"name": span.scope.name, "version": span.scope.version, **span.scope.attributes}
    groups = [
        ("Attributes", {name: own[name] for name in names}),
        ("HTTP", http),
        ("Resource", dict(sorted(span.resource.items()))),
        ("Scope", {name: value for name, value in scope.items() if value not in ("", None)}),
    ]
    return [(title, fields) for title, fields in groups if fields]
