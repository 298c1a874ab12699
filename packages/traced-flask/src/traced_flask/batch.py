"""Joins, splits and counts encoded export requests."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping

from traced_flask.encoder import halves


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """An encoded export request with `count` items, made of `parts` if several were joined."""

    signal: str
    body: bytes = dataclasses.field(repr=False)
    count: int
    parts: tuple[Batch, ...] = dataclasses.field(default=(), repr=False)


def join(parts: tuple[Batch, ...]) -> Batch:
    """Join `parts` into one request: concatenated protobuf messages form one message with all items.

    https://protobuf.dev/programming-guides/encoding/#last-one-wins
    """
    if len(parts) == 1:
        return parts[0]
    body = b"".join(part.body for part in parts)
    return Batch(parts[0].signal, body, sum(part.count for part in parts), parts)


def split(batch: Batch) -> tuple[Batch, ...]:
    """Return the batches that form `batch`, or its halves; none if it cannot be split."""
    if batch.parts:
        return batch.parts
    with contextlib.suppress(Exception):
        return tuple(Batch(batch.signal, body, count) for body, count in halves(batch.signal, batch.body))
    return ()


def in_words(counts: Mapping[str, int]) -> str:
    """Format `{"traces": 3, "logs": 1}` as "3 spans and 1 log record"; "" if there is nothing."""
    nouns = {"traces": "span", "logs": "log record"}
    parts = [f"{n} {nouns.get(kind, 'item')}{'' if n == 1 else 's'}" for kind, n in counts.items() if n]
    return " and ".join(parts)
