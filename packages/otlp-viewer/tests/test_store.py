"""What is kept, for how long, and what is found of it."""

import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from by_hand import LATENCY, NOON, generated, span
from export import TRACE
from otlp_viewer.model import LogFilter, TraceFilter
from otlp_viewer.store import Store, events
from sender import add, add_logs, ask, trace


def event(number: int, parent: int = 0, trace: str = TRACE, **fields: Any) -> dict[str, Any]:
    """A span as the store keeps it."""
    span = {
        "time": f"2026-01-02T03:04:05.{number:06}Z",
        "name": f"span-{number}",
        "duration_ms": 2.5,
        "trace.trace_id": trace,
        "trace.span_id": f"{number:016x}",
        "service.name": "backend",
        "error": False,
        "events": [],
    }
    if parent:
        span["trace.parent_id"] = f"{parent:016x}"
    return span | fields


# What is kept


def test_the_oldest_spans_and_logs_go_first() -> None:
    store = Store(max_spans=3)
    add(store, [event(n, trace=f"{n:032x}") for n in range(1, 6)])
    add_logs(store, [{"time": "", "trace.trace_id": f"{n:032x}", "body": n} for n in range(1, 6)])
    add_logs(store, [{"time": "", "body": "of no trace"}])
    assert store.counts() == (3, 3)
    assert trace(store, f"{2:032x}") is None
    assert [found.name for found in store.traces(10)] == ["span-5", "span-4", "span-3"]
    third, fourth = trace(store, f"{3:032x}"), trace(store, f"{4:032x}")
    assert third
    assert fourth
    assert [len(third["logs"]), len(fourth["logs"])] == [0, 1]


def test_a_span_that_is_sent_again_is_counted_once() -> None:
    store = Store(max_spans=2)
    for _ in range(3):
        add(store, [event(1), event(2, parent=1)])
    assert store.counts() == (2, 0)
    add(store, [event(3, parent=1)])
    found = trace(store, TRACE)
    assert found
    assert [span["name"] for span in found["spans"]] == ["span-2", "span-3"]
    assert found["complete"] is False


def test_a_trace_without_its_root_lasts_from_its_first_start_to_its_last_end() -> None:
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
        kept = name[: events.LONGEST_TEXT]
        assert [row["data"] for row in data["results"]] == ([{name: kept, "COUNT": 1}] if kept == name else [])
        found = trace(store, f"{NAMES.index(name) // 4 + 1:032x}")
        assert found
        assert found["spans"][NAMES.index(name) % 4][name] == name


def test_attributes_beyond_the_limit_are_kept_but_cannot_be_asked_about(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_COLUMNS", 10)
    many = {f"app.n{n}": n for n in range(50)}
    add(store, [span(1, **many)])
    assert "app.n1" in store.columns()
    assert "app.n30" not in store.columns()
    found = trace(store, f"{1:032x}")
    assert found
    assert many.items() <= found["spans"][0].items()
    assert store.traces(1, TraceFilter(text="49"))


def test_columns_go_when_their_last_span_has_gone() -> None:
    store = Store(max_spans=20)
    add(store, [span(0, **{"app.old": 1})])
    for number in range(1, 40):
        add(store, [span(number)])
    assert "app.old" not in store.columns()
    assert store.counts() == (20, 0)


# What is kept


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_the_newest_are_kept_whatever_comes_at_once(batch: int) -> None:
    store = Store(max_spans=50)
    numbers = list(range(130))
    for first in range(0, len(numbers), batch):
        add(store, [span(number, number) for number in numbers[first : first + batch]])
        assert store.counts() == (min(50, first + batch), 0)
    rows = ask(store, {"breakdowns": ["trace.span_id"], "start_time": NOON, "limit": 1000})["data"]["results"]
    assert {row["data"]["trace.span_id"] for row in rows} == {f"{number + 1:016x}" for number in numbers[-50:]}


def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_BYTES", 1_000_000)
    store = Store()
    for number in range(100):
        add(store, [span(number, number, **{"app.text": "x" * 100_000})])
    assert 3 <= store.counts()[0] <= 12
    assert trace(store, f"{99 // 4 + 1:032x}")


def test_summaries_are_the_same_in_a_list_and_alone() -> None:
    chance = random.Random(5)
    store = Store()
    spans = generated(400, seed=5)
    chance.shuffle(spans)
    add(store, spans[:300])  # roots and parents missing here and there
    listed = store.traces(1000)
    assert [one.start_ns for one in listed] == sorted((one.start_ns for one in listed), reverse=True)
    for one in listed:
        alone = store.trace(one.trace_id)
        assert alone
        assert one == replace(alone.summary, duration_ms=pytest.approx(alone.summary.duration_ms))
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


def test_a_file_keeps_what_was_sent_for_the_next_start(tmp_path: Path) -> None:
    path = str(tmp_path / "viewer.duckdb")
    spans = generated(60, seed=2)
    first = Store(max_spans=50, path=path)
    add(first, spans)
    add_logs(first, [{"time": spans[0]["time"], "body": "hello", "trace.trace_id": spans[-1]["trace.trace_id"]}])
    kept, columns, answer = first.traces(100), first.columns(), ask(first, LATENCY)
    first.close()
    second = Store(max_spans=50, path=path)
    assert second.counts() == (50, 1)
    assert (second.traces(100), second.columns(), ask(second, LATENCY)) == (kept, columns, answer)
    add(second, [spans[-1], span(1000)])  # one of them again
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

    def question() -> None:
        while not done.is_set():
            try:
                counted = ask(store, {"start_time": NOON, "breakdowns": ["app.n"]})["data"]["results"]
                if sum(row["data"]["COUNT"] for row in counted) > 100:
                    wrong.append(counted)
                store.traces(10)
            except Exception as error:
                wrong.append(error)

    add(store, [span(0, **{"app.n": 0})])
    threads = [threading.Thread(target=question) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(0, 1000, 20):
        add(store, [span(number + one, one, **{"app.n": one}) for one in range(20)])
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_nothing_is_kept_of_a_request_that_cannot_be_kept(store: Store) -> None:
    with pytest.raises(TypeError):
        add(store, [span(0), span(1, **{"app.n": object()}), span(2)])
    assert store.counts() == (0, 0)
    add(store, [span(0, **{"app.n": 1})])
    assert store.counts() == (1, 0)
    assert store.columns()["app.n"] == "integer"
