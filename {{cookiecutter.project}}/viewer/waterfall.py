"""Lays out a trace as a waterfall, and finds its critical path."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from viewer import tree
from viewer.otlp import Event

MOST_SPANS = 5_000
MOST_ROWS = 1_000
DEEPEST = 16


class Row(NamedTuple):
    span: Event
    depth: int
    deeper: int
    """How many levels below what is indented."""
    note: str
    offset_ms: float
    left: float
    width: float
    """Percent of the trace."""
    critical: list[tuple[float, float]]
    """Where the span is what the trace waits for: from and width, in percent of the trace."""


class Waterfall(NamedTuple):
    rows: list[Row]
    length_ms: float
    ticks: list[tuple[float, float]]
    """Percent, and milliseconds since the start."""
    critical_ms: dict[str, float]
    """How long the trace waits for each service."""


def lay_out(spans: Sequence[Event]) -> Waterfall:
    """Lay out spans as `Store.outline` has them, one or more."""
    start = min(span["start_us"] for span in spans)
    end = max(span["start_us"] + span["duration"] * 1000 for span in spans)
    length = max(end - start, 1)
    wide = [
        {
            "time": f"{span['start_us']:020}",
            "trace.span_id": span["span"],
            "row": number,
            **({"trace.parent_id": span["parent"]} if span["parent"] is not None else {}),
        }
        for number, span in enumerate(spans)
    ]
    paths = critical_path(spans)
    rows: list[Row] = []
    by_service: dict[str, float] = {}
    for span, path in zip(spans, paths, strict=True):
        waited = sum(to - at for at, to in path) / 1000
        if waited:
            by_service[span["service"]] = by_service.get(span["service"], 0) + waited
    for node in tree.walk(wide):
        if len(rows) == MOST_ROWS:
            break
        span = spans[node.span["row"]]
        rows.append(
            Row(
                span,
                min(node.depth, DEEPEST),
                max(node.depth - DEEPEST, 0),
                node.note,
                (span["start_us"] - start) / 1000,
                round((span["start_us"] - start) / length * 100, 3),
                round(span["duration"] * 1000 / length * 100, 3),
                [
                    (round((at - start) / length * 100, 3), round((to - at) / length * 100, 3))
                    for at, to in paths[node.span["row"]]
                ],
            )
        )
    ticks = [(quarter * 25.0, length / 1000 * quarter / 4) for quarter in range(5)]
    return Waterfall(rows, length / 1000, ticks, by_service)


def critical_path(spans: Sequence[Event]) -> list[list[tuple[float, float]]]:
    """Return, for each span, from when to when (microseconds) it was what its trace waited for.

    Back from the end of the first root: the child that ends last is what was waited for, then whatever ended last
    before that child began, and where no child runs it is the span itself.
    """
    paths: list[list[tuple[float, float]]] = [[] for _ in spans]
    numbers = {span["span"]: number for number, span in enumerate(spans)}
    children: dict[int, list[int]] = {}
    root: int | None = None
    for number, span in enumerate(spans):
        parent = span["parent"]
        if parent is None:
            root = number if root is None else root
        elif parent in numbers:
            children.setdefault(numbers[parent], []).append(number)
    if root is None:
        return paths

    def end(number: int) -> float:
        return float(spans[number]["start_us"] + spans[number]["duration"] * 1000)

    waiting = [(root, float(spans[root]["start_us"]), end(root))]
    seen = {root}
    while waiting:
        number, since, until = waiting.pop()
        for child in sorted(children.get(number, ()), key=end, reverse=True):
            began, ended = max(float(spans[child]["start_us"]), since), min(end(child), until)
            if child in seen or ended <= began:
                continue
            seen.add(child)
            if until > ended:
                paths[number].append((ended, until))
            waiting.append((child, began, ended))
            until = began
        if until > since:
            paths[number].append((since, until))
    return paths


def services(names: Sequence[str]) -> dict[str, int]:
    """Return the number of each service's colour, from 0 to 7, the same as long as the same services are there."""
    return {name: number % 8 for number, name in enumerate(sorted(set(names)))}


def address(span: Event) -> str:
    """Return what the span was about, besides its name."""
    found: Any = span["url"] or ("" if span["route"] else span["path"])
    return str(found or "")
