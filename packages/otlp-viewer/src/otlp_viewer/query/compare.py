"""Finds what sets the events in a box on a heatmap apart."""

# ruff: noqa: S608 - statements are made of our own names; whatever was sent is bound.

from typing import TYPE_CHECKING

import duckdb

from otlp_viewer.query.compile import Compiled
from otlp_viewer.query.parse import known_column, typed
from otlp_viewer.query.types import Box, Comparison, FieldComparison, Invalid, Query, Share

if TYPE_CHECKING:
    from otlp_viewer.store.events import Snapshot

IDS = ("trace.trace_id", "trace.span_id", "trace.parent_id")
MOST_RANGES = 12
MOST_FIELDS = 12


def compare(snapshot: "Snapshot", query: Query, box: Box) -> Comparison:
    """Return which values are more, or less, frequent in the box than in the rest of what the query is about.

    Raises Invalid when it needs more memory than there is.
    """
    known_column(box.column, snapshot.columns)
    sql = Compiled(snapshot, query)
    names = [name for name in sql.types if name not in (*IDS, box.column)]
    numeric = {name: sql.number(name) for name in names if sql.types[name] in ("integer", "float")}
    texts = {name: sql.text(name) for name in names}
    value = sql.number(box.column)
    inside = f"({value} >= ? AND {value} < ? AND epoch_us(time) >= ? AND epoch_us(time) < ?)"
    parts = "".join(f", {numeric.get(name, texts[name])} AS v{number}" for number, name in enumerate(names))
    rows = f"(SELECT coalesce({inside}, false) AS inside{parts} FROM {sql.source()} WHERE {sql.where})"
    parameters = [box.low, box.high, box.start * 1e6, box.end * 1e6, *sql.parameters]
    try:
        snapshot.rows(f"CREATE OR REPLACE TEMP TABLE compared AS SELECT * FROM {rows}", parameters)
        counts = "".join(f", count(v{n}), count(DISTINCT v{n})" for n in range(len(names)))
        total, within, *each = snapshot.rows(f"SELECT count(*), count(*) FILTER (inside){counts} FROM compared")[0]
        fields = []
        for number, name in enumerate(names):
            filled, distinct = each[2 * number : 2 * number + 2]
            if not within or within == total or distinct == 0 or (distinct == filled > MOST_RANGES):
                continue  # nothing to compare, or an id: it says which event, not which kind of event
            ranges = distinct > MOST_RANGES and name in numeric
            shares = _compared(snapshot, number, sql.types[name], ranges, within, total - within)
            fields.append(FieldComparison(name, shares))
    except duckdb.OutOfMemoryException:
        raise Invalid("this comparison needs too much memory: narrow the time range") from None
    finally:
        snapshot.rows("DROP TABLE IF EXISTS compared")
    fields = [field for field in fields if field.values and _difference(field) >= 0.05]
    fields.sort(key=_difference, reverse=True)
    return Comparison(within, total - within, fields[:MOST_FIELDS])


def _difference(field: FieldComparison) -> float:
    return abs(field.values[0].inside - field.values[0].outside)


def _compared(snapshot: "Snapshot", number: int, type_: str, ranges: bool, inside: int, outside: int) -> list[Share]:
    value, lowest, highest = f"v{number}", "NULL", "NULL"
    if ranges:
        borders = snapshot.rows(f"SELECT quantile_cont(v{number}, [0.2, 0.4, 0.6, 0.8]) FROM compared")[0][0]
        borders = sorted(set(borders))
        steps = " ".join(f"WHEN v{number} < {border!r} THEN {row}" for row, border in enumerate(borders))
        value = f"CASE WHEN v{number} IS NULL THEN NULL {steps} ELSE {len(borders)} END"
        lowest, highest = f"min(v{number})", f"max(v{number})"
    rows = snapshot.rows(
        f"SELECT {value} AS value, {lowest}, {highest}, count(*) FILTER (inside) / ? AS a,"
        f" count(*) FILTER (NOT inside) / ? AS b"
        " FROM compared GROUP BY value ORDER BY abs(a - b) DESC, value NULLS LAST LIMIT 5",
        [inside, outside],
    )
    shares = []
    for found, low, high, a, b in rows:
        if ranges:
            shares.append(Share(None, a, b, low, high))
        else:
            whole = isinstance(found, float) and type_ == "integer"
            shares.append(Share(int(found) if whole else typed(found, type_), a, b))
    return shares
