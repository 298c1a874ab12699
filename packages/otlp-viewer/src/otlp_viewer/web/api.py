"""The JSON of the HTTP API: wide events with Honeycomb's field names, and Honeycomb's format of query results."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from otlp_viewer.messages import Log, Span
from otlp_viewer.model import TraceSummary
from otlp_viewer.query.types import Answer, Comparison
from otlp_viewer.web.wide import iso, log_json, span_json

Json = dict[str, Any]
CHUNK_SIZE = 256 * 1024  # characters


def summary_json(trace: TraceSummary) -> Json:
    result: Json = {
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
            result[name] = value
    return result


def stream(summary: TraceSummary, spans: Iterator[Span], logs: Iterable[Log]) -> Iterator[str]:
    """Yield the JSON of a trace: its summary, its spans in tree order, and its logs by time.

    Holds only a few of them in memory.
    """
    yield json.dumps(summary_json(summary), ensure_ascii=False)[:-1] + ', "spans": ['
    yield from _chunks(map(span_json, spans))
    yield '], "logs": ['
    yield from _chunks(map(log_json, logs))
    yield "]}\n"


def _chunks(elements: Iterable[str]) -> Iterator[str]:
    """Join the encoded elements of a JSON array, and yield them in chunks of about CHUNK_SIZE."""
    separator, chunk, size = "", [], 0
    for element in elements:
        chunk.append(element)
        size += len(element)
        if size > CHUNK_SIZE:
            yield separator + ", ".join(chunk)
            separator, chunk, size = ", ", [], 0
    if chunk:
        yield separator + ", ".join(chunk)


def answer_json(answer: Answer) -> Json:
    """Return the results of a query in Honeycomb's format, and its time range under `query`.

    `results` has an entry for each group, `series` one for each group and time step with events. As in Honeycomb, a
    HEATMAP is only in the series, as a list of [from, to, count]. `heatmaps` has the edges of all of its rows.
    """
    query = answer.query
    names = [*query.breakdowns, *(calculation.name for calculation in query.values)]
    series: dict[tuple[Any, ...], Json] = {}
    for point in answer.series:
        data = dict(zip(names, point.key + point.values, strict=True))
        series[point.time, point.key] = data | {calculation.name: [] for calculation in answer.heatmaps}
    for calculation, heatmap in answer.heatmaps.items():
        for cell in heatmap.cells:
            edges = [heatmap.edges[cell.row], heatmap.edges[cell.row + 1], cell.count]
            series[cell.time, cell.key][calculation.name].append(edges)
    return {
        "query": {"start_time": query.start, "end_time": query.end, "granularity": query.granularity},
        "heatmaps": {calculation.name: list(heatmap.edges) for calculation, heatmap in answer.heatmaps.items()},
        "complete": True,
        "data": {
            "results": [{"data": dict(zip(names, group.key + group.values, strict=True))} for group in answer.groups],
            "series": [
                {"time": iso(round(time * 1_000_000) * 1000, short=True), "data": data}
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
                    {"value": value.value, "inside": value.inside, "outside": value.outside}
                    | ({"from": value.low, "to": value.high} if value.low is not None else {})
                    for value in field.values
                ],
            }
            for field in comparison.fields
        ],
    }
