"""Answers are what a calculation by hand says."""

import json
import random
from typing import Any

import pytest
from by_hand import LATENCY, NOON, ROUTES, by_group, by_hand, generated, same, span, text
from flask.testing import FlaskClient
from otlp_viewer.query import operators as parse
from otlp_viewer.query.types import Box, Invalid, TooExpensive
from otlp_viewer.store import Store
from sender import add, ask


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
def test_queries_from_honeycombs_documentation_return_expected_results(
    store: Store, specification: dict[str, Any]
) -> None:
    spans = generated(2000, seed=7)
    add(store, spans)
    response = ask(store, {**specification, "start_time": NOON, "time_range": 600})
    computed = by_hand(specification, spans)
    assert same(by_group(response, specification.get("breakdowns", [])), computed)
    assert len(computed) >= 1


def test_any_query_returns_the_expected_result(store: Store) -> None:
    spans = generated(500, seed=11)
    for first in range(0, len(spans), 60):  # so that columns come one after the other
        add(store, spans[first : first + 60])
    columns = ["app.whole", "app.broken", "app.text", "app.yes", "app.mixed", "http.route", "error", "trace.parent_id"]
    numeric = ["duration_ms", "app.whole", "app.broken", "app.mixed", "http.response.status_code"]
    chance = random.Random(13)
    for _ in range(120):
        filters = []
        for _ in range(chance.randrange(4)):
            column = chance.choice(columns)
            op = chance.choice(parse.FILTERS)
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
                for op in chance.sample([*parse.PERCENTILES, "SUM", "AVG", "MIN", "MAX", "COUNT_DISTINCT"], 2)
            ]
            + [{"op": "COUNT"}],
            "breakdowns": [] if chance.random() < 0.3 else [chance.choice(["http.route", "app.text", "app.whole"])],
            "filters": filters,
            "filter_combination": chance.choice(["AND", "OR"]),
        }
        response = ask(store, {**specification, "start_time": NOON, "time_range": 600, "limit": 1000})
        found = by_group(response, specification["breakdowns"])
        assert same(found, by_hand(specification, spans)), specification


def test_the_result_has_honeycombs_format(client: FlaskClient, store: Store) -> None:
    add(
        store,
        [
            span(0, 1, duration_ms=5.0, **{"http.route": "/a"}),
            span(4, 2, duration_ms=9.0, **{"http.route": "/a"}),
            span(8, 130, duration_ms=700.0),
            span(9, 3, duration_ms=1.0, **{"trace.parent_id": "0000000000000009"}),
        ],
    )
    response = client.post("/api/query", json={**LATENCY, "granularity": 60})
    assert response.status_code == 200
    assert response.get_json()["query"] == {"start_time": NOON, "end_time": NOON + 600, "granularity": 60}
    data = response.get_json()["data"]
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


def test_a_heatmap_has_every_event_once() -> None:
    for values in ([1.0, 2.0, 5.0], [0.01, 3.0, 9000.0], [0.0, 0.0], [7.0], [-3.0, 4.0], [0.0, 1e6], [-1e308, 1e308]):
        store = Store()
        add(store, [span(n, n, **{"app.x": float(value)}) for n, value in enumerate(values)])
        response = ask(
            store,
            {
                "calculations": [{"op": "HEATMAP", "column": "app.x"}],
                "start_time": NOON,
                "granularity": 600,
                "time_range": 600,
            },
        )
        cells = response["data"]["series"][0]["data"]["HEATMAP(app.x)"]
        assert sum(count for _, _, count in cells) == len(values)
        for value in values:
            assert any(low <= value < high for low, high, _ in cells) or abs(value) > 1e300, (value, cells)


