"""The trees that are printed, and when."""

import io
import re
import threading
from typing import Any

import pytest
from export import TRACE, event
from otlp_viewer import terminal
from otlp_viewer.printer import Printer, wants_color
from otlp_viewer.store import Store
from sender import add


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def rendered(*spans: dict[str, Any], color: bool = False) -> str:
    store = Store()
    add(store, spans)
    found = store.trees([TRACE])[TRACE]
    return terminal.render(found, color)


# What is printed


def test_a_trace_is_drawn_as_a_tree() -> None:
    text = rendered(
        event(
            1,
            name="GET /home",
            duration_ms=14.2,
            **{"http.route": "/home", "http.response.status_code": 200},
        ),
        event(2, 1, name="home-activities-mock-data", **{"app.result_length": 3, "other": 1}),
        event(3, 2, name="GET", **{"url.full": "http://127.0.0.1:4568/", "app.title": "two words"}),
        event(4, 3, name="GET /profiles", **{"service.name": "profiles"}),
        event(5, 4, name="look-up", duration_ms=0.01, **{"service.name": "profiles"}),
        event(6, 1, name="render"),
    )
    assert text == (
        f"GET /home  200  backend           14.2 ms  trace {TRACE}\n"
        "├─ home-activities-mock-data       2.5 ms  app.result_length=3\n"
        '│  └─ GET http://127.0.0.1:4568/   2.5 ms  app.title="two words"\n'
        "│     └─ GET /profiles  profiles   2.5 ms\n"
        "│        └─ look-up               <0.1 ms\n"
        "└─ render                          2.5 ms\n"
    )


def test_an_error_is_marked_with_its_exception_or_its_message() -> None:
    raised = {
        "name": "exception",
        "attributes": {"exception.type": "ValueError", "exception.message": "no such feed"},
    }
    text = rendered(
        event(1, error=True, events=[raised], status_message="not this"),
        event(2, 1, error=True, status_message="timed out"),
        event(3, 1, error=False, events=[raised]),
        event(4, 1, error=True, **{"app.shelf": 4}),
    )
    first, second, third, fourth = text.splitlines()
    assert "✗ ValueError: no such feed" in first
    assert "not this" not in first
    assert "✗ timed out" in second
    assert "✗" not in third
    assert fourth.endswith("✗  app.shelf=4")


def test_a_missing_parent_is_reported() -> None:
    lines = rendered(event(1), event(3, parent=2), event(4, parent=3)).splitlines()
    assert "parent not received" not in lines[0]
    assert lines[1].startswith("span-3")
    assert lines[1].endswith("parent not received")
    assert lines[2].startswith("└─ span-4")


def test_spans_cannot_send_control_sequences_to_the_terminal() -> None:
    evil = "a\x1b[2J\x1b]0;t\x07\r\n\x9b1m\u202e\u2066\u200b\u2028b"
    raised = {"name": "exception", "attributes": {"exception.message": evil}}
    text = rendered(
        event(
            1,
            name=evil,
            error=True,
            events=[raised],
            **{
                "service.name": evil,
                "url.full": evil,
                "app.list": [evil, {evil: 1}],
                "app." + evil: evil,
            },
        )
    )
    assert text.count("\n") == 1
    assert text.rstrip("\n").isprintable()
    assert r"a\x1b[2J" in text
    assert r"\u202e" in text


def test_long_values_and_many_attributes_are_cut() -> None:
    many = {f"app.n{n}": "x" * 1_000_000 for n in range(50)}
    text = rendered(event(1, name="n" * 1_000_000, **many))
    assert len(text) < 2_000
    assert "nnn…" in text
    assert "… 38 more" in text


def test_a_cycle_of_parents_is_drawn_once() -> None:
    lines = rendered(event(1, parent=2), event(2, parent=1), event(3, parent=3)).splitlines()
    assert len(lines) == 3
    assert lines[0].endswith("its parents form a cycle")


