"""The JSON of the HTTP API: wide events with Honeycomb's field names, and the form of Honeycomb's query results."""

import json
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from otlp_viewer.model import LOG_FIELDS, SPAN_FIELDS, Log, Span, TraceSummary, column_name
from otlp_viewer.query.types import Answer, Comparison

Json = dict[str, Any]
PART = 64 * 1024


def span_json(span: Span) -> Json:
    """Return a span's fields, and beside them its own attributes and those of its scope and resource.

    An attribute that has the name of a field is called attributes.<name>.
    """
    fields: Json = {
        "time": iso(span.start_ns),
        "name": span.name,
        "duration_ms": span.duration_ms,
        "trace.trace_id": span.trace_id,
        "trace.span_id": span.span_id,
        "span.kind": span.kind,
        "status_code": span.status_code,
        "error": span.error,
        "events": [
            {"name": one.name, "time": iso(one.time_ns), "attributes": one.attributes}
            | _dropped(attributes=one.dropped_attributes)
            for one in span.events
        ],
        "links": [
            {"trace_id": one.trace_id, "span_id": one.span_id, "attributes": one.attributes}
            | ({"trace_state": one.trace_state} if one.trace_state else {})
            | _dropped(attributes=one.dropped_attributes)
            for one in span.links
        ],
    }
    fields |= _dropped(attributes=span.dropped_attributes, events=span.dropped_events, links=span.dropped_links)
    for name, value in (
        ("trace.parent_id", span.parent_id),
        ("status_message", span.status_message),
        ("trace_state", span.trace_state),
    ):
        if value:
            fields[name] = value
    return _wide(fields, span, SPAN_FIELDS)


def log_json(log: Log) -> Json:
    """Return a log record's fields and attributes, as `span_json` does."""
    fields: Json = {
        "time": iso(log.time_ns),
        "severity_text": log.severity_text,
        "severity_number": log.severity_number,
        "body": log.body,
    }
    for name, value in (
        ("event.name", log.event_name),
        ("trace.trace_id", log.trace_id),
        ("trace.span_id", log.span_id),
    ):
        if value:
            fields[name] = value
    return _wide(fields | _dropped(attributes=log.dropped_attributes), log, LOG_FIELDS)


def _dropped(**counts: int) -> Json:
    """Return how much the sender itself left out, where it did."""
    return {f"dropped_{what}_count": count for what, count in counts.items() if count}


def _wide(fields: Json, one: Span | Log, reserved: Collection[str]) -> Json:
    """Return the fields with all attributes beside them: own ones go before the scope's, the scope's before others."""
    fields |= {"service.name": one.service, "library.name": one.scope.name, "library.version": one.scope.version}
    beside = {**one.resource, **one.scope.attributes, **one.attributes}
    if "service.name" not in one.scope.attributes and "service.name" not in one.attributes:
        beside.pop("service.name", None)  # it is a field
    names = {*reserved, *fields}
    for name in [name for name in beside if name in names]:
        beside[column_name(name, names)] = beside.pop(name)
    return fields | beside


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
    encoded = json.JSONEncoder(ensure_ascii=False).encode
    yield encoded(summary_json(summary))[:-1] + ', "spans": ['
    yield from _parts(map(encoded, map(span_json, spans)))
    yield '], "logs": ['
    yield from _parts(map(encoded, map(log_json, logs)))
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


def iso(nanoseconds: int, whole: bool = False) -> str:
    """Return a time as ISO 8601 in UTC, with microseconds (with `whole`, only where there are any)."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    text = _second(seconds)
    return text + ("Z" if whole and not rest else f".{rest // 1000:06}Z")


@lru_cache(1024)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