def test_orders_and_limit_choose_the_groups(store: Store) -> None:
    spans = generated(400, seed=3)
    add(store, spans)
    specification = {
        "calculations": [{"op": "MAX", "column": "duration_ms"}, {"op": "COUNT"}],
        "breakdowns": ["app.whole", "service.name"],
        "orders": [{"column": "app.whole"}, {"op": "MAX", "column": "duration_ms", "order": "descending"}],
        "start_time": NOON,
        "time_range": 600,
    }
    rows = [row["data"] for row in ask(store, specification)["data"]["results"]]
    assert [row["app.whole"] for row in rows] == [-5, -5, 0, 0, 1, 1, 7, 7, 2**53 + 1, 2**53 + 1, None, None]
    assert all(a["MAX(duration_ms)"] >= b["MAX(duration_ms)"] for a, b in zip(rows[::2], rows[1::2], strict=True))
    first = ask(store, {**specification, "limit": 3})["data"]
    assert [row["data"] for row in first["results"]] == rows[:3]
    in_series = {(row["data"]["app.whole"], row["data"]["service.name"]) for row in first["series"]}
    assert in_series == {(row["app.whole"], row["service.name"]) for row in rows[:3]}
    assert sum(row["data"]["COUNT"] for row in first["series"]) == sum(row["COUNT"] for row in rows[:3])


def test_havings_filter_groups(store: Store) -> None:
    add(store, [span(n, n, **{"app.n": int(n > 2)}) for n in range(5)])
    having = {"calculate_op": "COUNT", "op": ">", "value": 2}
    response = ask(store, {"breakdowns": ["app.n"], "havings": [having], "start_time": NOON})
    assert [row["data"] for row in response["data"]["results"]] == [{"app.n": 0, "COUNT": 3}]


def test_a_time_range_includes_its_start_but_not_its_end(store: Store) -> None:
    add(store, [span(n, n * 10) for n in range(10)])

    def counted(**given: Any) -> int:
        return int(ask(store, given, now=NOON + 50.5)["data"]["results"][0]["data"]["COUNT"])

    assert counted(start_time=NOON + 10, end_time=NOON + 30) == 2
    assert counted(start_time=NOON + 10, time_range=21) == 3
    assert counted(end_time=NOON + 90, time_range=20) == 2
    assert counted(time_range=30) == 3
    assert counted() == 6


