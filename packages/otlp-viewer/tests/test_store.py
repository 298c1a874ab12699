"""What is stored, for how long, and what is found of it."""

import base64
import random
import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest
from by_hand import LATENCY, NOON, generated, span
from export import TRACE, event
from otlp_viewer.model import LogFilter, TraceFilter
from otlp_viewer.store import Store
from sender import add, add_logs, all_spans, ask, trace

# What is stored


def test_a_resent_span_is_stored_once(store: Store) -> None:
    spans = [event(1), event(2, parent=1)]
    add(store, [*spans, *spans])
    for _ in range(3):
        assert store.counts() == (2, 0)
        add(store, spans)
    assert [span.name for span in all_spans(store, TRACE)] == ["span-1", "span-2"]


def test_a_resent_span_with_more_data_replaces_the_first(store: Store) -> None:
    add(store, [event(1), event(2, parent=1)])
    assert store.counts() == (2, 0)
    add(store, [event(1, duration_ms=7.0, **{"app.done": True})])
    assert store.counts() == (2, 0)
    found = store.span(TRACE, f"{1:016x}")
    assert found
    assert (found.duration_ms, found.attributes) == (7.0, {"app.done": True})


@pytest.mark.parametrize(
    "other",
    [
        {"service.name": "profiles"},
        {"span.kind": "server"},
        {"time": "2026-01-02T03:04:06.000000Z"},
    ],
)
def test_different_spans_with_the_same_id_are_all_stored(store: Store, other: dict[str, Any]) -> None:
    both = [event(1, **{"http.response.status_code": 499}), event(1, **{"http.response.status_code": 200, **other})]
    add(store, both)
    add(store, both)
    assert store.counts() == (2, 0)
    spans = all_spans(store, TRACE)
    assert sorted(span.attributes["http.response.status_code"] for span in spans) == [200, 499]
    same = [store.span(TRACE, span.span_id, span.row) for span in spans]
    assert [one and (one.row, one.attributes) for one in same] == [(one.row, one.attributes) for one in spans]


def test_resending_spans_does_not_displace_others(small_store: Store) -> None:
    spans = [event(n, trace=f"{n:032x}", **{"app.text": f"{n}" * 2000}) for n in range(1, 601)]
    add(small_store, spans)
    before = small_store.health()
    for _ in range(5):
        add(small_store, spans[:500])
    after = small_store.health()
    assert (after.spans, after.dropped_spans) == (600, 0)
    assert after.bytes <= before.bytes * 1.1


def test_a_trace_without_a_root_spans_its_first_start_to_its_last_end() -> None:
    store = Store()
    add(store, [event(1000, parent=9), event(5000, parent=9, duration_ms=3.0)])
    assert store.traces(1)[0].duration_ms == 7.0
    assert store.traces(1)[0].name == "span-1000"


# Columns


def test_every_attribute_is_a_column_with_honeycombs_type(store: Store) -> None:
    add(store, generated(100, seed=1))
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
        "library.name": "string",
        "library.version": "string",
        "name": "string",
        "service.name": "string",
        "span.kind": "string",
        "status_code": "integer",
        "status_message": "string",
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
        add(store, [span(number, number, **{name: name})])
    for name in NAMES:
        filters = [{"column": name, "op": "=", "value": name}]
        data = ask(store, {"breakdowns": [name], "filters": filters, "start_time": NOON})["data"]
        assert [row["data"] for row in data["results"]] == [{name: name, "COUNT": 1}]
        found = trace(store, f"{NAMES.index(name) // 4 + 1:032x}")
        assert found
        assert found["spans"][NAMES.index(name) % 4][name] == name


def test_every_column_can_be_queried_even_with_thousands(store: Store) -> None:
    for first in range(0, 2000, 100):
        add(store, [span(first, 1, **{f"app.n{n}": n for n in range(first, first + 100)})])
    filters = [{"column": "app.n1999", "op": "=", "value": 1999}]
    assert ask(store, {"filters": filters, "start_time": NOON})["data"]["results"] == [{"data": {"COUNT": 1}}]
    assert len([name for name in store.columns() if name.startswith("app.n")]) == 2000


