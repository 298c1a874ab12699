"""The viewer's pages."""

import json
import math
import re
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, abort, make_response, redirect, render_template, request, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from otlp_viewer.model import STATUSES, LogFilter, TraceFilter
from otlp_viewer.query import parse
from otlp_viewer.query.types import Answer, Box, Invalid, UnknownColumn
from otlp_viewer.store import Store
from otlp_viewer.web import api, charts, waterfall
from otlp_viewer.web.questions import QUESTIONS, Question

RANGES = {60: "Last minute", 600: "Last 10 minutes", 3600: "Last hour", 7200: "Last 2 hours", 86400: "Last 24 hours"}
SEVERITIES = {1: "TRACE", 5: "DEBUG", 9: "INFO", 13: "WARN", 17: "ERROR", 21: "FATAL"}
TRACES_SHOWN = 50
LOGS_SHOWN = 200
LONGEST_VALUE = 10_000
MOST_FIELDS = 200
MOST_EVENTS = 50
MOST_TRACE_LOGS = 50
SHORTEST_RANGE = 5.0


def pages(store: Store) -> Blueprint:
    blueprint = Blueprint("pages", __name__)

    @blueprint.app_context_processor
    def kept() -> dict[str, Any]:
        return {"kept": store.counts()}

    @blueprint.get("/")
    def start() -> AnyResponse:
        return _unless_same(store, lambda: _query_page(store, None))

    @blueprint.get("/query")
    def query_page() -> AnyResponse:
        return _unless_same(store, lambda: _query_page(store, request.args.get("query")))

    @blueprint.get("/ask")
    def ask() -> AnyResponse:
        """Where the builder's form goes: its fields become the query in the address."""
        return redirect(query_url(from_form()))

    @blueprint.get("/query/slowest")
    def slowest() -> AnyResponse:
        specification, box = _read(request.args.get("query")), _box(request.args.get("box", ""))
        try:
            query = store.parse(_with_time(store, specification, box)) if box else None
            found = store.slowest(query, box) if query and box else None
        except Invalid as error:
            abort(400, str(error))
        if found is None:
            abort(404, "No span is kept any more of what this cell of the heatmap showed.")
        return redirect(url_for("pages.trace", trace_id=found.trace_id, span=found.span_id))

    @blueprint.get("/traces")
    def traces() -> AnyResponse:
        return _unless_same(store, lambda: _traces_page(store))

    @blueprint.get("/traces/<trace_id>")
    def trace(trace_id: str) -> AnyResponse:
        return _unless_same(store, lambda: _trace_page(store, trace_id.lower()))

    @blueprint.get("/logs")
    def logs() -> AnyResponse:
        return _unless_same(store, lambda: _logs_page(store))

    for name, filter_ in FILTERS.items():
        blueprint.add_app_template_filter(filter_, name)
    blueprint.add_app_template_global(query_url, "query_url")
    blueprint.add_app_template_global(narrowed_url, "narrowed_url")
    return blueprint


def _unless_same(store: Store, make: Callable[[], str]) -> AnyResponse:
    """Answer 304 while there is nothing new, so that looking for news costs nothing."""
    response = make_response("")
    response.set_etag("-".join(map(str, store.version)))
    response.headers["Cache-Control"] = "no-cache"
    if request.headers.get("X-Live") and request.if_none_match.contains(response.get_etag()[0] or ""):
        return response.make_conditional(request)
    response.set_data(make())
    return response


# Query


def _read(text: str | None) -> dict[str, Any]:
    """Return the query of an address; raises Invalid."""
    if not text:
        return QUESTIONS[0].query
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("the query in the address is not JSON") from None
    if not isinstance(found, dict):
        raise Invalid("the query in the address must be a JSON object")
    return found


def _box(text: str) -> Box | None:
    """Return the box of an address: start, end, low and high, joined by commas, and the column."""
    parts = text.split(",", 4)
    try:
        start, end, low, high = (float(part) for part in parts[:4])
        return Box(parts[4], start, end, low, high) if all(map(math.isfinite, (start, end, low, high))) else None
    except (ValueError, IndexError):
        return None


def _with_time(store: Store, specification: dict[str, Any], box: Box | None = None) -> dict[str, Any]:
    """Return the query with the time of all that is kept, where it has none of its own.

    With a `box`, also one that has moved on since the box was drawn.
    """
    if specification.keys() & {"time_range", "start_time", "end_time"} and box is None:
        return specification
    timeless = {
        name: value
        for name, value in specification.items()
        if name not in ("time_range", "start_time", "end_time", "granularity")
    }
    if box is not None and specification.keys() & {"time_range", "start_time", "end_time"}:
        length = specification.get("time_range") or parse.DEFAULT_RANGE
        start = specification.get("start_time") or min(math.floor(box.start), math.floor(time.time() - length))
        return timeless | {"start_time": start, "end_time": specification.get("end_time") or math.ceil(time.time()) + 1}
    first, last = store.extent(store.parse(timeless)) or (time.time() - SHORTEST_RANGE, time.time())
    return timeless | {"start_time": math.floor(first), "end_time": max(math.ceil(last + 0.001), math.floor(first) + 5)}


