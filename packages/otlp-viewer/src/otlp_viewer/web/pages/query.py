"""The query builder and its results, which link to their traces."""

from dataclasses import replace
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from otlp_viewer.query import operators
from otlp_viewer.query.types import (
    Answer,
    Box,
    Calculation,
    Comparison,
    Group,
    Invalid,
    Order,
    Query,
    Share,
    UnknownColumn,
)
from otlp_viewer.web import axis, charts, format, forms
from otlp_viewer.web.colors import SLOTS
from otlp_viewer.web.pages import common
from otlp_viewer.web.pages.common import RANGES, Json, Site, query_url, respond_if_changed, traces_url
from otlp_viewer.web.questions import QUESTIONS, Question

TRACE_ID = "trace.trace_id"


def add(blueprint: Blueprint, site: Site) -> None:
    def page() -> Response:
        text = request.args.get("query", "")
        try:
            moving = common.is_relative(common.read_query(text)) if text else False
        except Invalid:
            moving = False
        return respond_if_changed(site, lambda: _page(site, text), moving)

    blueprint.add_url_rule("/query", "query", page, strict_slashes=False)

    @blueprint.get("/ask")
    def ask() -> Response:
        """Redirect from the builder's form: its fields become a query in the URL."""
        try:
            original = common.read_query(request.args.get("original") or "{}")
        except Invalid:
            original = {}
        signal = "logs" if request.args.get("signal") == "logs" else "spans"
        query = forms.to_query(request.args, original, site.store.columns(signal=signal), tuple(RANGES))
        return redirect(query_url(query, **({"signal": signal} if signal == "logs" else {})))

    @blueprint.get("/query/slowest")
    def slowest() -> Response:
        """Redirect to the span with the largest value in a cell of a heatmap."""
        box = common.read_box(request.args.get("box", ""))
        try:
            query = common.timed(site.store, common.read_query(request.args.get("query") or "{}"))
            span = site.store.slowest(_extended_to(query, box), box) if box else None
        except Invalid as error:
            abort(400, str(error))
        if span is None:
            abort(404, "The spans of this cell have been dropped from memory.")
        return redirect(url_for("pages.trace", trace_id=span.trace_id, span=span.span_id))


def _extended_to(query: Query, box: Box) -> Query:
    """Extend the time range of the query to the box, which stays in place while the clock moves."""
    return replace(query, start=min(query.start, box.start), end=max(query.end, box.end))


def _page(site: Site, text: str) -> str:
    store = site.store
    error, note = "", ""
    parts: Json = {}
    specification: Json = {}
    signal = "logs" if request.args.get("signal") == "logs" else "spans"
    columns = store.columns(signal=signal)
    box = common.read_box(request.args.get("box", ""))
    try:
        specification = common.read_query(text) if text else QUESTIONS[0].query if signal == "spans" else {}
        known = specification
        by = specification.get("breakdowns")
        if isinstance(by, list) and "http.route" in by and "http.route" not in columns:
            known = specification | {"breakdowns": ["name"]}  # group spans by name if none has a route
        query = common.timed(store, known, signal=signal)
        parts = _results(site, query, known)
        if box:
            parts["comparison"] = _comparison(store.compare(_extended_to(query, box), box), known, box)
    except Invalid as reason:
        error = str(reason)
        if _question(specification) and isinstance(reason, UnknownColumn):
            error, note = "", error  # the first such span creates its fields
    form = forms.form_of(specification, tuple(RANGES))
    return render_template(
        "query.html",
        page="query",
        empty=not any(store.counts()),
        signal=signal,
        things=signal,
        specification=specification,
        original=common.to_text(specification),
        form=form,
        sentence=common.sentence(form),
        unchanged=forms.UNCHANGED,
        columns=columns,
        questions=QUESTIONS,
        question=_question(specification),
        error=error,
        note=note,
        box=box,
        box_text=common.box_text(box) if box else "",
        ranges=RANGES,
        operators=operators.FILTERS,
        comparisons=operators.COMPARISONS,
        calculations=operators.CALCULATIONS,
        **parts,
    )


def key_text(value: Any) -> str:
    """Return the value of a group for a legend."""
    return "(missing)" if value is None else format.visible(value, 60) or '""'


