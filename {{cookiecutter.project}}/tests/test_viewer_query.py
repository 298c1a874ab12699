"""The viewer's storage and queries: what is kept, and that answers are what a hand computation says."""

import json
import math
import random
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from viewer import events, query
from viewer.app import create_app
from viewer.store import LogFilter, Store, TraceFilter, summary

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
        "service.name": "backend-flask",
        "error": False,
        "events": [],
    } | fields


def generated(count: int, seed: int) -> list[dict[str, Any]]:
    """Spans over ten minutes with fields of every type, some of them missing."""
    chance = random.Random(seed)
    spans = []
    for number in range(count):
        made = span(number, chance.randrange(600_000) / 1000, duration_ms=round(chance.lognormvariate(2, 1.5), 6))
        made["service.name"] = chance.choice(["backend-flask", "profiles"])
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


@pytest.fixture
def store() -> Iterable[Store]:
    store = Store()
    yield store
    store.close()


@pytest.fixture
def client(store: Store) -> FlaskClient:
    return create_app(store).test_client()


# The hand computation


def number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value) if math.isfinite(float(value)) else None
    except ValueError:
        return None


def text(value: Any) -> str:
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
    if op in query.PERCENTILES:
        return percentile(numbers, query.PERCENTILES[op])
    return {"SUM": math.fsum, "AVG": lambda n: math.fsum(n) / len(n), "MIN": min, "MAX": max}[op](numbers)


def wanted(one: dict[str, Any], made: dict[str, Any]) -> bool:
    op, value, mine = one["op"], one.get("value"), made.get(one["column"])
    for opposite, plain in query.OPPOSITES.items():
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
        mine = mine if isinstance(mine, int) and not isinstance(mine, bool) and op == "=" else number(mine)
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


@pytest.mark.parametrize(
    "specification",
    [
        LATENCY,
        {**LATENCY, "calculations": [{"op": "HEATMAP", "column": "duration_ms"}, {"op": "COUNT"}], "orders": []},
        {
            "calculations": [{"op": "COUNT"}, {"op": "AVG", "column": "duration_ms"}],
            "breakdowns": ["http.route", "http.response.status_code"],
            "filters": [
                {"column": "error", "op": "=", "value": True},
                {"column": "http.response.status_code", "op": ">=", "value": 500},
            ],
            "filter_combination": "OR",
        },
        {
            "calculations": [{"op": "P50", "column": "duration_ms"}, {"op": "P99", "column": "duration_ms"}],
            "breakdowns": ["service.name"],
            "filters": [{"column": "duration_ms", "op": ">", "value": 10}],
        },
        {
            "calculations": [
                {"op": "COUNT_DISTINCT", "column": "trace.trace_id"},
                {"op": "SUM", "column": "duration_ms"},
                {"op": "MIN", "column": "duration_ms"},
            ],
            "filters": [{"column": "http.route", "op": "in", "value": list(ROUTES[:2])}],
        },
    ],
)
def test_the_questions_of_honeycombs_documentation_are_answered_as_by_hand(
    store: Store, specification: dict[str, Any]
) -> None:
    spans = generated(2000, seed=7)
    store.add_spans(spans)
    answer = store.query({**specification, "start_time": NOON, "time_range": 600})
    computed = by_hand(specification, spans)
    assert same(by_group(answer, specification.get("breakdowns", [])), computed)
    assert len(computed) >= 1


