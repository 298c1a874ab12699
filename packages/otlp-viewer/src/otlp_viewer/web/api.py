"""The JSON of the HTTP API: wide events with Honeycomb's field names, and the form of Honeycomb's query results."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from otlp_viewer.messages import Log, Span
from otlp_viewer.model import TraceSummary
from otlp_viewer.query.types import Answer, Comparison
from otlp_viewer.web.wide import iso, log_json, span_json

Json = dict[str, Any]
PART = 64 * 1024


def summary_json(trace: TraceSummary) -> Json:
    found: Json = {
        "trace_id": trace.trace_id,
        "name": trace.name,
        "service": trace.service,
        "services": list(trace.services),
        "start": iso(trace.start_ns),
        "duration_ms": trace.duration_ms,
        "span_count": trace.span_count,
        "error": trace.error,
        "complete": trace.complete,
    }
    for name, value in (("route", trace.route), ("status", trace.status)):
        if value is not None:
            found[name] = value
    return found


def stream(summary: TraceSummary, spans: Iterator[Span], logs: Iterable[Log]) -> Iterator[str]:
    """Yield the JSON of a trace: its summary with its spans, in tree order, and its logs, by time.

    Few of them are in memory at a time.
    """
    yield json.dumps(summary_json(summary), ensure_ascii=False)[:-1] + ', "spans": ['
    yield from _parts(map(span_json, spans))
    yield '], "logs": ['
    yield from _parts(map(log_json, logs))
    yield "]}\n"


def _parts(encoded: Iterable[str]) -> Iterator[str]:
    """Yield the elements of a JSON array in parts of about PART characters."""
    separator, part, size = "", [], 0
    for one in encoded:
        part.append(one)
        size += len(one)
        if size > PART:
            yield separator + ", ".join(part)
            separator, part, size = ", ", [], 0
    if part:
        yield separator + ", ".join(part)


def answer_json(answer: Answer) -> Json:
    """Return Honeycomb's form of a query's results, and under `query` the time it is about.

    `results` has one entry for each group; `series` one for each group and step of time in which it has events.
    A HEATMAP is in the series alone, as Honeycomb has it, there as a list of [from, to, count]; `heatmaps` has the
    borders between all of its rows.
    """
    query = answer.query
    names = [*query.breakdowns, *(one.name for one in query.values)]
    series: dict[tuple[Any, ...], Json] = {}
    for point in answer.series:
        data = dict(zip(names, point.key + point.values, strict=True))
        series[point.time, point.key] = data | {made.name: [] for made in answer.heatmaps}
    for made, heatmap in answer.heatmaps.items():
        for cell in heatmap.cells:
            edges = [heatmap.edges[cell.row], heatmap.edges[cell.row + 1], cell.count]
            series[cell.time, cell.key][made.name].append(edges)
    return {
        "query": {"start_time": query.start, "end_time": query.end, "granularity": query.granularity},
        "heatmaps": {made.name: list(heatmap.edges) for made, heatmap in answer.heatmaps.items()},
        "complete": True,
        "data": {
            "results": [{"data": dict(zip(names, one.key + one.values, strict=True))} for one in answer.groups],
            "series": [
                {"time": iso(round(time * 1_000_000) * 1000, whole=True), "data": data}
                for (time, _), data in series.items()
            ],
        },
    }


def comparison_json(comparison: Comparison) -> Json:
    return {
        "inside": comparison.inside,
        "outside": comparison.outside,
        "fields": [
            {
                "name": field.name,
                "values": [
                    {"value": one.value, "inside": one.inside, "outside": one.outside}
                    | ({"from": one.low, "to": one.high} if one.low is not None else {})
                    for one in field.values
                ],
            }
            for field in comparison.fields
        ],
    }
