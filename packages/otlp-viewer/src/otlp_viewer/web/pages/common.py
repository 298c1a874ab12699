"""Shared by all pages: the store, the colors of services, URLs with queries, and ETags for live updates."""

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from flask import make_response, request, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response

from otlp_viewer.model import SPAN_FIELDS, column_name
from otlp_viewer.query.types import Box, Calculation, Filter, Invalid, Query
from otlp_viewer.store import Store
from otlp_viewer.web import forms
from otlp_viewer.web.axis import Axis
from otlp_viewer.web.colors import Colors

Json = dict[str, Any]
RANGES = {60: "Last minute", 600: "Last 10 minutes", 3600: "Last hour", 7200: "Last 2 hours", 86400: "Last 24 hours"}
MAX_TEXT = 1000
TICK = 2
"""Seconds after which a page with a relative range is rendered again, even without new data."""


MAX_RECENT = 16


@dataclass(frozen=True)
class Site:
    store: Store
    colors: Colors = field(default_factory=Colors)
    recent: dict[tuple[object, ...], Any] = field(default_factory=dict)
    """Cached results for the last few traces, by kind, trace and version of the store."""

    def remember(self, key: tuple[object, ...], result: Any) -> None:
        while len(self.recent) >= MAX_RECENT:
            self.recent.pop(next(iter(self.recent), ()), None)
        self.recent[key] = result


def respond_if_changed(site: Site, render: Callable[[], str], moving: bool = False) -> Response:
    """Respond 304 to a live page while nothing has changed, so that polling is cheap.

    `moving`: the page has a relative range, so it also changes with the clock.
    """
    response = make_response("")
    response.set_etag("-".join(map(str, (*site.store.version, int(time.time() / TICK) if moving else ""))))
    response.headers["Cache-Control"] = "no-cache"
    if request.headers.get("X-Live") and request.if_none_match.contains(response.get_etag()[0] or ""):
        return response.make_conditional(request)
    response.set_data(render())
    return response


def parameter(name: str) -> str:
    return request.args.get(name, "")[:MAX_TEXT]


def nanoseconds(seconds: float | None) -> int:
    """Convert the time of a parameter for a filter; 0 for none."""
    return 0 if seconds is None else round(min(max(seconds, 0.0), 9e9) * 1e9)


def integer(text: str, minimum: int, maximum: int) -> int:
    """Return the integer of a parameter within its bounds, or `minimum` if it is invalid."""
    return min(max(int(text), minimum), maximum) if re.fullmatch("[0-9]{1,9}", text) else minimum


# Queries in URLs


def read_query(text: str) -> Json:
    """Parse the query of a URL; raises Invalid."""
    try:
        query = json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("The query in the URL is not JSON.") from None
    if not isinstance(query, dict):
        raise Invalid("The query in the URL must be a JSON object.")
    return query


def to_text(query: Mapping[str, Any] | list[Json]) -> str:
    """Return a query as short JSON, escaped if it has unprintable characters."""
    text = json.dumps(query, ensure_ascii=False, separators=(",", ":"))
    return text if text.isprintable() else json.dumps(query, separators=(",", ":"))


def read_box(text: str) -> Box | None:
    """Parse the box of a URL: start, end, low, high and column, separated by commas."""
    parts = text.split(",", 4)
    try:
        start, end, low, high = (float(part) for part in parts[:4])
        return Box(parts[4], start, end, low, high) if all(map(math.isfinite, (start, end, low, high))) else None
    except (ValueError, IndexError):
        return None


def box_text(box: Box) -> str:
    return f"{box.start:.6f},{box.end:.6f},{box.low!r},{box.high!r},{box.column}"


def is_relative(query: Mapping[str, Any]) -> bool:
    """Return whether the time range of a query moves with the clock."""
    return query.get("time_range") is not None and query.get("start_time") is None and query.get("end_time") is None


def is_moving() -> bool:
    """Return whether the time range of this list moves with the clock."""
    return bool(request.args.get("range")) or is_relative(from_query(request.args.get("query", "")))


def timed(store: Store, specification: Json, now: float | None = None, **more: Any) -> Query:
    """Parse a query. Without a time range, it covers everything in memory. Raises Invalid."""
    if any(specification.get(name) is not None for name in forms.TIMES):
        return store.parse(specification, now, **more)
    # Without a time range, a granularity cannot be validated.
    query = store.parse({name: value for name, value in specification.items() if name != "granularity"}, now, **more)
    first, last = store.extent(query) or (time.time() - 1, time.time())
    query = replace(query, start=float(math.floor(first)), end=float(math.floor(last) + 1))
    step = specification.get("granularity")
    if isinstance(step, int) and not isinstance(step, bool) and step > 0:
        query = replace(query, granularity=float(max(step, (query.end - query.start) / 10_000)))
    return query


def active_seconds(store: Store, query: Query) -> list[int]:
    """Return the seconds that contain records of the query, in ascending order."""
    counted = replace(
        query, calculations=[Calculation("COUNT")], breakdowns=[], orders=[], havings=[], limit=1, granularity=1.0
    )
    return sorted({math.floor(point.time + 1e-6) for point in store.query(counted).series})


