"""Lays out a trace as a waterfall: tree order, clocks that differ, work that outlasts its parent, the critical path."""

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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
    waited: tuple[int, int] | None = None
    """From when to when the trace waits for the span or what it called; None where it never does."""


@dataclass(frozen=True, slots=True)
class Skew:
    """Spans of a service whose clock differs from their callers'."""

    service: str
    behind_ns: int
    """How far the clock is behind; negative when it is ahead."""


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
    return [Skew(name, round(statistics.median(each))) for name, each in found.items()]


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


def _find_critical_path(rows: Sequence[Row]) -> dict[str, int]:
    """Find from when to when the trace waits for each span; return for how long it waits for each service itself.

    Back from the end of the longest root: the child that ends last is what was waited for, then whatever ended last
    before that child began, and where no child runs it is the span itself.
    """
    roots = [number for number, row in enumerate(rows) if row.span.parent_id is None]
    if not roots:
        return {}
    below: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        below.setdefault(row.parent, []).append(number)
    root = max(roots, key=lambda number: rows[number].end_ns - rows[number].start_ns)
    waiting = [(root, rows[root].start_ns, rows[root].end_ns)]
    alone: dict[str, int] = {}
    while waiting:
        number, since, until = waiting.pop()
        row = rows[number]
        row.waited = since, until
        for child in sorted(below.get(number, ()), key=lambda number: rows[number].end_ns, reverse=True):
            began, ended = max(rows[child].start_ns, since), min(rows[child].end_ns, until)
            if ended > began:
                waiting.append((child, began, ended))
                alone[row.span.service] = alone.get(row.span.service, 0) + until - ended
                until = began
        alone[row.span.service] = alone.get(row.span.service, 0) + until - since
    return alone


def critical(rows: Sequence[Row], numbers: Iterable[int]) -> dict[int, list[tuple[int, int]]]:
    """Return from when to when the trace waits for rows themselves: for their spans, and for none of their children."""
    below: dict[int, list[tuple[int, int]]] = {number: [] for number in numbers}
    for row in rows:
        if row.waited and row.parent in below:
            below[row.parent].append(row.waited)
    found = {}
    for number, windows in below.items():
        waited = rows[number].waited
        borders = [waited[0], *itertools.chain(*sorted(windows)), waited[1]] if waited else []
        found[number] = [(at, to) for at, to in zip(borders[::2], borders[1::2], strict=True) if to > at]
    return found


def about(span: SpanOutline) -> str:
    """Return what a span was about, besides its name: the address, or a message."""
    return span.url or ("" if span.route else span.path) or ""


def outline(
    chart: Waterfall, keys: Sequence[str], slots: Mapping[str, int], log_marks: Mapping[str, tuple[int, int]]
) -> dict[str, object]:
    """Return the waterfall for the page's script: lists with a value for each row, and what few rows have by row.

    Times are in nanoseconds. `start` and `row` are differences from the row before, which makes them short. `waited` is
    1 for a span that the trace waits for as long as it lasts; `partly` has from when and how long for the others.
    `keys` address the rows' spans; `slots` are the services' colors, `log_marks` the
    number of logs and their highest severity number by span id.
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
        text.append(texts.setdefault(about(span)[:200], len(texts)))
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
            events[number] = [at + shift for at in span.event_times_ns[:50]]
        if span.span_id in log_marks:
            logs[number] = log_marks[span.span_id]
    return {
        "names": [one[:200] for one in names],
        "texts": list(texts),
        "services": [[one[:100], slots[one]] for one in services],
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
    """Return what addresses each row's span: its id, and for the second and later of one id the store's row too."""
    seen: set[str] = set()
    found = []
    for row in rows:
        known = row.span.span_id in seen
        seen.add(row.span.span_id)
        found.append(f"{row.span.span_id}.{row.span.row}" if known else row.span.span_id)
    return found