def test_any_query_is_answered_as_by_hand(store: Store) -> None:
    spans = generated(500, seed=11)
    for first in range(0, len(spans), 60):  # so that columns come one after the other
        store.add_spans(spans[first : first + 60])
    columns = ["app.whole", "app.broken", "app.text", "app.yes", "app.mixed", "http.route", "error", "trace.parent_id"]
    numeric = ["duration_ms", "app.whole", "app.broken", "app.mixed", "http.response.status_code"]
    chance = random.Random(13)
    for _ in range(120):
        filters = []
        for _ in range(chance.randrange(4)):
            column = chance.choice(columns)
            op = chance.choice(query.FILTERS)
            known = [made[column] for made in spans if made.get(column) is not None]
            one: dict[str, Any] = {"column": column, "op": op}
            if op in ("in", "not-in"):
                one["value"] = chance.choices(known, k=chance.randrange(4))
            elif not op.endswith("exist") and op != "exists":
                one["value"] = chance.choice(known)
                if "contain" in op or "-with" in op:
                    one["value"] = text(one["value"])[:2]
                elif op not in ("=", "!=") and isinstance(one["value"], bool):
                    continue
            filters.append(one)
        specification = {
            "calculations": [
                {"op": op, "column": chance.choice(numeric)}
                for op in chance.sample([*query.PERCENTILES, "SUM", "AVG", "MIN", "MAX", "COUNT_DISTINCT"], 2)
            ]
            + [{"op": "COUNT"}],
            "breakdowns": [] if chance.random() < 0.3 else [chance.choice(["http.route", "app.text", "app.whole"])],
            "filters": filters,
            "filter_combination": chance.choice(["AND", "OR"]),
        }
        answer = store.query({**specification, "start_time": NOON, "time_range": 600, "limit": 1000})
        found = by_group(answer, specification["breakdowns"])
        assert same(found, by_hand(specification, spans)), specification


def test_the_answer_is_in_honeycombs_form(client: FlaskClient, store: Store) -> None:
    store.add_spans(
        [
            span(0, 1, duration_ms=5.0, **{"http.route": "/a"}),
            span(4, 2, duration_ms=9.0, **{"http.route": "/a"}),
            span(8, 130, duration_ms=700.0),
            span(9, 3, duration_ms=1.0, **{"trace.parent_id": "0000000000000009"}),
        ]
    )
    answer = client.post("/api/query", json={**LATENCY, "granularity": 60})
    assert answer.status_code == 200
    assert answer.get_json()["query"] == {"start_time": NOON, "end_time": NOON + 600, "granularity": 60}
    data = answer.get_json()["data"]
    assert data["results"] == [
        {"data": {"http.route": None, "P90(duration_ms)": 700.0, "MAX(duration_ms)": 700.0}},
        {"data": {"http.route": "/a", "P90(duration_ms)": pytest.approx(8.6), "MAX(duration_ms)": 9.0}},
    ]
    assert [(row["time"], row["data"]["http.route"]) for row in data["series"]] == [
        ("2026-01-02T12:00:00Z", "/a"),
        ("2026-01-02T12:02:00Z", None),
    ]
    cells = data["series"][0]["data"]["HEATMAP(duration_ms)"]
    assert [count for _, _, count in cells] == [1, 1]
    assert cells[0][0] <= 5 < cells[0][1] <= cells[1][0] <= 9 < cells[1][1]


def test_a_heatmap_has_every_event_once(store: Store) -> None:
    for values in ([1.0, 2.0, 5.0], [0.01, 3.0, 9000.0], [0.0, 0.0], [7.0], [-3.0, 4.0], [0.0, 1e6], [-1e308, 1e308]):
        store.add_spans(span(n, n, duration_ms=float(value)) for n, value in enumerate(values))
        answer = store.query(
            {
                "calculations": [{"op": "HEATMAP", "column": "duration_ms"}],
                "filters": [{"column": "trace.span_id", "op": "<=", "value": f"{len(values):016x}"}],
                "start_time": NOON,
                "granularity": 600,
                "time_range": 600,
            }
        )
        cells = answer["data"]["series"][0]["data"]["HEATMAP(duration_ms)"]
        assert sum(count for _, _, count in cells) == len(values)
        for value in values:
            assert any(low <= value < high for low, high, _ in cells) or abs(value) > 1e300, (value, cells)