def test_columns_disappear_with_their_last_span(small_store: Store) -> None:
    add(small_store, [span(0, **{"app.old": 1})])
    for number in range(1, 200):
        add(small_store, [span(number, **{"app.text": noise(400_000, number)})])
        if "app.old" not in small_store.columns():
            break
    assert "app.old" not in small_store.columns()
    assert small_store.health().dropped_spans > 0


# What is stored


def noise(length: int, seed: int) -> str:
    """Text that no compression makes smaller than three quarters of it."""
    return base64.b64encode(random.Random(seed).randbytes(length * 3 // 4)).decode()


@pytest.mark.parametrize("place", ["memory", "a file"])
def test_the_oldest_are_dropped_at_the_limit_in_bytes_and_reported(tmp_path: Path, place: str) -> None:
    path = ":memory:" if place == "memory" else str(tmp_path / "stored.duckdb")
    small_store = Store(path, memory=64 * 1024 * 1024)
    for number in range(200):
        add(small_store, [span(number, number, **{"app.text": noise(400_000, number)})])
        add_logs(small_store, [{"time": "2026-01-02T12:00:00Z", "body": noise(100_000, number)}])
    health = small_store.health()
    assert health.capacity_bytes == 32 * 1024 * 1024
    assert health.capacity_bytes // 2 < health.bytes <= health.capacity_bytes
    assert (health.spans + health.dropped_spans, health.logs + health.dropped_logs) == (200, 200)
    assert small_store.read_trace(f"{199 // 4 + 1:032x}")
    assert small_store.read_trace(f"{1:032x}") is None
    small_store.close()


def test_all_data_can_be_cleared(store: Store) -> None:
    add(store, [span(1, **{"app.x": 1})])
    add_logs(store, [{"time": "2026-01-02T12:00:00Z", "body": "x"}])
    store.clear()
    assert store.counts() == (0, 0)
    assert "app.x" not in store.columns()
    add(store, [span(1, **{"app.x": 1})])
    assert store.counts() == (1, 0)


def test_summaries_are_the_same_in_a_list_and_on_their_own() -> None:
    chance = random.Random(5)
    store = Store()
    spans = generated(400, seed=5)
    chance.shuffle(spans)
    add(store, spans[:300])  # roots and parents missing here and there
    listed = store.traces(1000)
    assert [one.start_ns for one in listed] == sorted((one.start_ns for one in listed), reverse=True)
    for one in listed:
        whole, few = store.outline(one.trace_id), store.read_trace(one.trace_id)
        assert whole
        assert few
        assert one == whole.summary == few[0]
    assert sum(one.span_count for one in listed) == 300


def test_traces_can_be_narrowed_down(store: Store) -> None:
    raised = {"name": "exception", "time": "", "attributes": {"exception.message": "No Such Feed"}}
    add(
        store,
        [
            span(0, 0, name="GET /a", duration_ms=50.0, **{"http.route": "/a", "http.response.status_code": 200}),
            span(
                1, 0, **{"trace.parent_id": f"{1:016x}", "service.name": "profiles", "http.response.status_code": 500}
            ),
            span(4, 1, error=True, events=[raised], **{"http.route": "/b", "http.response.status_code": 500}),
            span(8, 2, name="job", duration_ms=5000.0, **{"app.user": "50%_é\\"}),
        ],
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
        (TraceFilter(min_duration_ms=50), [3, 1]),
        (TraceFilter(text="no such feed"), [2]),
        (TraceFilter(text="50%_É\\"), [3]),
        (TraceFilter(text="%"), [3]),
        (TraceFilter(text="c1"), []),
        (TraceFilter(text="profiles", min_duration_ms=50), [1]),
        (TraceFilter(text="profiles", min_duration_ms=51), []),
    ):
        assert [int(found.trace_id, 16) for found in store.traces(10, narrow)] == expected, narrow
    assert store.values("http.route") == ["/a", "/b"]


def test_logs_can_be_narrowed_down(store: Store) -> None:
    for number, (severity, body) in enumerate([(9, "started"), (13, "careful"), (17, {"deep": ["Broken"]})]):
        log = {"time": f"2026-01-02T12:00:0{number}.000000Z", "severity_number": severity, "body": body}
        add_logs(store, [log | {"service.name": f"s{number}", "trace.trace_id": f"{number + 1:032x}"}])

    def bodies(narrow: LogFilter) -> list[Any]:
        return [log.body for log in store.logs(10, narrow)]

    assert bodies(LogFilter()) == [{"deep": ["Broken"]}, "careful", "started"]
    assert bodies(LogFilter(severity=13)) == [{"deep": ["Broken"]}, "careful"]
    assert bodies(LogFilter(text="BROKEN")) == [{"deep": ["Broken"]}]
    assert bodies(LogFilter(service="s1")) == ["careful"]
    assert bodies(LogFilter(trace_id=f"{1:032x}")) == ["started"]
    assert [log.body for log in store.logs(1)] == [{"deep": ["Broken"]}]


def test_a_file_keeps_spans_across_restarts(tmp_path: Path) -> None:
    path = str(tmp_path / "viewer.duckdb")
    spans = generated(60, seed=2)
    first = Store(path)
    add(first, spans)
    add_logs(first, [{"time": spans[0]["time"], "body": "hello", "trace.trace_id": spans[-1]["trace.trace_id"]}])
    stored, columns, response = first.traces(100), first.columns(), ask(first, LATENCY)
    first.close()
    second = Store(path)
    assert second.counts() == (60, 1)
    assert (second.traces(100), second.columns(), ask(second, LATENCY)) == (stored, columns, response)
    add(second, [spans[-1], span(1000)])  # one of them again
    assert second.counts() == (61, 1)
    second.close()


def test_a_file_that_is_not_a_database_is_rejected_with_the_reason(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "folder" / "x", tmp_path / "text"):
        (tmp_path / "text").write_text("not a database " * 1000)
        with pytest.raises(ValueError, match=r"\w"):
            Store(str(path))


def test_queries_continue_while_old_spans_are_dropped() -> None:
    store = Store(memory=64 * 1024 * 1024)
    done = threading.Event()
    wrong: list[object] = []

    def questions() -> None:
        while not done.is_set():
            try:
                rows = ask(store, {"start_time": NOON, "breakdowns": ["name"]})["data"]["results"]
                if sum(row["data"]["COUNT"] for row in rows) > 250:
                    wrong.append(rows)
                store.traces(10)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=questions) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(250):
            add(store, [span(number, number, **{"app.text": noise(300_000, number)})])
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert store.health().dropped_spans > 0
    store.close()


def test_during_a_long_read_excess_spans_are_rejected_and_the_read_data_stays(
    small_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otlp_viewer.store.writer.MAX_PAUSE", 0.02)
    add(small_store, [span(0)])
    refused = None
    with small_store._snapshot() as reading:
        assert reading.rows("SELECT count(*) FROM stored.spans") == [(1,)]
        for number in range(1, 400):
            try:
                add(small_store, [span(number, number, **{"app.text": noise(300_000, number)})])
            except duckdb.Error as error:
                refused = error
                break
        assert reading.rows("SELECT count(*) FROM stored.spans") == [(1,)]
    assert isinstance(refused, duckdb.OutOfMemoryException)
    add(small_store, [span(1000, 1000)])
    health = small_store.health()
    assert health.spans + health.dropped_spans == number + 1
    assert health.bytes <= health.capacity_bytes


def test_a_trace_is_read_in_chunks_that_fit_in_memory(store: Store) -> None:
    sizes = [10, 3_000_000, 2_000_000, 5_000_000, *[10] * 3000]
    add(store, [span(n, n / 1e6, **{"trace.trace_id": TRACE, "app.text": "x" * size}) for n, size in enumerate(sizes)])
    with store._snapshot() as snapshot:
        batches = snapshot.batches(list(range(1, len(sizes) + 1)))
    assert [len(batch) for batch in batches] == [2, 1, 1, 2000, 1000]
    assert [one.start_ns for one in all_spans(store, TRACE)] == sorted(one.start_ns for one in all_spans(store, TRACE))
