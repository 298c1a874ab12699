"""What the pages share: the store and the services' colors, addresses with a query in them, and news by ETag."""

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

from otlp_viewer.query.types import Box, Calculation, Filter, Invalid, Query
from otlp_viewer.store import Store
from otlp_viewer.web import forms
from otlp_viewer.web.axis import Axis
from otlp_viewer.web.colors import Colors

Json = dict[str, Any]
RANGES = {60: "Last minute", 600: "Last 10 minutes", 3600: "Last hour", 7200: "Last 2 hours", 86400: "Last 24 hours"}
LONGEST_TEXT = 1000
TICK = 2
"""Seconds after which a page about a relative range is made again, though nothing came."""


MOST_RECENT = 16


@dataclass(frozen=True)
class Site:
    store: Store
    colors: Colors = field(default_factory=Colors)
    recent: dict[tuple[object, ...], Any] = field(default_factory=dict)
    """Answers about the last few traces, by question, trace and version of the store."""

    def remember(self, key: tuple[object, ...], answer: Any) -> None:
        while len(self.recent) >= MOST_RECENT:
            self.recent.pop(next(iter(self.recent), ()), None)
        self.recent[key] = answer


def unless_same(site: Site, make: Callable[[], str], moving: bool = False) -> Response:
    """Answer 304 while there is nothing new, so that looking for news costs nothing.

    What a page about a relative range holds changes with the clock too: `moving`.
    """
    response = make_response("")
    response.set_etag("-".join(map(str, (*site.store.version, int(time.time() / TICK) if moving else ""))))
    response.headers["Cache-Control"] = "no-cache"
    if request.headers.get("X-Live") and request.if_none_match.contains(response.get_etag()[0] or ""):
        return response.make_conditional(request)
    response.set_data(make())
    return response


def parameter(name: str) -> str:
    return request.args.get(name, "")[:LONGEST_TEXT]


def nanoseconds(seconds: float | None) -> int:
    """Return a time of a parameter as a filter has it, 0 for none."""
    return 0 if seconds is None else round(min(max(seconds, 0.0), 9e9) * 1e9)


def whole(text: str, least: int, most: int) -> int:
    """Return the whole number of a parameter within its bounds; `least` where it is none."""
    return min(max(int(text), least), most) if re.fullmatch("[0-9]{1,9}", text) else least


# A query in an address