def test_orders_and_limit_choose_the_groups(store: Store) -> None:
    spans = generated(400, seed=3)
    store.add_spans(spans)
    specification = {
        "calculations": [{"op": "MAX", "column": "duration_ms"}, {"op": "COUNT"}],
        "breakdowns": ["app.whole", "service.name"],
        "orders": [{"column": "app.whole"}, {"op": "MAX", "column": "duration_ms", "order": "descending"}],
        "start_time": NOON,
        "time_range": 600,
    }
    rows = [row["data"] for row in store.query(specification)["data"]["results"]]
    assert [row["app.whole"] for row in rows] == [-5, -5, 0, 0, 1, 1, 7, 7, 2**53 + 1, 2**53 + 1, None, None]
    assert all(a["MAX(duration_ms)"] >= b["MAX(duration_ms)"] for a, b in zip(rows[::2], rows[1::2], strict=True))
    first = store.query({**specification, "limit": 3})["data"]
    assert [row["data"] for row in first["results"]] == rows[:3]
    in_series = {(row["data"]["app.whole"], row["data"]["service.name"]) for row in first["series"]}
    assert in_series == {(row["app.whole"], row["service.name"]) for row in rows[:3]}
    assert sum(row["data"]["COUNT"] for row in first["series"]) == sum(row["COUNT"] for row in rows[:3])


def test_havings_leave_groups_out(store: Store) -> None:
    store.add_spans(span(n, n, **{"app.n": int(n > 2)}) for n in range(5))
    having = {"calculate_op": "COUNT", "op": ">", "value": 2}
    answer = store.query({"breakdowns": ["app.n"], "havings": [having], "start_time": NOON})
    assert [row["data"] for row in answer["data"]["results"]] == [{"app.n": 0, "COUNT": 3}]


def test_the_time_range_has_its_start_and_not_its_end(store: Store) -> None:
    store.add_spans(span(n, n * 10) for n in range(10))

    def counted(**given: Any) -> int:
        return int(store.query(given, now=NOON + 50.5)["data"]["results"][0]["data"]["COUNT"])

    assert counted(start_time=NOON + 10, end_time=NOON + 30) == 2
    assert counted(start_time=NOON + 10, time_range=21) == 3
    assert counted(end_time=NOON + 90, time_range=20) == 2
    assert counted(time_range=30) == 3
    assert counted() == 6