def only_filters(query: Mapping[str, Any]) -> Json:
    """Return only the filters and the time range of a query."""
    names = ("filters", "filter_combination", *forms.TIMES)
    return {name: query[name] for name in names if query.get(name) is not None}


def matches_any(query: Mapping[str, Any]) -> bool:
    """Return whether matching any of several filters is enough; then no mandatory filter can be added."""
    filters = query.get("filters")
    return query.get("filter_combination") == "OR" and isinstance(filters, list) and len(filters) > 1


def equality_filters(pairs: Iterable[tuple[str, Any]]) -> list[Json]:
    """Return a filter for each field and value; None means a missing field."""
    return [
        {"column": column, "op": "does-not-exist"} if value is None else {"column": column, "op": "=", "value": value}
        for column, value in pairs
    ]


def add_filters(query: Mapping[str, Any], filters: Iterable[Json]) -> Json:
    """Return the query with additional filters, all of which must match. Not for OR queries."""
    existing = query.get("filters")
    all_filters = [*(existing if isinstance(existing, list) else ()), *filters]
    unique = list({json.dumps(filter_, sort_keys=True): filter_ for filter_ in all_filters}.values())
    rest = {name: value for name, value in query.items() if name != "filter_combination"}
    return rest | ({"filters": unique} if unique else {})


def read_also(store: Store, signal: str = "spans") -> tuple[list[Filter], list[Json]]:
    """Return the filters of the URL that must match in addition to those of its query; raises Invalid."""
    text = request.args.get("also", "")
    filters = read_query(f'{{"filters":{text}}}')["filters"] if text else []
    return list(store.parse({"filters": filters}, signal=signal).filters), filters


# URLs


def query_url(query: Mapping[str, Any], **more: str) -> str:
    return url_for("pages.query") + "?" + urlencode({"query": to_text(query)} | more)


def traces_url(query: Mapping[str, Any], also: Iterable[Json] = (), **more: str) -> str:
    """Return the URL of the traces with a span that matches the query and all of the filters `also`."""
    return url_for("pages.traces") + "?" + urlencode(_url_parameters(query, also) | more)


def logs_url(query: Mapping[str, Any], also: Iterable[Json] = ()) -> str:
    """Return the URL of the logs that match the query and all of the filters `also`."""
    return url_for("pages.logs") + "?" + urlencode(_url_parameters(query, also))


def _url_parameters(query: Mapping[str, Any], also: Iterable[Json]) -> dict[str, str]:
    filters, more = only_filters(query), list(also)
    if more and not matches_any(filters):
        filters, more = add_filters(filters, more), []
    return ({"query": to_text(filters)} if filters else {}) | ({"also": to_text(more)} if more else {})


def current_url(**changes: Any) -> str:
    """Return the URL of this page with changed parameters; None removes one."""
    parameters = request.args.to_dict() | changes
    present = {name: str(value) for name, value in parameters.items() if value not in (None, "")}
    return request.path + ("?" + urlencode(present) if present else "")


def from_query(text: str) -> Json:
    """Parse the query of a URL for a link; {} if it is invalid."""
    try:
        return read_query(text)
    except Invalid:
        return {}


def without(query: Mapping[str, Any], *names: str) -> Json:
    return {name: value for name, value in query.items() if name not in names}


def column(attribute: str) -> str:
    """Return the column of a span's attribute."""
    return column_name(attribute, SPAN_FIELDS)


def replace_filters(query: Mapping[str, Any], filters: Mapping[str, Any]) -> Json:
    """Replace the filters of a query."""
    return without(query, "filters", "filter_combination") | {
        name: filters[name] for name in ("filters", "filter_combination") if name in filters
    }


def sentence(form: forms.Form) -> str:
    """Describe a query in one line."""
    shows = ", ".join(f"{op}({column})" if column else op for op, column in form.calculations) or "COUNT"
    where = conditions(form)
    by = ", ".join(row[0] for row in form.breakdowns)
    return shows + (f" where {where}" if where else "") + (f" by {by}" if by else "")


def conditions(form: forms.Form) -> str:
    """Describe the filters of a query."""
    return (" or " if form.any_filter else " and ").join(" ".join(filter(None, row)) for row in form.filters)


def about_text(also: list[Json]) -> str:
    """Describe the filters of the URL: those of its query, and all of `also`."""
    form = forms.form_of(from_query(request.args.get("query", "")), tuple(RANGES))
    first, more = conditions(form), conditions(forms.form_of({"filters": also}, ()))
    return f"({first}) and {more}" if first and more else first or more


def axis_data(axis: Axis) -> Markup:
    """Return a time axis as HTML attributes for a chart's script."""
    periods = [[period.start, period.first, period.columns, period.x] for period in axis.periods]
    return Markup('data-step="{}" data-columns="{}" data-width="{}" data-periods="{}"').format(
        axis.step, axis.columns, axis.width, json.dumps(periods)
    )
