"""Spans of every kind, and the answers to queries about them, computed by hand."""

import json
import math
import random
from datetime import UTC, datetime
from typing import Any

from otlp_viewer.query.operators import OPPOSITES, PERCENTILES

NOON = 1_767_355_200  # 2026-01-02T12:00:00Z
ROUTES = ("/api/activities/home", "/api/activities/@<handle>", "/api/examples/slow")
LATENCY = {
    "calculations": [
        {"op": "HEATMAP", "column": "duration_ms"},
        {"op": "P90", "column": "duration_ms"},
        {"op": "MAX", "column": "duration_ms"},
    ],
    "breakdowns": ["http.route"],
    "filters": [{"column": "trace.parent_id", "op": "does-not-exist"}],
    "orders": [{"op": "P90", "column": "duration_ms", "order": "descending"}],
    "start_time": NOON,
    "time_range": 600,
}


def span(number: int, at: float = 0.0, **fields: Any) -> dict[str, Any]:
    """A span that starts `at` seconds after noon."""
    return {
        "time": datetime.fromtimestamp(NOON + at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "name": "GET",
        "duration_ms": 1.0,
        "trace.trace_id": f"{number // 4 + 1:032x}",
        "trace.span_id": f"{number + 1:016x}",
        "service.name": "backend",
        "error": False,
        "events": [],
    } | fields


def generated(count: int, seed: int) -> list[dict[str, Any]]:
    """Spans over ten minutes with fields of every type, some of them missing."""
    chance = random.Random(seed)
    spans = []
    for number in range(count):
        made = span(number, chance.randrange(600_000) / 1000, duration_ms=round(chance.lognormvariate(2, 1.5), 6))
        made["service.name"] = chance.choice(["backend", "profiles"])
        made["error"] = chance.random() < 0.1
        if number % 4:
            made["trace.parent_id"] = f"{number - number % 4 + 1:016x}"
        else:
            made["http.route"] = chance.choice(ROUTES)
            made["http.response.status_code"] = chance.choice([200, 200, 404, 500])
        for name, values in {
            "app.whole": [0, 1, -5, 2**53 + 1, 7],
            "app.broken": [0.5, -2.25, 1e9, 3, 0.1],
            "app.text": ["", "a", "b", "B", "ä'\"--", "%_", "null", "10"],
            "app.yes": [True, False],
            "app.mixed": [1, 2.5, "text", True, "nan"],
        }.items():
            if chance.random() < 0.7:
                made[name] = chance.choice(values)
        spans.append(made)
    return spans


def number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value) if math.isfinite(float(value)) else None
    except ValueError:
        return None


def text(value: Any) -> str:
    """Equal numbers have one text."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)


def percentile(values: list[float], fraction: float) -> float:
    ordered = sorted(values)
    position = fraction * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def calculated(op: str, column: str | None, spans: list[dict[str, Any]]) -> Any:
    if column is None:
        return len(spans)
    values = [made[column] for made in spans if made.get(column) is not None]
    if op == "COUNT_DISTINCT":
        return len({text(value) for value in values})
    numbers = [found for value in values if (found := number(value)) is not None]
    if not numbers:
        return None
    if op in PERCENTILES:
        return percentile(numbers, PERCENTILES[op])
    return {"SUM": math.fsum, "AVG": lambda n: math.fsum(n) / len(n), "MIN": min, "MAX": max}[op](numbers)


def wanted(one: dict[str, Any], made: dict[str, Any]) -> bool:
    op, value, mine = one["op"], one.get("value"), made.get(one["column"])
    for opposite, plain in OPPOSITES.items():
        if op == opposite:
            return not wanted({**one, "op": plain}, made)
    if op == "exists":
        return mine is not None
    if op == "in":
        return any(wanted({**one, "op": "=", "value": each}, made) for each in value)
    if mine is None:
        return False
    if op in ("contains", "starts-with", "ends-with"):
        mine = text(mine)
        return {"contains": value in mine, "starts-with": mine.startswith(value), "ends-with": mine.endswith(value)}[op]
    if isinstance(value, int | float) and not isinstance(value, bool):
        mine = mine if isinstance(mine, int) and not isinstance(mine, bool) else number(mine)
        if mine is None:
            return False
    else:
        mine, value = text(mine), text(value)
    return {
        "=": lambda: mine == value,
        ">": lambda: mine > value,
        ">=": lambda: mine >= value,
        "<": lambda: mine < value,
        "<=": lambda: mine <= value,
    }[op]()


def by_hand(specification: dict[str, Any], spans: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The results of a query without orders or limit, by the values of its breakdowns."""
    both = any if specification.get("filter_combination") == "OR" else all
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for made in spans:
        if not specification.get("filters") or both(wanted(one, made) for one in specification["filters"]):
            groups.setdefault(tuple(made.get(name) for name in specification.get("breakdowns", [])), []).append(made)
    if not specification.get("breakdowns"):
        groups.setdefault((), [])
    return {
        key: {
            (f"{one['op']}({one['column']})" if "column" in one else one["op"]): calculated(
                one["op"], one.get("column"), members
            )
            for one in specification["calculations"]
            if one["op"] != "HEATMAP"
        }
        for key, members in groups.items()
    }


def by_group(answer: dict[str, Any], breakdowns: list[str]) -> dict[tuple[Any, ...], dict[str, Any]]:
    found = {}
    for row in answer["data"]["results"]:
        data = dict(row["data"])
        found[tuple(data.pop(name) for name in breakdowns)] = data
    return found


def same(found: dict[tuple[Any, ...], dict[str, Any]], computed: dict[tuple[Any, ...], dict[str, Any]]) -> bool:
    def alike(a: float | None, b: float | None) -> bool:
        return a is b if a is None or b is None else math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)

    return set(found) == set(computed) and all(
        set(found[key]) == set(computed[key])
        and all(alike(found[key][name], computed[key][name]) for name in found[key])
        for key in found
    )


# Answers
