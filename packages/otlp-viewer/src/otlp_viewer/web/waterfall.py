"""Lays out a trace as a waterfall: tree order, clock skew, spans that outlast their parents, the critical path."""

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from otlp_viewer import tree
from otlp_viewer.model import SpanOutline

SKEW_NS = 1_000_000
"""A child that starts more than this before its parent indicates clock skew."""
LATE_NS = 1_000_000
LATE_SHARE = 0.05
"""A child outlasts its parent if it ends later by more than LATE_NS and LATE_SHARE of the parent."""


@dataclass(slots=True)
class Row:
    """A span in its position."""

    span: SpanOutline
    depth: int
    parent: int
    """The row of the parent, or -1."""
    start_ns: int
    """Adjusted for clock skew."""
    end_ns: int
    note: str = ""
    waited: tuple[int, int] | None = None
    """When the trace waits for the span or its descendants, as start and end; None if never."""


@dataclass(frozen=True, slots=True)
class Skew:
    """The clock skew of a service compared with its callers."""

    service: str
    behind_ns: int
    """Positive if the clock is behind, negative if it is ahead."""


@dataclass(frozen=True, slots=True)
class Waterfall:
    rows: Sequence[Row]
    start_ns: int
    length_ns: int
    skews: Sequence[Skew]
    critical_ms: dict[str, float]
    """How long the trace waits for each service, in descending order."""
    roots: int
    root_ms: float
    """Duration of the root if there is only one, else of the trace."""


def lay_out(spans: Sequence[SpanOutline], aligned: bool = True) -> Waterfall:
    """Lay out the spans of a trace, at least one. If `aligned`, move spans with clock skew into their parents."""
    rows: list[Row] = []
    above: list[int] = []
    for node in tree.walk(spans):
        del above[node.depth :]
        span = node.span
        parent = above[-1] if above else -1
        start = span.start_ns
        rows.append(Row(span, node.depth, parent, start, start + round(span.duration_ms * 1e6), node.note))
        above.append(len(rows) - 1)
    skews = _align(rows, move=aligned)
    _remark(rows)
    waited = _find_critical_path(rows)
    start = min(row.start_ns for row in rows)
    length = max(max(row.end_ns for row in rows) - start, 1)
    roots = [row for row in rows if row.span.parent_id is None]
    return Waterfall(
        rows,
        start,
        length,
        skews,
        {name: waited[name] / 1e6 for name in sorted(waited, key=lambda name: -waited[name]) if waited[name]},
        len(roots),
        roots[0].span.duration_ms if len(roots) == 1 else length / 1e6,
    )


def _align(rows: Sequence[Row], move: bool) -> list[Skew]:
    """Center spans with clock skew in their parents; return the skew of each service."""
    shifts = [0] * len(rows)
    shifts_by_service: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if row.parent < 0:
            continue
        parent = rows[row.parent]
        shift = shifts[row.parent]
        if row.span.service != parent.span.service:
            start, end = parent.start_ns, parent.end_ns
            if not move:
                start, end = start + shift, end + shift
            call = row.span.kind == "server" and parent.span.kind == "client"
            shift = 0
            if row.span.start_ns < start - SKEW_NS or (call and row.span.start_ns > end + SKEW_NS):
                spare = end - start - (row.end_ns - row.start_ns)
                shift = start + max(spare, 0) // 2 - row.span.start_ns
        shifts[number] = shift
        if shift:
            shifts_by_service.setdefault(row.span.service, []).append(shift)
            if move:
                row.start_ns += shift
                row.end_ns += shift
    return [Skew(name, round(statistics.median(values))) for name, values in shifts_by_service.items()]


def _remark(rows: Sequence[Row]) -> None:
    """Add a note to spans that outlast their parents or start after them."""
    for row in rows:
        if row.parent < 0 or row.note:
            continue
        parent = rows[row.parent]
        late = max(LATE_NS, round((parent.end_ns - parent.start_ns) * LATE_SHARE))
        if row.start_ns > parent.end_ns + late:
            row.note = "starts after its parent"
        elif row.end_ns > parent.end_ns + late:
            row.note = "outlasts its parent"