def dash(number: int) -> int:
    """Return the dash style of a line, so that lines of the same color differ."""
    return (number + number // SLOTS) % 4


def lines_data(lines: Any) -> list[Any]:
    """Return lines for the chart's script: number of the group, and columns with values."""
    return [[line.group, [[column, float(f"{value:.6g}")] for column, value in line.values]] for line in lines]


def _question(specification: Json) -> Question | None:
    timeless = {name: value for name, value in specification.items() if name != "time_range"}
    return next((question for question in QUESTIONS if question.query == timeless), None)


def _results(site: Site, query: Query, specification: Json) -> Json:
    """Return the charts and the table of a query, with their links."""
    store = site.store
    own_step = query.granularity if specification.get("granularity") else None
    seconds = common.active_seconds(store, query)
    time_axis = axis.make(seconds, query.start, query.end, own_step)
    answer = store.query(replace(query, granularity=time_axis.step))
    lines_axis, series = time_axis, answer
    step = own_step or charts.step_of_lines(answer, time_axis)
    if query.values and step != time_axis.step:
        lines_axis = axis.make(seconds, query.start, query.end, step)
        lines_query = replace(query, calculations=query.values, granularity=step)
        series = replace(store.query(lines_query), groups=answer.groups)
    lines = [
        line for calculation in query.values if (line := charts.lines(series, calculation, lines_axis)) is not None
    ]
    filters = common.only_filters(specification)
    rows = [_row(site, answer, group, number, filters) for number, group in enumerate(answer.groups)]
    names = [calculation.name for calculation in query.values]
    largest = [
        max(
            (abs(group.values[index]) for group in answer.groups if isinstance(group.values[index], int | float)),
            default=0,
        )
        for index in range(len(names))
    ]
    heatmaps = [
        (calculation, map_)
        for calculation in answer.heatmaps
        if (map_ := charts.heatmap(answer, calculation, time_axis))
    ]
    return {
        "answer": answer,
        "axis": time_axis,
        "rows": rows,
        "by": list(query.breakdowns),
        "values": names,
        "headings": _headings(query, specification),
        "largest": largest,
        "heatmaps": heatmaps,
        "lines": lines,
        "lines_axis": lines_axis,
        "dotted": {line.group for chart in lines for line in chart.lines if line.dots},
        "most_lines": charts.MAX_LINES,
        "first_lines": charts.FIRST_LINES,
        "line_groups": [
            common.equality_filters(zip(query.breakdowns, group.key, strict=True))
            for group in answer.groups[: charts.MAX_LINES]
        ],
        "about": filters,
        "behind": common.logs_url(filters) if query.signal == "logs" else traces_url(filters, sort="duration"),
    }


def _headings(query: Query, specification: Json) -> list[Json]:
    """Return the table's headings, each with a query in its order, reversed if it is the current order."""
    current = query.orders[0] if query.orders else Order(query.values[0], True) if query.values else None
    result = []
    terms: list[Calculation | str] = [*query.breakdowns, *query.values]
    for term in terms:
        descending = current.descending if current and current.term == term else None
        if isinstance(term, str):
            name, order = term, {"column": term}
        else:
            name, order = term.name, {"op": term.op} | ({} if term.column is None else {"column": term.column})
        largest_first = not isinstance(term, str) if descending is None else not descending
        order["order"] = "descending" if largest_first else "ascending"
        result.append({"name": name, "descending": descending, "query": specification | {"orders": [order]}})
    return result


def _row(site: Site, answer: Answer, group: Group, number: int, filters: Json) -> Json:
    by = answer.query.breakdowns
    pairs = list(zip(by, group.key, strict=True))
    also = common.equality_filters(pairs)
    trace_id = dict(pairs).get(TRACE_ID)
    service = dict(pairs).get("service.name") if by == ("service.name",) or list(by) == ["service.name"] else None
    return {
        "key": group.key,
        "values": group.values,
        "slot": site.colors[service]
        if isinstance(service, str)
        else number % SLOTS
        if number < charts.MAX_LINES
        else None,
        "service": isinstance(service, str),
        "only": None if common.matches_any(filters) or not pairs else common.add_filters(filters, also),
        "events": url_for("pages.trace", trace_id=trace_id)
        if trace_id
        else common.logs_url(filters, also)
        if answer.query.signal == "logs"
        else traces_url(filters, also, sort="duration"),
    }


def _comparison(comparison: Comparison, specification: Json, box: Box) -> Json:
    """Return how a box differs from the rest, with links to its traces."""
    filters = common.only_filters(specification)
    text = common.box_text(box)
    fields = []
    for field in comparison.fields:
        values = []
        for share in field.values:
            also = _share_filters(field.name, share)
            only = None if common.matches_any(filters) else common.add_filters(specification, also)
            traces = traces_url(filters, also, sort="duration", **({"box": text} if share.inside else {}))
            values.append({"share": share, "only": only, "traces": traces})
        fields.append({"name": field.name, "values": values})
    return {
        "inside": comparison.inside,
        "outside": comparison.outside,
        "fields": fields,
        "traces": traces_url(filters, box=text, sort="duration"),
    }


def _share_filters(column: str, share: Share) -> list[Json]:
    """Return filters for the spans of a share: those with one value, or in a range of numbers."""
    if share.low is None:
        return common.equality_filters([(column, share.value)])
    return [{"column": column, "op": op, "value": value} for op, value in ((">=", share.low), ("<=", share.high))]