def _query_page(store: Store, text: str | None) -> str:
    error, note = "", ""
    answer: Answer | None = None
    comparison: api.Json | None = None
    specification: dict[str, Any] = {}
    box = _box(request.args.get("box", ""))
    columns = store.columns()
    try:
        specification = _read(text)
        known = specification
        if "http.route" in specification.get("breakdowns", ()) and "http.route" not in columns:
            # Nothing but other work so far: its names tell it apart as well.
            known = specification | {"breakdowns": ["name"]}
        timed = _with_time(store, known)
        answer = store.query(store.parse(timed))
        if box:
            comparison = api.comparison_json(store.compare(store.parse(_with_time(store, known, box)), box))
    except Invalid as reason:
        error = str(reason)
        if _question(specification) and isinstance(reason, UnknownColumn):  # its fields come with the first such span
            error, note = "", error
    parts = _results(answer) if answer else {}
    return render_template(
        "query.html",
        page="query",
        specification=specification,
        builder=builder(specification),
        sentence=sentence(builder(specification)),
        columns=columns,
        questions=QUESTIONS,
        question=_question(specification),
        error=error,
        note=note,
        answer=answer,
        comparison=comparison,
        box=box,
        ranges=RANGES,
        operators=parse.FILTERS,
        calculations=parse.CALCULATIONS,
        empty=not store.version[0],
        **parts,
    )


def _question(specification: dict[str, Any]) -> Question | None:
    timeless = {name: value for name, value in specification.items() if name != "time_range"}
    return next((one for one in QUESTIONS if one.query == timeless), None)


def _results(answer: Answer) -> dict[str, Any]:
    """Return the charts and the table of an answer."""
    results = [row["data"] for row in api.answer_json(answer)["data"]["results"]]
    by = list(answer.query.breakdowns)
    values = [made.name for made in answer.query.values]
    heatmaps = [(made, chart) for made in answer.heatmaps if (chart := charts.heatmap(answer, made))]
    lines = [line for made in answer.query.values if (line := charts.lines(answer, made)) is not None]
    largest = {name: max((abs(row[name]) for row in results if row[name]), default=0) for name in values}
    return {
        "by": by,
        "values": values,
        "rows": results,
        "group": lambda row: [(name, row[name]) for name in by],
        "largest": largest,
        "heatmaps": heatmaps,
        "lines": lines,
        "most_lines": charts.MOST_LINES,
    }


def builder(specification: dict[str, Any]) -> dict[str, Any]:
    """Return what the builder's form shows of a query, whatever that holds."""

    def items(name: str) -> list[Any]:
        value = specification.get(name)
        return value if isinstance(value, list) else []

    def texts(item: Any, *names: str) -> list[str]:
        return [_text(item.get(name)) if isinstance(item, dict) else "" for name in names]

    order = next((one for one in items("orders") if isinstance(one, dict)), {})
    term = f"{order['op']}({order['column']})" if order.get("op") and order.get("column") else order.get("op")
    return {
        "calculations": [texts(one, "op", "column") for one in items("calculations")],
        "filters": [texts(one, "column", "op", "value") for one in items("filters")],
        "breakdowns": [_text(one) for one in items("breakdowns")],
        "any": specification.get("filter_combination") == "OR",
        "order": _text(term or order.get("column")),
        "descending": order.get("order", "descending") == "descending",
        "limit": _text(specification.get("limit")),
        "range": specification.get("time_range"),
    }


def sentence(form: dict[str, Any]) -> str:
    """Return a query, as the builder shows it, in one line."""
    shows = ", ".join(f"{op}({column})" if column else op for op, column in form["calculations"]) or "COUNT"
    where = (" or " if form["any"] else " and ").join(" ".join(filter(None, one)) for one in form["filters"])
    by = ", ".join(form["breakdowns"])
    return shown(shows + (f" where {where}" if where else "") + (f" by {by}" if by else ""), 300)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)


