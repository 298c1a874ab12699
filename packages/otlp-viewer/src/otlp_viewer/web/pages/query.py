"""The query builder and its results, each of which leads to the traces behind it."""

from collections.abc import Sequence
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
    FieldComparison,
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
from otlp_viewer.web.pages.common import RANGES, Json, Site, query_url, traces_url, unless_same
from otlp_viewer.web.questions import QUESTIONS, Question

TRACE_ID = "trace.trace_id"


def add(blueprint: Blueprint, site: Site) -> None:
    def page() -> Response:
        text = request.args.get("query", "")
        try:
            moving = common.is_relative(common.read_query(text)) if text else False
        except Invalid:
            moving = False
        return unless_same(site, lambda: _page(site, text), moving)

    blueprint.add_url_rule("/query", "query", page, strict_slashes=False)

    @blueprint.get("/ask")
    def ask() -> Response:
        """Where the builder's form goes: its fields become the query in the address."""
        try:
            original = common.read_query(request.args.get("original") or "{}")
        except Invalid:
            original = {}
        signal = "logs" if request.args.get("signal") == "logs" else "spans"
        asked = forms.asked(request.args, original, site.store.columns(signal=signal), tuple(RANGES))
        return redirect(query_url(asked, **({"signal": signal} if signal == "logs" else {})))

    @blueprint.get("/query/slowest")
    def slowest() -> Response:
        """The span with the largest value in a cell of a heatmap."""
        box = common.read_box(request.args.get("box", ""))
        try:
            query = common.timed(site.store, common.read_query(request.args.get("query") or "{}"))
            found = site.store.slowest(_around(query, box), box) if box else None
        except Invalid as error:
            abort(400, str(error))
        if found is None:
            abort(404, "No span of this cell is in memory any more.")
        return redirect(url_for("pages.trace", trace_id=found.trace_id, span=found.span_id))


def _around(query: Query, box: Box) -> Query:
    """Return the query with a time that includes the box, which stays where it was drawn while the clock moves on."""
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
            known = specification | {"breakdowns": ["name"]}  # spans without a route are told apart by their names
        query = common.timed(store, known, signal=signal)
        parts = _results(site, query, known)
        if box:
            parts["comparison"] = _comparison(store.compare(_around(query, box), box), known, box)
    except Invalid as reason:
        error = str(reason)
        if _question(specification) and isinstance(reason, UnknownColumn):
            error, note = "", error  # its fields come with the first such span
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
    """Return the value of a group as a legend has it."""
    return "(missing)" if value is None else format.visible(value, 60) or '""'


def dash(number: int) -> int:
    """Return the dashes of a line, so that lines of one color differ."""
    return (number + number // SLOTS) % 4


def lines_data(lines: Any) -> list[Any]:
    """Return lines for their chart's script: a group's number, and columns with values."""
    return [[line.group, [[column, float(f"{value:.6g}")] for column, value in line.values]] for line in lines]


def _question(specification: Json) -> Question | None:
    timeless = {name: value for name, value in specification.items() if name != "time_range"}
    return next((one for one in QUESTIONS if one.query == timeless), None)


def _results(site: Site, query: Query, specification: Json) -> Json:
    """Return the charts and the table of a query's answer, each with the addresses that it leads to."""
    store = site.store
    own_step = query.granularity if specification.get("granularity") else None
    seconds = common.activity(store, query)
    time_axis = axis.make(seconds, query.start, query.end, own_step)
    answer = store.query(replace(query, granularity=time_axis.step))
    lines_axis, series = time_axis, answer
    step = own_step or charts.step_of_lines(answer, time_axis)
    if query.values and step != time_axis.step:
        lines_axis = axis.make(seconds, query.start, query.end, step)
        asked = replace(query, calculations=query.values, granularity=step)
        series = replace(store.query(asked), groups=answer.groups)
    lines = [line for made in query.values if (line := charts.lines(series, made, lines_axis)) is not None]
    about = common.only_filters(specification)
    rows = [_row(site, answer, group, number, about) for number, group in enumerate(answer.groups)]
    names = [made.name for made in query.values]
    largest = [
        max((abs(group.values[at]) for group in answer.groups if isinstance(group.values[at], int | float)), default=0)
        for at in range(len(names))
    ]
    heatmaps = [(made, map_) for made in answer.heatmaps if (map_ := charts.heatmap(answer, made, time_axis))]
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
        "most_lines": charts.MOST_LINES,
        "first_lines": charts.FIRST_LINES,
        "line_groups": [
            common.wanting(zip(query.breakdowns, group.key, strict=True))
            for group in answer.groups[: charts.MOST_LINES]
        ],
        "about": about,
        "behind": common.logs_url(about) if query.signal == "logs" else traces_url(about, sort="duration"),
    }