def read_query(text: str) -> Json:
    """Return the query of an address; raises Invalid."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("The query in the address is not JSON.") from None
    if not isinstance(found, dict):
        raise Invalid("The query in the address must be a JSON object.")
    return found


def to_text(query: Mapping[str, Any] | list[Json]) -> str:
    """Return a query as short JSON that any encoding can carry."""
    text = json.dumps(query, ensure_ascii=False, separators=(",", ":"))
    return text if text.isprintable() else json.dumps(query, separators=(",", ":"))


def read_box(text: str) -> Box | None:
    """Return the box of an address: start, end, low and high, joined by commas, and the column."""
    parts = text.split(",", 4)
    try:
        start, end, low, high = (float(part) for part in parts[:4])
        return Box(parts[4], start, end, low, high) if all(map(math.isfinite, (start, end, low, high))) else None
    except (ValueError, IndexError):
        return None


def box_text(box: Box) -> str:
    return f"{box.start:.6f},{box.end:.6f},{box.low!r},{box.high!r},{box.column}"


def is_relative(query: Mapping[str, Any]) -> bool:
    """Whether the time that a query is about moves with the clock."""
    return query.get("time_range") is not None and query.get("start_time") is None and query.get("end_time") is None


def is_moving() -> bool:
    """Whether what this list is about moves with the clock."""
    return bool(request.args.get("range")) or is_relative(from_query(request.args.get("query", "")))


def timed(store: Store, specification: Json, now: float | None = None, **more: Any) -> Query:
    """Read a query; without a time of its own it is about all that is in memory. Raises Invalid."""
    if any(specification.get(name) is not None for name in forms.TIMES):
        return store.parse(specification, now, **more)
    # Without a time a granularity has nothing to be checked against.
    query = store.parse({name: value for name, value in specification.items() if name != "granularity"}, now, **more)
    first, last = store.extent(query) or (time.time() - 1, time.time())
    query = replace(query, start=float(math.floor(first)), end=float(math.floor(last) + 1))
    step = specification.get("granularity")
    if isinstance(step, int) and not isinstance(step, bool) and step > 0:
        query = replace(query, granularity=float(max(step, (query.end - query.start) / 10_000)))
    return query


def activity(store: Store, query: Query) -> list[int]:
    """Return the whole seconds in which there are events that a query is about, ascending."""
    counted = replace(
        query, calculations=[Calculation("COUNT")], breakdowns=[], orders=[], havings=[], limit=1, granularity=1.0
    )
    return sorted({math.floor(point.time + 1e-6) for point in store.query(counted).series})


def only_filters(query: Mapping[str, Any]) -> Json:
    """Return the part of a query that says which events it is about."""
    wanted = ("filters", "filter_combination", *forms.TIMES)
    return {name: query[name] for name in wanted if query.get(name) is not None}


def is_any(query: Mapping[str, Any]) -> bool:
    """Whether one of several filters is enough: then no filter can be added that must hold."""
    given = query.get("filters")
    return query.get("filter_combination") == "OR" and isinstance(given, list) and len(given) > 1


def wanting(pairs: Iterable[tuple[str, Any]]) -> list[Json]:
    """Return a filter for each field and its value; None: the field is missing."""
    return [
        {"column": column, "op": "does-not-exist"} if value is None else {"column": column, "op": "=", "value": value}
        for column, value in pairs
    ]


def narrowed(query: Mapping[str, Any], narrowing: Iterable[Json]) -> Json:
    """Return the query with more filters, all of which must hold; not for one of which any is enough."""
    given = query.get("filters")
    filters = [*(given if isinstance(given, list) else ()), *narrowing]
    unique = list({json.dumps(one, sort_keys=True): one for one in filters}.values())
    rest = {name: value for name, value in query.items() if name != "filter_combination"}
    return rest | ({"filters": unique} if unique else {})


def read_also(store: Store, signal: str = "spans") -> tuple[list[Filter], list[Json]]:
    """Return the filters in an address that must hold besides those of its query; raises Invalid."""
    text = request.args.get("also", "")
    given = read_query(f'{{"filters":{text}}}')["filters"] if text else []
    return list(store.parse({"filters": given}, signal=signal).filters), given


# Addresses


def query_url(query: Mapping[str, Any], **more: str) -> str:
    return url_for("pages.query") + "?" + urlencode({"query": to_text(query)} | more)


def traces_url(query: Mapping[str, Any], also: Iterable[Json] = (), **more: str) -> str:
    """Return the address of the traces with a span that the query, and all of the filters `also`, are about."""
    return url_for("pages.traces") + "?" + urlencode(_about(query, also) | more)


def logs_url(query: Mapping[str, Any], also: Iterable[Json] = ()) -> str:
    """Return the address of the logs that the query, and all of the filters `also`, are about."""
    return url_for("pages.logs") + "?" + urlencode(_about(query, also))


def _about(query: Mapping[str, Any], also: Iterable[Json]) -> dict[str, str]:
    about, more = only_filters(query), list(also)
    if more and not is_any(about):
        about, more = narrowed(about, more), []
    return ({"query": to_text(about)} if about else {}) | ({"also": to_text(more)} if more else {})


def here(**changes: Any) -> str:
    """Return the address of this page with other parameters; None takes one away."""
    given = request.args.to_dict() | changes
    present = {name: str(value) for name, value in given.items() if value not in (None, "")}
    return request.path + ("?" + urlencode(present) if present else "")


def from_query(text: str) -> Json:
    """Return the query of an address for a link, {} where it is none."""
    try:
        return read_query(text)
    except Invalid:
        return {}


def without(query: Mapping[str, Any], *names: str) -> Json:
    return {name: value for name, value in query.items() if name not in names}


def narrowed_by(query: Mapping[str, Any], filters: Mapping[str, Any]) -> Json:
    """Return the query about the events that other filters want."""
    return without(query, "filters", "filter_combination") | {
        name: filters[name] for name in ("filters", "filter_combination") if name in filters
    }


def sentence(form: forms.Form) -> str:
    """Return what a query asks, in one line."""
    shows = ", ".join(f"{op}({column})" if column else op for op, column in form.calculations) or "COUNT"
    where = conditions(form)
    by = ", ".join(row[0] for row in form.breakdowns)
    return shows + (f" where {where}" if where else "") + (f" by {by}" if by else "")


def conditions(form: forms.Form) -> str:
    """Return the filters of a query in words."""
    return (" or " if form.any_filter else " and ").join(" ".join(filter(None, row)) for row in form.filters)


def about_text(also: list[Json]) -> str:
    """Return the filters of an address in words: those of its query, and all of `also`."""
    form = forms.form_of(from_query(request.args.get("query", "")), tuple(RANGES))
    first, more = conditions(form), conditions(forms.form_of({"filters": also}, ()))
    return f"({first}) and {more}" if first and more else first or more


def axis_data(axis: Axis) -> Markup:
    """Return a time axis as the attributes from which a chart's script knows times and places."""
    periods = [[period.start, period.first, period.columns, period.x] for period in axis.periods]
    return Markup('data-step="{}" data-columns="{}" data-width="{}" data-periods="{}"').format(
        axis.step, axis.columns, axis.width, json.dumps(periods)
    )