def test_a_series_has_the_steps_that_are_asked_for(store: Store) -> None:
    store.add_spans(span(n, n) for n in range(120))
    answer = store.query({"start_time": NOON, "time_range": 120, "granularity": 30})
    counts = [(row["time"][11:], row["data"]["COUNT"]) for row in answer["data"]["series"]]
    assert counts == [("12:00:00Z", 30), ("12:00:30Z", 30), ("12:01:00Z", 30), ("12:01:30Z", 30)]
    short = store.query({"start_time": NOON, "time_range": 5})
    assert short["query"]["granularity"] == 0.1
    assert short["data"]["series"][1]["time"] == "2026-01-02T12:00:01Z"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "must be an object"),
        (None, "must be an object"),
        ({"calculation": []}, 'unknown field "calculation"'),
        ({"calculations": "COUNT"}, "calculations must be a list"),
        ({"calculations": ["COUNT"]}, "a calculation must be an object"),
        ({"calculations": [{"op": "P42", "column": "duration_ms"}]}, 'unknown calculation "P42"'),
        ({"calculations": [{"op": ["COUNT"]}]}, "unknown calculation"),
        ({"calculations": [{"op": "COUNT", "column": "name"}]}, "takes no column"),
        ({"calculations": [{"op": "P90"}]}, "needs a column"),
        ({"calculations": [{"op": "P90", "column": "name"}]}, 'P90 needs numbers, and "name" has none'),
        ({"calculations": [{"op": "MAX", "column": "app.nowhere"}]}, 'unknown column "app.nowhere"'),
        ({"calculations": [{"op": "COUNT"}] * 101}, "more than 100"),
        ({"breakdowns": ["app.nowhere"]}, 'unknown column "app.nowhere"'),
        ({"breakdowns": [7]}, "a column is a text"),
        ({"breakdowns": ["events"]}, 'unknown column "events"'),
        ({"filters": [{"column": "name", "op": "~", "value": "x"}]}, 'unknown operator "~"'),
        ({"filters": [{"column": "x' OR 1=1 --", "op": "="}]}, "unknown column"),
        ({"filters": [{"column": "name", "op": "="}]}, "needs a value"),
        ({"filters": [{"column": "name", "op": "=", "value": {}}]}, "needs a value"),
        ({"filters": [{"column": "name", "op": "in", "value": "GET"}]}, "needs a list"),
        ({"filters": [{"column": "name", "op": "contains", "value": 3}]}, "needs a text"),
        ({"filters": [{"column": "name", "op": "exists", "value": 3}]}, "takes no value"),
        ({"filters": [{"column": "duration_ms", "op": ">", "value": "slow"}]}, "holds numbers"),
        ({"filters": [{"column": "error", "op": ">", "value": True}]}, "needs a number or a text"),
        ({"filter_combination": "XOR"}, "AND or OR"),
        ({"orders": [{"op": "MAX", "column": "duration_ms"}]}, "neither a breakdown nor"),
        ({"orders": [{"column": "name"}]}, "neither a breakdown nor"),
        ({"orders": [{"op": "COUNT", "order": "up"}]}, "ascending or descending"),
        ({"havings": [{"calculate_op": "COUNT", "op": ">", "value": "1"}]}, "needs a number"),
        ({"havings": [{"calculate_op": "SUM", "op": ">", "value": 1}]}, "no calculation of the query"),
        ({"limit": 0}, "limit must be from 1"),
        ({"limit": True}, "limit must be a whole number"),
        ({"limit": 1.5}, "limit must be a whole number"),
        ({"time_range": 0}, "time_range must be"),
        ({"time_range": 10**30}, None),
        ({"start_time": 10**30}, "end_time must be"),
        ({"start_time": -(10**30)}, "end_time must be"),
        ({"start_time": 20, "end_time": 10}, "start_time must be before end_time"),
        ({"start_time": 10, "end_time": 20, "time_range": 5}, "not all three"),
        ({"granularity": 1, "time_range": 7200}, "granularity must be"),
        ({"granularity": 7201}, "granularity must be"),
    ],
)
def test_what_is_wrong_with_a_query_is_said(client: FlaskClient, store: Store, body: object, said: str | None) -> None:
    store.add_spans([span(1)])
    answer = client.post("/api/query", data=json.dumps(body))
    assert answer.status_code == (400 if said else 200), answer.text
    assert said is None or said in answer.get_json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 10_000, b'{"limit": NaN}', b'{"limit": 1e999}'])
def test_a_body_that_is_no_json_is_refused(client: FlaskClient, body: bytes) -> None:
    answer = client.post("/api/query", data=body, content_type="application/json")
    assert (answer.status_code, list(answer.get_json())) == (400, ["error"])


def test_honeycombs_query_finds_roots_before_there_is_any_child(store: Store) -> None:
    store.add_spans([span(1)])
    filters = [{"column": "trace.parent_id", "op": "does-not-exist"}]
    answer = store.query({"filters": filters, "start_time": NOON})
    assert answer["data"]["results"] == [{"data": {"COUNT": 1}}]


def test_an_empty_viewer_answers_with_nothing(client: FlaskClient) -> None:
    answer = client.post("/api/query", json={})
    assert answer.get_json()["data"] == {"results": [{"data": {"COUNT": 0}}], "series": []}
    assert {"key_name": "duration_ms", "type": "float"} in client.get("/api/columns").get_json()


# Columns


def test_every_attribute_is_a_column_with_honeycombs_type(store: Store) -> None:
    store.add_spans(generated(100, seed=1))
    assert store.columns() == {
        "app.broken": "float",
        "app.mixed": "string",
        "app.text": "string",
        "app.whole": "integer",
        "app.yes": "boolean",
        "duration_ms": "float",
        "error": "boolean",
        "http.response.status_code": "integer",
        "http.route": "string",
        "name": "string",
        "service.name": "string",
        "trace.parent_id": "string",
        "trace.span_id": "string",
        "trace.trace_id": "string",
    }


NAMES = [
    "Foo",
    "foo",
    "",
    " ",
    'a"b',
    "a'b",
    "a.b",
    "c0",
    "seq",
    "select",
    "x'; DROP TABLE spans_0; --",
    "\0",
    "ü" * 5000,
]