def _headings(query: Query, specification: Json) -> list[Json]:
    """Return the table's headings, each with the query in its order; the other way round where it already is."""
    now = query.orders[0] if query.orders else Order(query.values[0], True) if query.values else None
    found = []
    terms: list[Calculation | str] = [*query.breakdowns, *query.values]
    for term in terms:
        descending = now.descending if now and now.term == term else None
        if isinstance(term, str):
            name, order = term, {"column": term}
        else:
            name, order = term.name, {"op": term.op} | ({} if term.column is None else {"column": term.column})
        largest_first = not isinstance(term, str) if descending is None else not descending
        order["order"] = "descending" if largest_first else "ascending"
        found.append({"name": name, "descending": descending, "query": specification | {"orders": [order]}})
    return found


def _row(site: Site, answer: Answer, group: Group, number: int, about: Json) -> Json:
    by = answer.query.breakdowns
    pairs = list(zip(by, group.key, strict=True))
    also = common.wanting(pairs)
    trace_id = dict(pairs).get(TRACE_ID)
    service = dict(pairs).get("service.name") if by == ("service.name",) or list(by) == ["service.name"] else None
    return {
        "key": group.key,
        "values": group.values,
        "slot": site.colors[service]
        if isinstance(service, str)
        else number % SLOTS
        if number < charts.MOST_LINES
        else None,
        "service": isinstance(service, str),
        "narrow": None if common.is_any(about) or not pairs else common.narrowed(about, also),
        "events": url_for("pages.trace", trace_id=trace_id)
        if trace_id
        else common.logs_url(about, also)
        if answer.query.signal == "logs"
        else traces_url(about, also, sort="duration"),
    }


def _comparison(found: Comparison, specification: Json, box: Box) -> Json:
    """Return what sets a box apart, with the addresses of the traces in it."""
    about = common.only_filters(specification)
    text = common.box_text(box)
    fields = []
    for field, *others in _alike(found.fields):
        values = []
        for share in field.values:
            also = _wanting(field.name, share)
            narrow = None if common.is_any(about) else common.narrowed(specification, also)
            traces = traces_url(about, also, sort="duration", **({"box": text} if share.inside else {}))
            values.append({"share": share, "narrow": narrow, "traces": traces})
        fields.append({"name": field.name, "also": [one.name for one in others], "values": values})
    return {
        "inside": found.inside,
        "outside": found.outside,
        "fields": fields,
        "traces": traces_url(about, box=text, sort="duration"),
    }


def _alike(fields: Sequence[FieldComparison]) -> list[list[FieldComparison]]:
    """Return together the fields that say the same, such as a route and the name that it is part of."""
    found: list[list[FieldComparison]] = []
    for field in fields:
        alike = next((one for one in found if _says_the_same(one[0], field)), None)
        if alike:
            alike.append(field)
        else:
            found.append([field])
    return found


def _says_the_same(one: FieldComparison, other: FieldComparison) -> bool:
    """Whether each value of a field is as frequent as one of the other's that it is part of, or that is part of it."""

    def same(some: Share, others: Share) -> bool:
        a, b = some.value, others.value
        texts = isinstance(a, str) and isinstance(b, str) and (a in b or b in a)
        return replace(some, value=None) == replace(others, value=None) and (texts or a == b)

    values = [any(same(share, candidate) for candidate in other.values) for share in one.values]
    return len(one.values) == len(other.values) and all(values)


def _wanting(column: str, share: Share) -> list[Json]:
    """Return filters for the spans that a share counts: those of one value, or of a range of numbers."""
    if share.low is None:
        return common.wanting([(column, share.value)])
    return [{"column": column, "op": op, "value": value} for op, value in ((">=", share.low), ("<=", share.high))]