@pytest.mark.parametrize("parent_of", [lambda n: n - 1, lambda n: n - 2 if n % 2 else n - 1])
def test_huge_traces_are_drawn_without_recursion_and_cut(parent_of: Any) -> None:
    text = rendered(*(event(n, max(parent_of(n), 0)) for n in range(1, 20_001)))
    lines = text.splitlines()
    assert lines[-1] == "… 19,940 more spans"
    assert len(lines) == 61
    assert max(map(len, lines)) < 150


def test_leaves_with_the_same_name_share_a_line() -> None:
    quick = [event(n, 1, name="count item", duration_ms=n / 10) for n in range(2, 52)]
    failed = event(60, 1, name="count item", error=True, status_message="barcode cannot be read")
    lines = rendered(event(1), *quick, failed, event(61, 1, name="store"), event(62, 1, name="store")).splitlines()
    assert [re.sub(r"  +", "  ", line) for line in lines[1:]] == [
        "├─ count item x50  132.5 ms  longest 5.1 ms",
        "├─ count item  2.5 ms  ✗ barcode cannot be read",
        "├─ store  2.5 ms",
        "└─ store  2.5 ms",
    ]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 132])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    store = Store()
    wide = event(
        2, 1, name="書店の在庫を数える" * 9, **{"app.title": "漢字" * 20, "url.full": "http://127.0.0.1/" + "x" * 99}
    )
    add(store, [event(1, error=True, status_message="m" * 200), wide, *(event(n, n - 1) for n in range(3, 40))])
    found = store.trees([TRACE])[TRACE]
    for color in (False, True):
        lines = terminal.render(found, color, width, named=False).splitlines()
        cells = [re.sub(r"\x1b\[\d+m", "", line) for line in lines]
        assert max(sum(2 if ord(c) > 0x2FFF else 1 for c in line) for line in cells) <= width
    assert "ms" in cells[0]
    assert width < 60 or all(re.search(r"span-\d|…|書", line) for line in cells)