def _find_critical_path(rows: Sequence[Row]) -> dict[str, int]:
    """Find when the trace waits for each span; return how long it waits for each service, without callees.

    Walks back from the end of the longest root. The trace waits for the child that ends last, then for the child that
    ends last before that one starts. Where no child runs, it waits for the span itself.
    """
    roots = [number for number, row in enumerate(rows) if row.span.parent_id is None]
    if not roots:
        return {}
    children: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        children.setdefault(row.parent, []).append(number)
    root = max(roots, key=lambda number: rows[number].end_ns - rows[number].start_ns)
    stack = [(root, rows[root].start_ns, rows[root].end_ns)]
    self_time: dict[str, int] = {}
    while stack:
        number, start, end = stack.pop()
        row = rows[number]
        row.waited = start, end
        for child in sorted(children.get(number, ()), key=lambda number: rows[number].end_ns, reverse=True):
            child_start, child_end = max(rows[child].start_ns, start), min(rows[child].end_ns, end)
            if child_end > child_start:
                stack.append((child, child_start, child_end))
                self_time[row.span.service] = self_time.get(row.span.service, 0) + end - child_end
                end = child_start
        self_time[row.span.service] = self_time.get(row.span.service, 0) + end - start
    return self_time


def critical(rows: Sequence[Row], numbers: Iterable[int]) -> dict[int, list[tuple[int, int]]]:
    """Return when the trace waits for the spans in these rows and for none of their children."""
    child_windows: dict[int, list[tuple[int, int]]] = {number: [] for number in numbers}
    for row in rows:
        if row.waited and row.parent in child_windows:
            child_windows[row.parent].append(row.waited)
    result = {}
    for number, windows in child_windows.items():
        waited = rows[number].waited
        edges = [waited[0], *itertools.chain(*sorted(windows)), waited[1]] if waited else []
        result[number] = [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]
    return result


def detail(span: SpanOutline) -> str:
    """Return the detail to show next to the name of a span: its URL or path."""
    return span.url or ("" if span.route else span.path) or ""


def outline(
    chart: Waterfall, keys: Sequence[str], slots: Mapping[str, int], log_marks: Mapping[str, tuple[int, int]]
) -> dict[str, object]:
    """Return the waterfall for the page's script: lists with a value for each row, and rare values by row.

    Times are in nanoseconds. `start` and `row` are differences from the previous row, to save space. `waited` is 1 if
    the trace waits for the whole span; `partly` has start and duration if it waits for a part. `keys` identify the
    rows' spans, `slots` are the colors of services, and `log_marks` has the number of logs and their highest severity
    number by span ID.
    """
    names: dict[str, int] = {}
    texts: dict[str, int] = {"": 0}
    services: dict[str, int] = {}
    name, service, text, start, took, stored, waited = [], [], [], [], [], [], []
    partly: dict[int, tuple[int, int]] = {}
    notes: dict[int, str] = {}
    events: dict[int, list[int]] = {}
    logs: dict[int, tuple[int, int]] = {}
    before, before_row = chart.start_ns, 0
    for number, row in enumerate(chart.rows):
        span = row.span
        name.append(names.setdefault(span.name, len(names)))
        service.append(services.setdefault(span.service, len(services)))
        text.append(texts.setdefault(detail(span)[:200], len(texts)))
        start.append(row.start_ns - before)
        took.append(row.end_ns - row.start_ns)
        stored.append(span.row - before_row)
        before, before_row = row.start_ns, span.row
        waited.append(1 if row.waited == (row.start_ns, row.end_ns) else 0)
        if row.waited and not waited[-1]:
            partly[number] = row.waited[0] - chart.start_ns, row.waited[1] - row.waited[0]
        if row.note:
            notes[number] = row.note
        if span.event_times_ns:
            shift = row.start_ns - span.start_ns - chart.start_ns
            events[number] = [event_time + shift for event_time in span.event_times_ns[:50]]
        if span.span_id in log_marks:
            logs[number] = log_marks[span.span_id]
    return {
        "names": [name[:200] for name in names],
        "texts": list(texts),
        "services": [[name[:100], slots[name]] for name in services],
        "length": chart.length_ns,
        "key": keys,
        "row": stored,
        "name": name,
        "service": service,
        "text": text,
        "depth": [row.depth for row in chart.rows],
        "start": start,
        "took": took,
        "waited": waited,
        "partly": partly,
        "error": [number for number, row in enumerate(chart.rows) if row.span.error],
        "notes": notes,
        "events": events,
        "logs": logs,
    }


def keys(rows: Sequence[Row]) -> list[str]:
    """Return a key for each row's span: its ID, with the store's row appended if an earlier span has the same ID."""
    first: dict[str, SpanOutline] = {}
    for row in rows:
        span = first.setdefault(row.span.span_id, row.span)
        if (row.span.start_ns, row.span.row) < (span.start_ns, span.row):
            first[row.span.span_id] = row.span
    spans = [row.span for row in rows]
    return [span.span_id if first[span.span_id] is span else f"{span.span_id}.{span.row}" for span in spans]
