"""Finds how the records in a box on a heatmap differ from the others."""

# ruff: noqa: S608 - statements contain only generated names; user input is bound.

from typing import TYPE_CHECKING, Any

from otlp_viewer.query.answer import in_box
from otlp_viewer.query.compile import NUMBERS, Compiled
from otlp_viewer.query.parse import known_column
from otlp_viewer.query.types import Box, Comparison, FieldComparison, Query, Share
from otlp_viewer.values import from_text

if TYPE_CHECKING:
    from otlp_viewer.store.snapshot import Snapshot

IDS = ("trace.trace_id", "trace.span_id", "trace.parent_id")
MAX_RANGES = 12
MAX_FIELDS = 12
MAX_VALUES = 5
MIN_DIFFERENCE = 0.05
COUNTS = "count(*) FILTER (inside) AS a, count(*) FILTER (NOT inside) AS b"


def compare(snapshot: "Snapshot", query: Query, box: Box) -> Comparison:
    """Return which values are more or less frequent in the box than in the other records of the query.

    Fields whose values are all different are left out, because they identify records. Numeric fields with more than
    MAX_RANGES values are compared in five ranges. Raises TooExpensive.
    """
    known_column(box.column, snapshot.columns)
    sql = Compiled(snapshot, query)
    _, inside = in_box(sql, box)
    names = [name for name in snapshot.columns if name not in (*IDS, box.column)]
    fields = {number: sql.text(name) for number, name in enumerate(names) if name in snapshot.fields}
    inside = f"coalesce({inside}, false) AS inside"
    source = f"FROM ({sql.source(('attributes', 'origin'))}) WHERE {sql.where}"
    snapshot.rows(
        f"CREATE TEMP TABLE selected AS SELECT {inside}, origin, {', '.join(fields.values())} {source}", sql.parameters
    )
    total, within = snapshot.rows("SELECT count(*), count(*) FILTER (inside) FROM selected")[0]
    if not within or within == total:
        return Comparison(within, total - within, [])
    _count(snapshot, names, fields, f"SELECT {inside}, attributes {source}", sql.parameters)
    parameters = {"inside": within, "outside": total - within, "most": MAX_VALUES}
    difference = "abs(a / $inside - b / $outside)"
    stats = snapshot.rows(
        f"SELECT field, count(*), sum(a), sum(b), arg_max([value, a::VARCHAR, b::VARCHAR], {difference}, {MAX_VALUES})"
        " FROM counted GROUP BY field",
        parameters,
    )
    ranges = _ranges(
        snapshot,
        [field for field, values, *_ in stats if values > MAX_RANGES and snapshot.columns[names[field]] <= NUMBERS],
    )
    compared = []
    for field, values, a, b, top in stats:
        if values == a + b > MAX_RANGES:
            continue
        types = snapshot.columns[names[field]]
        shares = [Share(None, (within - a) / within, (total - within - b) / (total - within))]
        if field in ranges:
            counts = [(None, *counts_of_range) for counts_of_range in ranges[field]]
        else:
            counts = [(from_text(value, types), int(a), int(b), None, None) for value, a, b in top]
        shares += [Share(value, a / within, b / (total - within), low, high) for value, a, b, low, high in counts]
        shares = [share for share in shares if share.inside or share.outside]
        shares.sort(key=lambda share: (-abs(share.inside - share.outside), share.value is None, str(share.value)))
        compared.append(FieldComparison(names[field], shares[:MAX_VALUES]))
    compared = [field for field in compared if _difference(field) >= MIN_DIFFERENCE]
    compared.sort(key=lambda field: (-_difference(field), field.name))
    return Comparison(within, total - within, compared[:MAX_FIELDS])


def _difference(field: FieldComparison) -> float:
    return abs(field.values[0].inside - field.values[0].outside)


def _count(
    snapshot: "Snapshot", names: list[str], fields: dict[int, str], attributes: str, parameters: dict[str, Any]
) -> None:
    """Create the table `counted`: how often each value of each field occurs inside and outside the box.

    `attributes` is a query for the attributes of all records, with its parameters. Copying them would be slow.
    """
    numbers = [(number, field) for field, name in enumerate(names) for number in snapshot.numbers(name)]
    origins = f"SELECT origin, {COUNTS} FROM selected GROUP BY origin"
    counted = [
        f"SELECT {field}, {column}::VARCHAR, {COUNTS} FROM selected WHERE {column} IS NOT NULL GROUP BY {column}"
        for field, column in fields.items()
    ]
    snapshot.rows(
        f"""
        CREATE TEMP TABLE counted AS
        WITH named AS (SELECT unnest($numbers::INTEGER[]) AS number, unnest($fields::INTEGER[]) AS field),
        own AS (
            SELECT pair.key AS number, pair.value AS value, {COUNTS}
            FROM (SELECT inside, unnest(map_entries(attributes)) AS pair FROM ({attributes})) GROUP BY ALL
        ),
        shared AS (
            SELECT pair.key AS number, pair.value AS value, a, b FROM (
                SELECT a, b, unnest(map_entries(attributes)) AS pair
                FROM ({origins}) JOIN stored.{snapshot.signal}_origins ON number = origin
            )
        ),
        all_values AS (
            SELECT field, value, a, b FROM own JOIN named USING (number)
            UNION ALL SELECT field, value, a, b FROM shared JOIN named USING (number)
            {"".join(f" UNION ALL {part}" for part in counted)}
        )
        SELECT field, value, sum(a)::BIGINT AS a, sum(b)::BIGINT AS b FROM all_values GROUP BY field, value
        """,
        parameters | {"numbers": [number for number, _ in numbers], "fields": [field for _, field in numbers]},
    )


def _ranges(snapshot: "Snapshot", fields: list[int]) -> dict[int, list[tuple[Any, ...]]]:
    """Split each field into five ranges of about equally many records: inside, outside, lowest and highest value."""
    ranges: dict[int, list[tuple[Any, ...]]] = {}
    if fields:
        for field, _, *counts in snapshot.rows(
            """
            WITH numbers AS (
                SELECT field, value::DOUBLE AS value, a, b FROM counted
                WHERE field IN (SELECT unnest($fields::INTEGER[]))
            ),
            ranked AS (
                SELECT *, sum(a + b) OVER (PARTITION BY field ORDER BY value) - (a + b) AS below,
                    sum(a + b) OVER (PARTITION BY field) AS total FROM numbers
            )
            SELECT field, least(floor(5 * below / total), 4) AS range,
                sum(a)::BIGINT, sum(b)::BIGINT, min(value), max(value)
            FROM ranked GROUP BY field, range ORDER BY field, range
            """,
            {"fields": fields},
        ):
            ranges.setdefault(field, []).append(tuple(counts))
    return ranges
