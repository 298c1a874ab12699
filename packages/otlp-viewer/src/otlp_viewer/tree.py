"""Orders the spans of a trace as a tree."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Generic, Protocol, TypeVar


class TreeSpan(Protocol):
    """The properties of a span that determine its place in the tree."""

    @property
    def span_id(self) -> str: ...
    @property
    def parent_id(self) -> str | None: ...
    @property
    def service(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def start_ns(self) -> int: ...
    @property
    def duration_ms(self) -> float: ...


S = TypeVar("S", bound=TreeSpan)


@dataclass(slots=True)
class Node(Generic[S]):
    span: S
    depth: int
    last: bool
    """Whether it is the last child of its parent."""
    note: str
    """Why it is at the top although it has a parent; "" for other nodes."""


def walk(spans: Iterable[S]) -> Iterator[Node[S]]:
    """Yield every span once, parents before children, siblings by start time, roots first.

    Spans whose parent is missing follow the roots, then spans whose parents form a cycle.
    """
    by_start = sorted(spans, key=lambda span: span.start_ns)
    by_id: dict[str, list[S]] = {}
    for span in by_start:
        by_id.setdefault(span.span_id, []).append(span)
    children: dict[int, list[S]] = {}
    roots: list[Node[S]] = []
    orphans: list[Node[S]] = []
    for span in by_start:
        if span.parent_id is None:
            roots.append(Node(span, 0, True, ""))
        elif span.parent_id in by_id:
            children.setdefault(id(_parent(span, by_id[span.parent_id])), []).append(span)
        else:
            orphans.append(Node(span, 0, True, "parent not received"))

    seen: set[int] = set()
    cycles = (Node(span, 0, True, "its parents form a cycle") for span in by_start if id(span) not in seen)
    for top in chain(roots, orphans, cycles):
        stack = [top]
        while stack:
            node = stack.pop()
            if id(node.span) in seen:
                continue
            seen.add(id(node.span))
            yield node
            node_children = children.pop(id(node.span), [])
            stack.extend(
                Node(child, node.depth + 1, child is node_children[-1], "") for child in reversed(node_children)
            )


def _parent(child: S, candidates: list[S]) -> S:
    """Return the most likely parent among spans with the same ID.

    It runs when the child starts, belongs to the child's service, and is a server or consumer span.
    """
    if len(candidates) == 1:
        return candidates[0]

    def likelihood(span: S) -> tuple[bool, ...]:
        return (
            span is not child,
            span.start_ns <= child.start_ns <= span.start_ns + span.duration_ms * 1e6,
            span.service == child.service,
            span.kind in ("server", "consumer"),
            span.start_ns <= child.start_ns,
        )

    return max(reversed(candidates), key=likelihood)


def has_cycle(spans: Iterable[tuple[str, str | None]]) -> bool:
    """Return whether the parents of any span form a cycle. Each span is a pair of its ID and its parent's ID."""
    ids: set[str] = set()
    children: dict[str | None, list[str]] = {}
    for span_id, parent_id in spans:
        ids.add(span_id)
        children.setdefault(parent_id, []).append(span_id)
    reached: set[str] = set()
    pending = [span_id for parent_id, span_ids in children.items() if parent_id not in ids for span_id in span_ids]
    while pending:
        span_id = pending.pop()
        if span_id not in reached:
            reached.add(span_id)
            pending += children.get(span_id, ())
    return len(reached) < len(ids)
