"""The list of logs: filters, attributes, and a chart by severity."""

import time
from collections import Counter
from dataclasses import replace

from flask import Blueprint, render_template, request
from werkzeug.wrappers import Response

from otlp_viewer.model import LogFilter
from otlp_viewer.query.types import Invalid
from otlp_viewer.web import axis, charts, format
from otlp_viewer.web.format import SEVERITIES
from otlp_viewer.web.pages import common
from otlp_viewer.web.pages.common import RANGES, Json, Site, integer, nanoseconds, parameter, respond_if_changed

PAGE_SIZE = 100
ROWS = ("not set", *SEVERITIES.values())
ROW_HEIGHT = 16


def add(blueprint: Blueprint, site: Site) -> None:
    def page() -> Response:
        return respond_if_changed(site, lambda: _page(site), moving=common.is_moving())

    blueprint.add_url_rule("/logs", "logs", page, strict_slashes=False)


def _page(site: Site) -> str:
    store = site.store
    severity = integer(parameter("severity"), 0, 24)
    start, end = format.finite(parameter("start")), format.finite(parameter("end"))
    if parameter("range") in map(str, RANGES):
        start, end = time.time() - int(parameter("range")), None
    criteria = LogFilter(
        service=parameter("service"),
        severity=severity,
        trace_id=parameter("trace_id").lower(),
        span_id=parameter("span_id").lower(),
        text=parameter("text"),
        attribute=_pair(parameter("attribute")),
        event_name=parameter("event_name"),
        start_ns=nanoseconds(start),
        end_ns=nanoseconds(end),
    )
    problem = "Write an attribute as name=value." if parameter("attribute").strip() and not criteria.attribute else ""
    also: list[Json] = []
    if request.args.get("query") or request.args.get("also"):
        try:
            filters, also = common.read_also(store, "logs")
            query = common.only_filters(common.read_query(request.args.get("query") or "{}"))
            criteria = replace(criteria, query=common.timed(store, query, signal="logs"), extra_filters=filters)
        except Invalid as error:
            problem = str(error)
    offset = integer(parameter("from"), 0, 10**9)
    logs = store.logs(PAGE_SIZE + 1, criteria, offset=offset)
    chart = _chart(site, criteria) if logs or criteria != LogFilter() else None
    return render_template(
        "logs.html",
        page="logs",
        empty=not store.counts()[1],
        logs=logs[:PAGE_SIZE],
        more=len(logs) > PAGE_SIZE,
        offset=offset,
        on_a_page=PAGE_SIZE,
        criteria=criteria,
        filtered=criteria != LogFilter() or bool(problem),
        problem=problem,
        severities=SEVERITIES,
        ranges=RANGES,
        chart=chart,
        about=common.about_text(also) if criteria.query else "",
        query=_query(criteria) if not (criteria.text or criteria.query) else None,
    )


def _pair(text: str) -> tuple[str, str] | None:
    """Split "name=value"; None if it has another format."""
    name, sign, value = text.partition("=")
    return (name.strip(), value.strip()) if sign and name.strip() else None


def _query(criteria: LogFilter) -> Json:
    """Return the list as a query, without the text filter, which queries do not have."""
    filters: list[Json] = []
    for column, value in (
        ("service.name", criteria.service),
        ("trace.trace_id", criteria.trace_id),
        ("trace.span_id", criteria.span_id),
        ("event.name", criteria.event_name),
    ):
        if value:
            filters.append({"column": column, "op": "=", "value": value})
    if criteria.severity:
        filters.append({"column": "severity_number", "op": ">=", "value": criteria.severity})
    if criteria.attribute:
        filters.append({"column": criteria.attribute[0], "op": "=", "value": criteria.attribute[1]})
    return {"calculations": [{"op": "COUNT"}], "breakdowns": ["severity_text"]} | (
        {"filters": filters} if filters else {}
    )


def _chart(site: Site, criteria: LogFilter) -> Json | None:
    """Return the chart of logs by severity over time; None if it is empty."""
    seconds = sorted({step for step, _, _ in site.store.logs_over_time(criteria)})
    if not seconds:
        return None
    start = criteria.start_ns / 1e9 if criteria.start_ns else seconds[0]
    end = criteria.end_ns / 1e9 if criteria.end_ns else seconds[-1] + 1
    time_axis = axis.make(seconds, start, end)
    counts: Counter[tuple[int, int]] = Counter()
    lows = [0, *SEVERITIES]
    for step, number, count in site.store.logs_over_time(criteria, round(time_axis.step * 1e9)):
        column = time_axis.column(step * time_axis.step)
        if column is not None:
            counts[column, sum((number or 0) >= low for low in lows) - 1] += count
    used = max((row for _, row in counts), default=0) + 1
    lowest = min((row for _, row in counts), default=0)
    shifted = {(column, row - lowest): number for (column, row), number in counts.items()}
    grid = charts.named_rows(shifted, used - lowest, (used - lowest) * ROW_HEIGHT, time_axis)
    if grid is None:
        return None
    return {"axis": time_axis, "map": grid, "names": ROWS[lowest:used], "lows": lows[lowest:used]}
