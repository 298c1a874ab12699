"""The list of traces: filters, order and pages."""

import time
from dataclasses import replace

from flask import Blueprint, render_template, request
from werkzeug.wrappers import Response

from otlp_viewer.model import STATUSES, TraceFilter
from otlp_viewer.query.types import Invalid
from otlp_viewer.web import format
from otlp_viewer.web.pages import common
from otlp_viewer.web.pages.common import RANGES, Json, Site, integer, nanoseconds, parameter, respond_if_changed

PAGE_SIZE = 50
SORTS = {
    "start": "Started",
    "name": "Trace",
    "status": "Status",
    "duration": "Duration",
    "spans": "Spans",
    "errors": "Errors",
}


def add(blueprint: Blueprint, site: Site) -> None:
    def page() -> Response:
        return respond_if_changed(site, lambda: _page(site), moving=common.is_moving())

    blueprint.add_url_rule("/traces", "traces", page, strict_slashes=False)


def _page(site: Site) -> str:
    store = site.store
    criteria, problems, also = _filter(site)
    order = parameter("sort") if parameter("sort") in SORTS else "start"
    # Names are ascending by default, everything else descending.
    ascending = parameter("order") == "ascending" or (order == "name" and parameter("order") != "descending")
    offset = integer(parameter("from"), 0, 10**9)
    total = store.count_traces(criteria)
    traces = store.traces(PAGE_SIZE, criteria, order=order, descending=not ascending, offset=offset)
    return render_template(
        "traces.html",
        page="traces",
        empty=not store.counts()[0],
        traces=traces,
        total=total,
        offset=offset,
        on_a_page=PAGE_SIZE,
        longest=max((max(trace.duration_ms, trace.extent_ms) for trace in traces), default=0),
        criteria=criteria,
        filtered=criteria != TraceFilter() or bool(problems),
        problems=problems,
        about=common.about_text(also) if criteria.query is not None else "",
        sorts=SORTS,
        order=order,
        ascending=ascending,
        statuses=STATUSES,
        ranges=RANGES,
        query=_query(criteria) if criteria.query is None and not criteria.text else None,
    )


def _query(criteria: TraceFilter) -> Json:
    """Return a query to continue from the list, for the spans of its service, of its route, or its errors.

    Only one filter: those of the list may match different spans of a trace, but those of a query match one span.
    """
    fields = (("service.name", criteria.service), ("http.route", criteria.route), ("error", criteria.status == "error"))
    query: Json = {
        "calculations": [{"op": "HEATMAP", "column": "duration_ms"}, {"op": "COUNT"}],
        "breakdowns": ["name"],
        "filters": [{"column": column, "op": "=", "value": value} for column, value in fields if value][:1],
    }
    if parameter("range") in map(str, RANGES):
        query["time_range"] = int(parameter("range"))
    elif criteria.start_ns and criteria.end_ns:
        query |= {"start_time": criteria.start_ns // 10**9, "end_time": -(-criteria.end_ns // 10**9)}
    return query


def _filter(site: Site) -> tuple[TraceFilter, list[str], list[Json]]:
    """Return the filter in the URL, problems with it, and its filters `also`."""
    problems: list[str] = []
    also: list[Json] = []

    def limit(name: str) -> float:
        text = parameter(name).strip()
        if not text:
            return 0
        value = format.milliseconds(text)
        if value is None:
            problems.append(f"“{format.visible(text, 60)}” is not a duration. Write 250, 250 ms or 1.5 s.")
        return value or 0

    criteria = TraceFilter(
        service=parameter("service"),
        route=parameter("route"),
        status=parameter("status") if parameter("status") in STATUSES else "",
        min_duration_ms=limit("min_duration"),
        max_duration_ms=limit("max_duration"),
        text=parameter("text"),
    )
    start, end = format.finite(parameter("start")), format.finite(parameter("end"))
    if parameter("range") in map(str, RANGES):
        start, end = time.time() - int(parameter("range")), None
    query_text = request.args.get("query", "")
    box = common.read_box(request.args.get("box", ""))
    if query_text or box or request.args.get("also"):
        # The time range then applies to spans, not to whole traces.
        try:
            if box and box.column not in site.store.columns():
                raise Invalid("No span has the column of this part of a heatmap.")
            query = common.timed(site.store, common.only_filters(common.read_query(query_text or "{}")))
            if start is not None or end is not None:
                query = replace(query, start=max(start or 0, 0), end=query.end if end is None else min(end, 9e9))
            filters, also = common.read_also(site.store)
            criteria = replace(criteria, query=query, box=box, extra_filters=filters)
        except Invalid as error:
            problems.append(str(error))
        return criteria, problems, also
    return replace(criteria, start_ns=nanoseconds(start), end_ns=nanoseconds(end)), problems, also
