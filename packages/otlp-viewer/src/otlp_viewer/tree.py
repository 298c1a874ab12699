"""Puts the spans of a trace into tree order."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Placed(Protocol):
    """What a span needs in order to be put into a tree."""

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


S = TypeVar("S", bound=Placed)


@dataclass(slots=True)
class Node(Generic[S]):
    span: S
    depth: int
    last: bool
    """No sibling follows."""
    note: str
    """Why it stands at the top though it has a parent."""


def walk(spans: Iterable[S]) -> Iterator[Node[S]]:
    """Yield every span once, parents before children, siblings by start time, roots first.

    Spans whose parent is not among them follow the roots, then those whose parents form a circle.
    """
    by_start = sorted(spans, key=lambda span: span.start_ns)
    named: dict[str, list[S]] = {}
    for span in by_start:
        named.setdefault(span.span_id, []).append(span)
    children: dict[int, list[S]] = {}
    roots: list[Node[S]] = []
    orphans: list[Node[S]] = []
    for span in by_start:
        if span.parent_id is None:
            roots.append(Node(span, 0, True, ""))
        elif span.parent_id in named:
            children.setdefault(id(_parent(span, named[span.parent_id])), []).append(span)
        else:
            orphans.append(Node(span, 0, True, "parent not received"))
    circles = (Node(span, 0, True, "its parents form a circle") for span in by_start)

    seen: set[int] = set()
    for top in (*roots, *orphans, *circles):
        stack = [top]
        while stack:
            node = stack.pop()
            if id(node.span) in seen:
                continue
            seen.add(id(node.span))
            yield node
            below = children.pop(id(node.span), [])
            stack.extend(Node(child, node.depth + 1, child is below[-1], "") for child in reversed(below))


def _parent(child: S, found: list[S]) -> S:
    """Return which of the spans with one id is the parent: one that runs then, of its service, that serves a call."""
    if len(found) == 1:
        return found[0]

    def likely(one: S) -> tuple[bool, ...]:
        return (
            one is not child,
            one.start_ns <= child.start_ns <= one.start_ns + one.duration_ms * 1e6,
            one.service == child.service,
            one.kind in ("server", "consumer"),
            one.start_ns <= child.start_ns,
        )

    return max(reversed(found), key=likely)


def has_circle(spans: Iterable[tuple[str, str | None]]) -> bool:
    """Return whether the parents of any of these spans form a circle; a span is its id and its parent's."""
    ids: set[str] = set()
    children: dict[str | None, list[str]] = {}
    for span_id, parent_id in spans:
        ids.add(span_id)
        children.setdefault(parent_id, []).append(span_id)
    reached: set[str] = set()
    above = [span_id for parent_id, found in children.items() if parent_id not in ids for span_id in found]
    while above:
        span_id = above.pop()
        if span_id not in reached:
            reached.add(span_id)
            above += children.get(span_id, ())
    return len(reached) < len(ids)