def test_a_series_has_the_requested_steps(store: Store) -> None:
    add(store, [span(n, n) for n in range(120)])
    response = ask(store, {"start_time": NOON, "time_range": 120, "granularity": 30})
    counts = [(row["time"][11:], row["data"]["COUNT"]) for row in response["data"]["series"]]
    assert counts == [("12:00:00Z", 30), ("12:00:30Z", 30), ("12:01:00Z", 30), ("12:01:30Z", 30)]
    short = ask(store, {"start_time": NOON, "time_range": 5})
    assert short["query"]["granularity"] == 0.1
    assert short["data"]["series"][1]["time"] == "2026-01-02T12:00:01Z"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "must be an object"),
        (None, "must be an object"),
        ({"calculation": []}, 'unknown field "calculation"'),
        ({"calculations": "COUNT"}, "calculations must be a list"),
        ({"calculations": ["COUNT"]}, "a calculation must be an object"),
        ({"calculations": [{"op": "P42", "column": "duration_ms"}]}, 'unknown calculation "P42"'),
        ({"calculations": [{"op": ["COUNT"]}]}, "unknown calculation"),
        ({"calculations": [{"op": "COUNT", "column": "name"}]}, None),
        ({"calculations": [{"op": "COUNT", "filter": []}]}, 'a calculation has the unknown field "filter"'),
        ({"calculations": [{"op": "COUNT", "name": 7}]}, "must be a string"),
        ({"calculations": [{"op": "COUNT", "filters": [{"column": "nowhere"}]}]}, 'unknown column "nowhere"'),
        ({"calculations": [{"op": "COUNT"}, {"op": "COUNT", "filters": []}]}, None),
        ({"filters": [{"column": "name", "op": "exists", "join": "root"}]}, 'a filter has the unknown field "join"'),
        ({"orders": [{"op": "COUNT", "direction": "up"}]}, 'an order has the unknown field "direction"'),
        ({"havings": [{"calculate_op": "COUNT", "op": ">", "value": 1, "x": 1}]}, 'a having has the unknown field "x"'),
        ({"calculated_fields": [{"name": "x", "expression": "1"}]}, "calculated_fields is not supported"),
        ({"breakdowns": 7}, "breakdowns must be a list"),
        ({"time_range": "x"}, "time_range must be an integer"),
        ({"filters": [{"column": "duration_ms", "op": ">", "value": 10**400}]}, "at most 64 bits"),
        ({"filters": [{"column": "duration_ms", "op": ">", "value": "9" * 400}]}, "finite number"),
        ({"havings": [{"calculate_op": "COUNT", "op": ">", "value": 10**400}]}, "at most 64 bits"),
        ({"filters": [{"column": "name", "op": "=", "value": "\ud800"}]}, None),
        ({"breakdowns": ["\ud800"]}, "unknown column"),
        ({"calculations": [{"op": "P90"}]}, "needs a column"),
        ({"calculations": [{"op": "P90", "column": "name"}]}, 'P90 needs numbers, and "name" has none'),
        ({"calculations": [{"op": "MAX", "column": "app.nowhere"}]}, 'unknown column "app.nowhere"'),
        ({"calculations": [{"op": "COUNT"}] * 101}, "more than 100"),
        ({"breakdowns": ["app.nowhere"]}, 'unknown column "app.nowhere"'),
        ({"breakdowns": [7]}, "a column must be a string"),
        ({"breakdowns": ["events"]}, 'unknown column "events"'),
        ({"filters": [{"column": "name", "op": "~", "value": "x"}]}, 'unknown operator "~"'),
        ({"filters": [{"column": "x' OR 1=1 --", "op": "="}]}, "unknown column"),
        ({"filters": [{"column": "name", "op": "="}]}, "needs a value"),
        ({"filters": [{"column": "name", "op": "=", "value": {}}]}, "needs a value"),
        ({"filters": [{"column": "name", "op": "in", "value": "GET"}]}, "needs a list"),
        ({"filters": [{"column": "name", "op": "contains", "value": 3}]}, "needs a string"),
        ({"filters": [{"column": "name", "op": "exists", "value": 3}]}, "takes no value"),
        ({"filters": [{"column": "duration_ms", "op": ">", "value": "slow"}]}, "contains numbers"),
        ({"filters": [{"column": "error", "op": ">", "value": True}]}, "needs a number or a string"),
        ({"filter_combination": "XOR"}, "AND or OR"),
        ({"orders": [{"op": "MAX", "column": "duration_ms"}]}, "neither a breakdown nor"),
        ({"orders": [{"column": "name"}]}, "neither a breakdown nor"),
        ({"orders": [{"op": "COUNT", "order": "up"}]}, "ascending or descending"),
        ({"havings": [{"calculate_op": "COUNT", "op": ">", "value": "1"}]}, "needs a number"),
        ({"havings": [{"calculate_op": "SUM", "op": ">", "value": 1}]}, "no calculation of the query"),
        ({"limit": 0}, "limit must be from 1"),
        ({"limit": True}, "limit must be an integer"),
        ({"limit": 1.5}, "limit must be an integer"),
        ({"time_range": 0}, "time_range must be"),
        ({"time_range": 10**30}, None),
        ({"start_time": 10**30}, "end_time must be"),
        ({"start_time": -(10**30)}, "end_time must be"),
        ({"start_time": 20, "end_time": 10}, "start_time must be before end_time"),
        ({"start_time": 10, "end_time": 20, "time_range": 5}, "at most two"),
        ({"granularity": 1, "time_range": 7200}, "granularity must be"),
        ({"granularity": 7201}, "granularity must be"),
    ],
)
def test_a_query_error_names_the_problem(client: FlaskClient, store: Store, body: object, message: str | None) -> None:
    add(store, [span(1)])
    response = client.post("/api/query", data=json.dumps(body), content_type="application/json")
    assert response.status_code == (400 if message else 200), response.text
    assert message is None or message in response.get_json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 10_000, b'{"limit": NaN}', b'{"limit": 1e999}'])