def from_form() -> dict[str, Any]:
    """Return the query that the builder's form describes; what is wrong with it is said where it is asked."""
    form = request.args
    calculations = []
    for op, column in zip(form.getlist("calculation"), form.getlist("of"), strict=False):
        if op:
            calculations.append({"op": op} | ({"column": column} if column and op != "COUNT" else {}))
    filters = []
    for column, op, value in zip(form.getlist("where"), form.getlist("is"), form.getlist("value"), strict=False):
        if not column:
            continue
        one: dict[str, Any] = {"column": column, "op": op}
        if op in ("in", "not-in"):
            one["value"] = [part.strip() for part in value.split(",")]
        elif op not in ("exists", "does-not-exist"):
            one["value"] = value
        filters.append(one)
    breakdowns = list(dict.fromkeys(filter(None, form.getlist("by"))))
    found: dict[str, Any] = {"calculations": calculations, "breakdowns": breakdowns, "filters": filters}
    if form.get("any") == "OR" and len(filters) > 1:
        found["filter_combination"] = "OR"
    way = "ascending" if form.get("way") == "ascending" else "descending"
    order = form.get("order", "")
    for one in calculations:
        if order == (f"{one['op']}({one['column']})" if "column" in one else one["op"]) and one["op"] != "HEATMAP":
            found["orders"] = [one | {"order": way}]
    if order in breakdowns:
        found["orders"] = [{"column": order, "order": way}]
    if re.fullmatch("[0-9]{1,6}", form.get("limit", "")):
        found["limit"] = int(form["limit"])
    if re.fullmatch("[0-9]{1,9}", form.get("range", "")):
        found["time_range"] = int(form["range"])
    return {name: value for name, value in found.items() if value != []}


def query_url(specification: dict[str, Any], **more: str) -> str:
    text = json.dumps(specification, ensure_ascii=False, separators=(",", ":"))
    return url_for("pages.query_page") + "?" + urlencode({"query": text} | more)


def narrowed_url(specification: dict[str, Any], narrowing: Iterable[tuple[str, Any]]) -> str:
    """Return the address of the query with a filter more for each field and its value (None: it has none)."""
    filters = [] if specification.get("filter_combination") == "OR" else list(specification.get("filters") or [])
    for column, value in narrowing:
        one = {"column": column, "op": "does-not-exist"}
        filters.append(one if value is None else {"column": column, "op": "=", "value": value})
    unique = list({json.dumps(one): one for one in filters}.values())
    rest = {name: value for name, value in specification.items() if name != "filter_combination"}
    return query_url(rest | {"filters": unique})


# Traces


def _traces_page(store: Store) -> str:
    given = request.args
    narrow = TraceFilter(
        given.get("service", ""),
        given.get("route", ""),
        given.get("status", "") if given.get("status") in STATUSES else "",
        _number(given.get("min_duration", "")),
        given.get("text", "")[:1000],
    )
    limit = min(max(int(_number(given.get("limit", ""))), TRACES_SHOWN), 1000)
    found = store.traces(limit, narrow)
    return render_template(
        "traces.html",
        page="traces",
        traces=found,
        longest=max((trace.duration_ms for trace in found), default=0),
        narrow=narrow,
        narrowed=narrow != TraceFilter(),
        services=store.values("service.name"),
        routes=store.values("http.route"),
        statuses=STATUSES,
        colours=waterfall.services(store.values("service.name")),
        limit=limit,
        more="/traces?" + urlencode(given.to_dict() | {"limit": str(limit * 2)}) if len(found) == limit < 1000 else "",
        empty=not store.version[0],
    )


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        return 0
    return found if math.isfinite(found) and found > 0 else 0


def _trace_page(store: Store, trace_id: str) -> str:
    found = store.outline(trace_id, waterfall.MOST_SPANS) if re.fullmatch("[0-9a-f]{32}", trace_id) else None
    if found is None:
        abort(404, "No trace with this id is kept here: it has not come yet, or newer ones have taken its place.")
    trace, spans = found.summary, found.spans
    chart = waterfall.lay_out(spans)
    wanted = request.args.get("span", "")
    first_error = next((row.span.span_id for row in chart.rows if row.span.error), None)
    chosen = store.span(trace_id, wanted) or store.span(trace_id, chart.rows[0].span.span_id)
    span = api.span_json(chosen) if chosen else None
    logs = [api.log_json(log) for log in store.logs(LOGS_SHOWN + 1, LogFilter(trace_id=trace_id))[::-1]]
    honeycomb_page = store.honeycomb_page(trace.service)
    return render_template(
        "trace.html",
        page="traces",
        trace=trace,
        chart=chart,
        span=span,
        span_logs=[log for log in logs if span and log.get("trace.span_id") == span["trace.span_id"]],
        logs=logs[:LOGS_SHOWN],
        more_logs=len(logs) > LOGS_SHOWN,
        first_error=first_error,
        colours=waterfall.services(trace.services),
        honeycomb_url=honeycomb_page and honeycomb_page + trace.trace_id,
        own=own_fields(span) if span else {},
        most_events=MOST_EVENTS,
        address=waterfall.address,
    )