def test_no_name_or_value_of_a_field_is_part_of_a_statement(store: Store) -> None:
    for number, name in enumerate(NAMES):
        store.add_spans([span(number, number, **{name: name})])
    for name in NAMES:
        filters = [{"column": name, "op": "=", "value": name}]
        data = store.query({"breakdowns": [name], "filters": filters, "start_time": NOON})["data"]
        kept = name[: events.LONGEST_TEXT]
        assert [row["data"] for row in data["results"]] == ([{name: kept, "COUNT": 1}] if kept == name else [])
        found = store.trace(f"{NAMES.index(name) // 4 + 1:032x}")
        assert found
        assert found["spans"][NAMES.index(name) % 4][name] == name


def test_attributes_beyond_the_limit_are_kept_but_cannot_be_asked_about(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_COLUMNS", 10)
    many = {f"app.n{n}": n for n in range(50)}
    store.add_spans([span(1, **many)])
    assert "app.n3" in store.columns()
    assert "app.n30" not in store.columns()
    found = store.trace(f"{1:032x}")
    assert found
    assert many.items() <= found["spans"][0].items()
    assert store.traces(1, TraceFilter(text="49"))


def test_columns_go_when_their_last_span_has_gone() -> None:
    store = Store(max_spans=20)
    store.add_spans([span(0, **{"app.old": 1})])
    for number in range(1, 40):
        store.add_spans([span(number)])
    assert "app.old" not in store.columns()
    assert store.counts() == (20, 0)


# What is kept


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_the_newest_are_kept_whatever_comes_at_once(batch: int) -> None:
    store = Store(max_spans=50)
    numbers = list(range(130))
    for first in range(0, len(numbers), batch):
        store.add_spans(span(number, number) for number in numbers[first : first + batch])
        assert store.counts() == (min(50, first + batch), 0)
    rows = store.query({"breakdowns": ["trace.span_id"], "start_time": NOON, "limit": 1000})["data"]["results"]
    assert {row["data"]["trace.span_id"] for row in rows} == {f"{number + 1:016x}" for number in numbers[-50:]}


def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_BYTES", 1_000_000)
    store = Store()
    for number in range(100):
        store.add_spans([span(number, number, **{"app.text": "x" * 100_000})])
    assert 5 <= store.counts()[0] <= 12
    assert store.trace(f"{99 // 4 + 1:032x}")


def test_summaries_are_the_same_in_a_list_and_alone() -> None:
    chance = random.Random(5)
    store = Store()
    spans = generated(400, seed=5)
    chance.shuffle(spans)
    kept = spans[:300]  # roots and parents missing here and there
    store.add_spans(kept)
    listed = store.traces(1000)
    assert [trace["start"] for trace in listed] == sorted((trace["start"] for trace in listed), reverse=True)
    for trace in listed:
        mine = [made for made in kept if made["trace.trace_id"] == trace["trace_id"]]
        computed = summary(mine)
        assert trace.pop("duration_ms") == pytest.approx(computed.pop("duration_ms"))
        assert trace == computed
    assert sum(trace["span_count"] for trace in listed) == 300


def test_traces_can_be_narrowed_down(store: Store) -> None:
    raised = {"name": "exception", "time": "", "attributes": {"exception.message": "No Such Feed"}}
    store.add_spans(
        [
            span(0, 0, name="GET /a", duration_ms=50.0, **{"http.route": "/a", "http.response.status_code": 200}),
            span(
                1, 0, **{"trace.parent_id": f"{1:016x}", "service.name": "profiles", "http.response.status_code": 500}
            ),
            span(4, 1, error=True, events=[raised], **{"http.route": "/b", "http.response.status_code": 500}),
            span(8, 2, name="job", duration_ms=5000.0, **{"app.user": "50%_é\\"}),
        ]
    )
    for narrow, expected in (
        (TraceFilter(), [3, 2, 1]),
        (TraceFilter(service="profiles"), [1]),
        (TraceFilter(route="/b"), [2]),
        (TraceFilter(route="job"), [3]),
        (TraceFilter(status="error"), [2]),
        (TraceFilter(status="ok"), [3, 1]),
        (TraceFilter(status="5xx"), [2]),
        (TraceFilter(status="2xx"), [1]),
        (TraceFilter(min_duration=50), [3, 1]),
        (TraceFilter(text="no such feed"), [2]),
        (TraceFilter(text="50%_É\\"), [3]),
        (TraceFilter(text="%"), [3]),
        (TraceFilter(text="c1"), []),
        (TraceFilter(text="profiles", min_duration=50), [1]),
        (TraceFilter(text="profiles", min_duration=51), []),
    ):
        assert [int(trace["trace_id"], 16) for trace in store.traces(10, narrow)] == expected, narrow
    assert store.values("http.route") == ["/a", "/b"]


def test_logs_can_be_narrowed_down(store: Store) -> None:
    for number, (severity, body) in enumerate([(9, "started"), (13, "careful"), (17, {"deep": ["Broken"]})]):
        log = {"time": f"2026-01-02T12:00:0{number}.000000Z", "severity_number": severity, "body": body}
        store.add_logs([log | {"service.name": f"s{number}", "trace.trace_id": f"{number:032x}"}])

    def bodies(narrow: LogFilter) -> list[Any]:
        return [log["body"] for log in store.logs(10, narrow)]

    assert bodies(LogFilter()) == [{"deep": ["Broken"]}, "careful", "started"]
    assert bodies(LogFilter(severity=13)) == [{"deep": ["Broken"]}, "careful"]
    assert bodies(LogFilter(text="BROKEN")) == [{"deep": ["Broken"]}]
    assert bodies(LogFilter(service="s1")) == ["careful"]
    assert bodies(LogFilter(trace_id=f"{0:032x}")) == ["started"]
    assert [log["body"] for log in store.logs(1)] == [{"deep": ["Broken"]}]


def test_a_file_keeps_what_was_sent_for_the_next_start(tmp_path: Path) -> None:
    path = str(tmp_path / "viewer.duckdb")
    spans = generated(60, seed=2)
    first = Store(max_spans=50, path=path)
    first.add_spans(spans)
    first.add_logs([{"time": spans[0]["time"], "body": "hello", "trace.trace_id": spans[-1]["trace.trace_id"]}])
    kept, columns, answer = first.traces(100), first.columns(), first.query(LATENCY)
    first.close()
    second = Store(max_spans=50, path=path)
    assert second.counts() == (50, 1)
    assert (second.traces(100), second.columns(), second.query(LATENCY)) == (kept, columns, answer)
    second.add_spans([spans[-1], span(1000)])  # one of them again
    assert second.counts() == (49, 1)
    second.close()


def test_a_file_that_is_no_database_is_refused_with_the_reason(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "folder" / "x", tmp_path / "text"):
        (tmp_path / "text").write_text("not a database " * 1000)
        with pytest.raises(ValueError, match=r"\w"):
            Store(path=str(path))


def test_queries_go_on_while_old_spans_are_dropped() -> None:
    store = Store(max_spans=100)
    done = threading.Event()
    wrong: list[object] = []

    def ask() -> None:
        while not done.is_set():
            try:
                counted = store.query({"start_time": NOON, "breakdowns": ["app.n"]})["data"]["results"]
                if sum(row["data"]["COUNT"] for row in counted) > 100:
                    wrong.append(counted)
                store.traces(10)
            except Exception as error:
                wrong.append(error)

    store.add_spans([span(0, **{"app.n": 0})])
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(0, 1000, 20):
        store.add_spans(span(number + one, one, **{"app.n": one}) for one in range(20))
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_nothing_is_kept_of_a_request_that_cannot_be_kept(store: Store) -> None:
    with pytest.raises(TypeError):
        store.add_spans([span(0), span(1, **{"app.n": object()}), span(2)])
    assert store.counts() == (0, 0)
    store.add_spans([span(0, **{"app.n": 1})])
    assert store.counts() == (1, 0)
    assert store.columns()["app.n"] == "integer"