def test_a_body_that_is_not_json_is_rejected(client: FlaskClient, body: bytes) -> None:
    response = client.post("/api/query", data=body, content_type="application/json")
    assert (response.status_code, list(response.get_json())) == (400, ["error"])


def test_honeycombs_query_finds_roots_before_there_is_any_child(store: Store) -> None:
    add(store, [span(1)])
    filters = [{"column": "trace.parent_id", "op": "does-not-exist"}]
    response = ask(store, {"filters": filters, "start_time": NOON})
    assert response["data"]["results"] == [{"data": {"COUNT": 1}}]


def test_an_empty_viewer_returns_empty_results(client: FlaskClient) -> None:
    response = client.post("/api/query", json={})
    assert response.get_json()["data"] == {"results": [{"data": {"COUNT": 0}}], "series": []}
    assert {"key_name": "duration_ms", "type": "float"} in client.get("/api/columns").get_json()


# Numbers


def values(store: Store, *given: Any) -> None:
    add(store, [span(n, n, **{"app.x": value}) for n, value in enumerate(given)])


def rows(store: Store, calculations: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    response = ask(store, {"calculations": calculations, "start_time": NOON, **more})
    return [row["data"] for row in response["data"]["results"]]


def test_equal_numbers_are_one_value_whatever_their_type(store: Store) -> None:
    values(store, 1, 1.0, 0.0, -0.0, 0, 2.5)
    found = rows(store, [{"op": "COUNT"}], breakdowns=["app.x"], orders=[{"column": "app.x"}])
    assert found == [{"app.x": 0, "COUNT": 3}, {"app.x": 1, "COUNT": 2}, {"app.x": 2.5, "COUNT": 1}]
    assert rows(store, [{"op": "COUNT_DISTINCT", "column": "app.x"}]) == [{"COUNT_DISTINCT(app.x)": 3}]


def test_large_integers_stay_exact(store: Store) -> None:
    large = 2**53
    values(store, large, large + 1, 2**63 - 1, -(2**63))
    calculations = [{"op": op, "column": "app.x"} for op in ("MAX", "MIN")]
    assert rows(store, calculations) == [{"MAX(app.x)": 2**63 - 1, "MIN(app.x)": -(2**63)}]
    for op, value, count in ((">", large, 2), (">=", large + 1, 2), ("=", large + 1, 1), ("<", large + 1, 2)):
        filters = [{"column": "app.x", "op": op, "value": value}]
        assert rows(store, [{"op": "COUNT"}], filters=filters) == [{"COUNT": count}], (op, value)
    assert rows(store, [{"op": "SUM", "column": "app.x"}]) == [{"SUM(app.x)": 2 * large}]


@pytest.mark.parametrize("other", [0.5, "text", True])
def test_large_integers_are_compared_exactly_in_mixed_columns(store: Store, other: object) -> None:
    large = 2**53
    values(store, large, large + 1, 2**63 - 1, -(2**63), other)
    for op, value, count in ((">", large, 2), (">=", large + 1, 2), ("=", large + 1, 1), ("in", [large], 1)):
        filters = [{"column": "app.x", "op": op, "value": value}]
        assert rows(store, [{"op": "COUNT"}], filters=filters) == [{"COUNT": count}], (op, value)


def test_a_calculation_can_have_its_own_filters_and_name(store: Store) -> None:
    values(store, 1, 2, 3, 4)
    small = [{"column": "app.x", "op": "<", "value": 3}]
    one_more = {"column": "app.x", "op": "=", "value": 4}
    calculations = [
        {"op": "COUNT"},
        {"op": "COUNT", "name": "small", "filters": small},
        {"op": "SUM", "column": "app.x", "name": "sum of small", "filters": small},
        {
            "op": "COUNT",
            "name": "either",
            "filter_combination": "OR",
            "filters": [*small, one_more],
        },
    ]
    assert rows(store, calculations) == [{"COUNT": 4, "small": 2, "sum of small": 3, "either": 3}]


def test_a_heatmap_has_filters_too(store: Store) -> None:
    values(store, 1, 2, 3, 4)
    small = [{"column": "app.x", "op": "<", "value": 3}]
    response = ask(
        store, {"calculations": [{"op": "HEATMAP", "column": "app.x", "filters": small}], "start_time": NOON}
    )
    cells = [cell for row in response["data"]["series"] for cell in row["data"]["HEATMAP(app.x)"]]
    assert sum(count for *_, count in cells) == 2


def test_count_of_a_column_counts_records_that_have_it(store: Store) -> None:
    add(store, [span(0, **{"app.x": 1}), span(1), span(2, **{"app.x": "text"})])
    assert rows(store, [{"op": "COUNT", "column": "app.x"}]) == [{"COUNT(app.x)": 2}]


def test_duplicate_result_columns_are_rejected(store: Store) -> None:
    add(store, [span(0, **{"COUNT": 1})])
    with pytest.raises(Invalid, match='would be named "COUNT": give the calculation a "name"'):
        ask(store, {"breakdowns": ["COUNT"]})
    assert rows(store, [{"op": "COUNT", "name": "spans"}], breakdowns=["COUNT"]) == [{"COUNT": 1, "spans": 1}]


def test_a_sample_rate_weights_spans(store: Store) -> None:
    add(
        store,
        [span(0, duration_ms=1.0, SampleRate=10), span(1, duration_ms=3.0), span(2, duration_ms=5.0, SampleRate=0)],
    )
    calculations = [
        {"op": "COUNT"},
        {"op": "SUM", "column": "duration_ms"},
        {"op": "AVG", "column": "duration_ms"},
        {"op": "MAX", "column": "duration_ms"},
    ]
    assert rows(store, calculations) == [
        {"COUNT": 12, "SUM(duration_ms)": 18.0, "AVG(duration_ms)": 1.5, "MAX(duration_ms)": 5.0}
    ]


# What a query may cost


def test_a_query_times_out_with_a_reason(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otlp_viewer.store.writer.MAX_QUERY_TIME", 0.2)
    add(store, [span(0)])
    with store._snapshot() as snapshot, pytest.raises(TooExpensive, match=r"longer than 0\.2 s"):
        snapshot.rows("SELECT count(*) FROM range(1000000) a, range(100000) b WHERE (a.range * b.range) % 7 = 3")


def test_a_query_that_needs_too_much_memory_fails_with_a_reason(small_store: Store) -> None:
    add(small_store, [span(0)])
    with small_store._snapshot() as snapshot, pytest.raises(TooExpensive, match="more memory"):
        snapshot.rows("SELECT range, count(*) FROM range(100000000) GROUP BY range")
    assert small_store.counts() == (1, 0)


def test_the_largest_filters_work(store: Store) -> None:
    add(store, generated(2000, seed=9))
    filters = [
        {"column": "app.text", "op": "in", "value": [f"{number}-{n}" for n in range(99)] + ["a"]}
        for number in range(100)
    ]
    response = ask(store, {"filters": filters, "start_time": NOON, "time_range": 600})
    one = ask(store, {"filters": filters[:1], "start_time": NOON, "time_range": 600})
    assert response["data"]["results"] == one["data"]["results"]


def test_many_names_can_be_compared(store: Store) -> None:
    add(store, [span(n, n / 100, duration_ms=n, **{f"app.n{i}": n % (i + 2) for i in range(300)}) for n in range(500)])
    comparison = store.compare(store.parse({"start_time": NOON}), Box("duration_ms", NOON, NOON + 10, 400, 500))
    assert (comparison.inside, comparison.outside) == (100, 400)
    assert comparison.fields