def test_colors_need_a_terminal_or_to_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert wants_color(Terminal())
    assert not wants_color(io.StringIO())
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert wants_color(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color(Terminal())


def test_colors_change_nothing_but_colors() -> None:
    spans = [event(1, **{"http.response.status_code": 200}), event(2, 1, **{"app.n": 1})]
    colored = rendered(*spans, color=True)
    assert "\x1b[32m  200\x1b[0m" in colored
    assert re.sub(r"\x1b\[\d+m", "", colored) == rendered(*spans)


def printed(encoding: str, *spans: dict[str, Any]) -> str:
    store = Store()
    add(store, spans)
    raw = io.BytesIO()
    printer = Printer(store.trees, io.TextIOWrapper(raw, encoding, newline="\n"))
    found = store.trees([TRACE])[TRACE]
    printer.print(found)
    return raw.getvalue().decode(encoding)


def test_an_encoding_without_line_drawing_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    spans = [event(1), event(2, 1, name="ж", error=True), event(3, 1)]
    assert "├─ ж" in printed("utf-8", *spans)
    text = printed("ascii", *spans)
    assert "|- \\u0436" in text
    assert "`- span-3" in text
    assert "x" in text


# When it is printed


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def printer(store: Store, clock: Clock, out: io.StringIO) -> Printer:
    return Printer(store.trees, out, clock, listing="http://here/traces")


def new(out: io.StringIO) -> str:
    """What was printed since the last time."""
    text = out.getvalue()
    out.seek(0)
    out.truncate()
    return text


def test_a_trace_is_printed_after_a_quiet_second(
    store: Store, printer: Printer, clock: Clock, out: io.StringIO
) -> None:
    add(store, [event(2, parent=1)])
    printer.received({TRACE})
    clock.now += 0.9
    add(store, [event(1)])
    printer.received({TRACE})
    clock.now += 0.9
    printer.print_due()
    assert new(out) == ""
    clock.now += 0.1
    printer.print_due()
    assert new(out).startswith("span-1")
    clock.now += 100
    printer.print_due()
    assert new(out) == ""


def test_a_long_request_is_printed_completely_when_its_root_arrives(
    store: Store, printer: Printer, clock: Clock, out: io.StringIO
) -> None:
    for number in range(2, 9):
        add(store, [event(number, parent=1)])
        printer.received({TRACE})
        for _ in range(8):
            clock.now += 0.25
            printer.print_due()
    assert new(out) == ""
    add(store, [event(1, duration_ms=14_000)])
    printer.received({TRACE})
    clock.now += 1
    printer.print_due()
    text = new(out)
    assert text.startswith("span-1")
    assert "span-8" in text


def test_a_trace_is_printed_again_after_more_spans(
    store: Store, printer: Printer, clock: Clock, out: io.StringIO
) -> None:
    add(store, [event(1)])
    printer.received({TRACE})
    clock.now += 1
    printer.print_due()
    new(out)
    add(store, [event(2, parent=1), event(3, parent=1)])
    printer.received({TRACE})
    clock.now += 1.5
    printer.print_due()
    assert new(out) == ""
    clock.now += 0.5
    printer.print_due()
    assert new(out).startswith("2 more spans:\nspan-1")
    printer.received({TRACE})  # the same spans once more
    clock.now += 60
    printer.print_due()
    assert new(out) == ""


def test_a_trace_without_a_root_is_printed_after_a_timeout(
    store: Store, printer: Printer, clock: Clock, out: io.StringIO
) -> None:
    add(store, [event(2, parent=1)])
    printer.received({TRACE})
    clock.now += 29
    printer.print_due()
    assert new(out) == ""
    add(store, [event(3, trace="ab" * 16)])
    printer.received({"ab" * 16})
    clock.now += 1
    printer.print_due()
    text = new(out)
    assert "span-3" in text
    assert "span-2" in text
    assert "parent not received" in text


def test_a_flood_becomes_one_line_a_second(
    store: Store, printer: Printer, clock: Clock, out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"{number:032x}" for number in range(1, 200)]
    add(store, [event(number, trace=trace_id) for number, trace_id in enumerate(ids, 1)])
    asked: list[str] = []
    monkeypatch.setattr(printer, "_find", lambda trace_ids: asked.extend(trace_ids) or {})
    for trace_id in ids:
        printer.received({trace_id})
    for _ in range(12):
        clock.now += 0.25
        printer.print_due()
    assert new(out) == "199 more traces in the last second: http://here/traces\n\n"
    assert asked == []


def test_after_a_flood_trees_are_printed_again(store: Store, printer: Printer, clock: Clock, out: io.StringIO) -> None:
    printer.received({f"{number:032x}" for number in range(1, 200)})
    clock.now += 1
    printer.print_due()
    add(store, [event(1)])
    printer.received({TRACE})
    clock.now += 1
    printer.print_due()
    assert new(out).splitlines()[2].startswith("span-1")


def test_a_trace_that_the_store_has_dropped_is_not_printed(printer: Printer, clock: Clock, out: io.StringIO) -> None:
    printer.received({TRACE})
    clock.now += 10
    printer.print_due()
    assert new(out) == ""


def test_a_tree_ends_with_the_url_of_its_page_instead_of_its_id(store: Store) -> None:
    add(store, [event(1)])
    out = io.StringIO()
    found = store.trees([TRACE])[TRACE]
    Printer(store.trees, out, page=lambda trace: f"http://here/{trace.trace_id}").print(found)
    assert out.getvalue().splitlines()[-2:] == [f"http://here/{TRACE}", ""]
    assert out.getvalue().count(TRACE) == 1


def test_spans_are_stored_during_queries(store: Store, clock: Clock, out: io.StringIO) -> None:
    add(store, [event(1)])

    def find(trace_ids: Any) -> Any:
        printer.received({"ab" * 16})  # as a request that comes in the meantime does
        return store.trees(trace_ids)

    printer = Printer(find, out, clock)
    printer.received({TRACE})
    clock.now += 1
    asking = threading.Thread(target=printer.print_due, daemon=True)
    asking.start()
    asking.join(10)
    assert out.getvalue().startswith("span-1")
