"""Lays out a trace as a waterfall: tree order, clocks that differ, work that outlasts its parent, the critical path."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from otlp_viewer import tree
from otlp_viewer.model import SpanOutline

SKEW_NS = 1_000_000
"""A child that starts this much before its parent was timed by another clock."""
LATE_NS = 1_000_000
LATE_SHARE = 0.05
"""A child that ends later than its parent by more than this, and this share of the parent, outlasts it."""


@dataclass(slots=True)
class Row:
    """A span in its place."""

    span: SpanOutline
    depth: int
    parent: int
    """The parent's row, -1 for none."""
    start_ns: int
    """Moved where its clock differs."""
    end_ns: int
    note: str = ""
    critical: list[tuple[int, int]] = field(default_factory=list)
    """Where the span is what the trace waits for: from and to, in nanoseconds since 1970."""
    moved: bool = False
    children: int = 0


@dataclass(frozen=True, slots=True)
class Skew:
    """Spans of a service whose clock differs from their callers'."""

    service: str
    behind_ns: int
    """How far the clock is behind; negative when it is ahead."""
    spans: int


@dataclass(frozen=True, slots=True)
class Waterfall:
    rows: Sequence[Row]
    start_ns: int
    length_ns: int
    skews: Sequence[Skew]
    critical_ms: dict[str, float]
    """How long the trace waits for each service, longest first."""
    roots: int
    root_ms: float
    """Of the only root, else of the whole."""


def lay_out(spans: Sequence[SpanOutline], aligned: bool = True) -> Waterfall:
    """Lay out the spans of a trace, one or more; `aligned` moves spans whose clock differs into their parents."""
    rows: list[Row] = []
    above: list[int] = []
    for node in tree.walk(spans):
        del above[node.depth :]
        span = node.span
        parent = above[-1] if above else -1
        start = span.start_ns
        rows.append(Row(span, node.depth, parent, start, start + round(span.duration_ms * 1e6), node.note))
        if parent >= 0:
            rows[parent].children += 1
        above.append(len(rows) - 1)
    skews = _align(rows, move=aligned)
    _remark(rows)
    _find_critical_path(rows)
    start = min(row.start_ns for row in rows)
    length = max(max(row.end_ns for row in rows) - start, 1)
    waited: dict[str, int] = {}
    for row in rows:
        for at, to in row.critical:
            waited[row.span.service] = waited.get(row.span.service, 0) + to - at
    roots = [row for row in rows if row.span.parent_id is None]
    return Waterfall(
        rows,
        start,
        length,
        skews,
        {name: waited[name] / 1e6 for name in sorted(waited, key=lambda name: -waited[name])},
        len(roots),
        roots[0].span.duration_ms if len(roots) == 1 else length / 1e6,
    )


def _align(rows: Sequence[Row], move: bool) -> list[Skew]:
    """Move the spans of other clocks to the middle of their parents, and say by how much."""
    shifts = [0] * len(rows)
    found: dict[str, list[int]] = {}
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
            found.setdefault(row.span.service, []).append(shift)
            if move:
                row.start_ns += shift
                row.end_ns += shift
                row.moved = True
    return [Skew(name, round(statistics.median(each)), len(each)) for name, each in found.items()]


def _remark(rows: Sequence[Row]) -> None:
    """Note what outlasts its parent, or starts after it."""
    for row in rows:
        if row.parent < 0 or row.note:
            continue
        parent = rows[row.parent]
        late = max(LATE_NS, round((parent.end_ns - parent.start_ns) * LATE_SHARE))
        if row.start_ns > parent.end_ns + late:
            row.note = "starts after its parent"
        elif row.end_ns > parent.end_ns + late:
            row.note = "outlasts its parent"


def _find_critical_path(rows: Sequence[Row]) -> None:
    """Find when each span was what its trace waited for.

    Back from the end of the longest root: the child that ends last is what was waited for, then whatever ended last
    before that child began, and where no child runs it is the span itself.
    """
    roots = [number for number, row in enumerate(rows) if row.span.parent_id is None]
    if not roots:
        return
    below: list[list[int]] = [[] for _ in rows]
    for number, row in enumerate(rows):
        if row.parent >= 0:
            below[row.parent].append(number)
    root = max(roots, key=lambda number: rows[number].end_ns - rows[number].start_ns)
    waiting = [(root, rows[root].start_ns, rows[root].end_ns)]
    while waiting:
        number, since, until = waiting.pop()
        for child in sorted(below[number], key=lambda number: rows[number].end_ns, reverse=True):
            began, ended = max(rows[child].start_ns, since), min(rows[child].end_ns, until)
            if ended <= began:
                continue
            if until > ended:
                rows[number].critical.append((ended, until))
            waiting.append((child, began, ended))
            until = began
        if until > since:
            rows[number].critical.append((since, until))


def about(span: SpanOutline) -> str:
    """Return what a span was about, besides its name: the address, or a message."""
    return span.url or ("" if span.route else span.path) or ""


def outline(
    chart: Waterfall, keys: Sequence[str], slots: Mapping[str, int], log_marks: Mapping[str, tuple[int, int]]
) -> dict[str, object]:
    """Return the waterfall for the page's script: columns with a value for each row, times in nanoseconds.

    `keys` address the rows' spans; `slots` are the services' colors, `log_marks` the
    number of logs and their highest severity number by span id.
    """
    names: dict[str, int] = {}
    texts: dict[str, int] = {"": 0}
    services: dict[str, int] = {}
    name, service, text, note, start, took = [], [], [], [], [], []
    critical: dict[int, list[int]] = {}
    events: dict[int, list[int]] = {}
    logs: dict[int, tuple[int, int]] = {}
    status: dict[int, object] = {}
    first = chart.start_ns
    for number, row in enumerate(chart.rows):
        span = row.span
        name.append(names.setdefault(span.name, len(names)))
        service.append(services.setdefault(span.service, len(services)))
        text.append(texts.setdefault(about(span)[:200], len(texts)))
        note.append(texts.setdefault(row.note, len(texts)))
        start.append(row.start_ns - first)
        took.append(row.end_ns - row.start_ns)
        if row.critical:
            critical[number] = [part for at, to in row.critical for part in (at - first, to - at)]
        if span.event_times_ns:
            shift = row.start_ns - span.start_ns
            events[number] = [at + shift - first for at in span.event_times_ns[:50]]
        if span.span_id in log_marks:
            logs[number] = log_marks[span.span_id]
        if span.status is not None:
            status[number] = span.status
    return {
        "names": [one[:200] for one in names],
        "texts": list(texts),
        "services": [[one[:100], slots[one]] for one in services],
        "length": chart.length_ns,
        "key": keys,
        "row": [row.span.row for row in chart.rows],
        "name": name,
        "service": service,
        "text": text,
        "note": note,
        "depth": [row.depth for row in chart.rows],
        "start": start,
        "took": took,
        "error": [number for number, row in enumerate(chart.rows) if row.span.error],
        "critical": critical,
        "events": events,
        "logs": logs,
        "status": status,
    }


def keys(rows: Sequence[Row]) -> list[str]:
    """Return what addresses each row's span: its id, and for the second and later of one id the store's row too."""
    seen: set[str] = set()
    found = []
    for row in rows:
        known = row.span.span_id in seen
        seen.add(row.span.span_id)
        found.append(f"{row.span.span_id}.{row.span.row}" if known else row.span.span_id)
    return found
