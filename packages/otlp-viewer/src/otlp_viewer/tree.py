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
    def start_ns(self) -> int: ...


S = TypeVar("S", bound=Placed)


@dataclass(frozen=True, slots=True)
class Node(Generic[S]):
    span: S
    depth: int
    last: bool
    """No sibling follows."""
    note: str
    """Why it stands at the top though it has a parent."""


def walk(spans: Iterable[S]) -> Iterator[Node[S]]:
    """Yield every span once, parents before children, siblings by start time, roots first.

    Spans whose parent is not among them follow the roots, then those whose parents form a circle. Of several spans
    with one id the first has the children.
    """
    by_start = sorted(spans, key=lambda span: span.start_ns)
    ids = {span.span_id for span in by_start}
    children: dict[str, list[S]] = {}
    roots: list[Node[S]] = []
    orphans: list[Node[S]] = []
    for span in by_start:
        if span.parent_id is None:
            roots.append(Node(span, 0, True, ""))
        elif span.parent_id in ids:
            children.setdefault(span.parent_id, []).append(span)
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
            below = children.pop(node.span.span_id, [])
            stack.extend(Node(child, node.depth + 1, child is below[-1], "") for child in reversed(below))