SHOWN_ABOVE = ("name", "duration_ms", "service.name", "time", "events", "links", "error", "status_message", "span.kind")


def own_fields(span: api.Json) -> dict[str, Any]:
    """Return the fields of a span that its head does not show: the program's own first, ids last."""

    def rank(name: str) -> int:
        if name.startswith("app."):
            return 0
        return 3 if name.startswith("trace.") else 2 if name.startswith(RESOURCE) else 1

    names = sorted((name for name in span if name not in SHOWN_ABOVE), key=lambda name: (rank(name), name))
    return {name: span[name] for name in names}


RESOURCE = ("telemetry.", "service.", "library.", "deployment.", "host.", "process.", "os.", "status_code")


# Logs


def _logs_page(store: Store) -> str:
    given = request.args
    severity = int(_number(given.get("severity", "")))
    narrow = LogFilter(
        given.get("service", ""),
        severity if severity in SEVERITIES else 0,
        given.get("trace_id", ""),
        given.get("text", "")[:1000],
    )
    services = store.values("service.name")
    return render_template(
        "logs.html",
        page="logs",
        logs=[api.log_json(log) for log in store.logs(LOGS_SHOWN, narrow)],
        most=LOGS_SHOWN,
        narrow=narrow,
        narrowed=narrow != LogFilter(),
        services=services,
        colours=waterfall.services(services),
        severities=SEVERITIES,
        empty=not store.version[1],
    )


# What things look like


def duration(milliseconds: float | None) -> str:
    """Return a duration with three digits and the unit that suits it."""
    if milliseconds is None:
        return ""
    size = abs(milliseconds)
    if size == 0:
        return "0 ms"
    if size < 1:
        return f"{_three(milliseconds * 1000)} µs"
    if size < 999.5:
        return f"{_three(milliseconds)} ms"
    if size < 60_000:
        return f"{_three(milliseconds / 1000)} s"
    minutes, rest = divmod(round(milliseconds / 1000), 60)
    return f"{minutes:,} min {rest} s"


def _three(value: float) -> str:
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def count(value: float) -> str:
    """Return a number with thousands apart, and as many digits as help."""
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{value:,.0f}"
    return f"{value:,.2f}" if 0.01 <= abs(value) < 1e9 else f"{value:.3g}"


def measured(value: Any, name: str) -> str:
    """Return a value of a calculation, or of a field, of this name: a duration if the name says so."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return shown(value, 200)
    if re.search(r"_ms\)?$", name) and not name.startswith("COUNT"):
        return duration(value)
    return count(value) if "(" in name or name == "COUNT" else shown(value, 200)


def tick(value: float, name: str) -> str:
    """Return a round value of an axis, without zeros that say nothing."""
    return re.sub(r"\.(\d*?)0+(?=\D|$)", lambda found: f".{found[1]}" if found[1] else "", measured(value, name))


def shown(value: Any, longest: int = LONGEST_VALUE) -> str:
    """Return a value as text of bounded length in which nothing is hidden: escapes for what cannot be printed.

    Line ends and tabs stay.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    more = len(text) - longest
    text = "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text[:longest])
    return text + (f"… ({more:,} more characters)" if more > 0 and longest > 1000 else "…" if more > 0 else "")


def stamp(time_: str | float, form: str = "time") -> Markup:
    """Return a time as an element that the page's script turns into local time; UTC without it."""
    iso = api.iso(time_) if isinstance(time_, int) else charts_iso(time_) if isinstance(time_, float) else time_
    text = f"{iso[:10]} {iso[11:23]} UTC" if form == "full" else iso[11:23]
    return Markup('<time datetime="{}" data-form="{}">{}</time>').format(iso, form, text)


def charts_iso(seconds: float) -> str:
    whole = math.floor(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{round((seconds - whole) * 1000):03}Z"


def clock(seconds: float) -> str:
    """Return a time as an axis has it, in UTC."""
    text = charts_iso(seconds)[11:]
    return text[:8] if text[9:12] == "000" else text[:10]


def severity(number: int) -> str:
    return next((name for least, name in sorted(SEVERITIES.items(), reverse=True) if number >= least), "")


FILTERS: dict[str, Callable[..., Any]] = {
    "duration": duration,
    "count": count,
    "measured": measured,
    "tick": tick,
    "shown": shown,
    "stamp": stamp,
    "clock": clock,
    "iso": charts_iso,
    "severity": severity,
}


def error_page(error: Any) -> Response:
    return Response(render_template("error.html", page="", error=error), error.code or 500, mimetype="text/html")
