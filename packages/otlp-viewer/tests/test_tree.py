"""Which span stands below which."""

from dataclasses import dataclass

import pytest
from otlp_viewer.tree import walk


@dataclass(frozen=True)
class One:
    span_id: str
    parent_id: str | None
    start_ns: int
    service: str = "shop"
    kind: str = "internal"
    duration_ms: float = 1.0


CLIENT = One("a", None, 0, "shop", "client", 10)
SERVER = One("a", None, 1_000_000, "stock", "server", 8)
FIRST = One("a", None, 0, "shop", "client", 2)
AGAIN = One("a", None, 5_000_000, "shop", "client", 2)


@pytest.mark.parametrize(
    ("both", "child", "parent"),
    [
        ((CLIENT, SERVER), One("b", "a", 2_000_000, "stock"), SERVER),
        ((CLIENT, SERVER), One("b", "a", 2_000_000, "shop"), CLIENT),
        ((CLIENT, SERVER), One("b", "a", 2_000_000, "other"), SERVER),
        ((FIRST, AGAIN), One("b", "a", 1_000_000), FIRST),
        ((FIRST, AGAIN), One("b", "a", 6_000_000), AGAIN),
    ],
)
def test_of_two_spans_with_the_same_id_the_matching_one_gets_the_child(
    both: tuple[One, One], child: One, parent: One
) -> None:
    order = [node.span for node in walk([*both, child])]
    assert len(order) == 3
    assert order[order.index(child) - 1] is parent


def test_a_span_that_is_its_own_parent_appears_once() -> None:
    (node,) = walk([One("a", "a", 0)])
    assert node.note == "its parents form a cycle"
