"""Where things are drawn, and how numbers read."""

import itertools

import pytest
from otlp_viewer.model import SpanOutline
from otlp_viewer.web import charts, pages, waterfall

NOON = 1_767_355_200  # 2026-01-02T12:00:00Z


def outline(number: int, parent: int, start_ms: float, duration: float) -> SpanOutline:
    start_ns = round((start_ms + 1000) * 1e6)
    return SpanOutline(
        number, str(number), str(parent) if parent else None, "", "s", "internal", start_ns, duration, False, ""
    )


def critical(*spans: SpanOutline) -> list[list[tuple[float, float]]]:
    """From when to when, in milliseconds, each span is on the critical path."""
    paths = waterfall.critical_path(spans)
    return [sorted((a / 1000 - 1000, b / 1000 - 1000) for a, b in paths[span.row]) for span in spans]


def test_the_critical_path_is_what_ended_last() -> None:
    spans = (outline(1, 0, 0, 100), outline(2, 1, 10, 30), outline(3, 1, 20, 60), outline(4, 3, 30, 10))
    assert critical(*spans) == [[(0, 10), (80, 100)], [(10, 20)], [(20, 30), (40, 80)], [(30, 40)]]


def test_the_critical_path_covers_the_root_once_whatever_the_children_claim() -> None:
    outlines = [
        (outline(1, 0, 0, 100), outline(2, 1, -50, 80), outline(3, 1, 90, 500)),
        (outline(1, 0, 0, 100), outline(2, 3, 0, 50), outline(3, 2, 0, 50)),
        (outline(1, 0, 0, 100), *(outline(n, 1, n, 40) for n in range(2, 50))),
        (outline(1, 0, 0, 100), *(outline(n, n - 1, n, 90 - n) for n in range(2, 80))),
    ]
    for spans in outlines:
        pieces = sorted(piece for path in critical(*spans) for piece in path)
        assert pieces[0][0] == 0
        assert pieces[-1][1] == 100
        assert all(a[1] == pytest.approx(b[0]) for a, b in itertools.pairwise(pieces))


def test_a_trace_without_a_root_has_no_critical_path() -> None:
    assert critical(outline(1, 9, 0, 1)) == [[]]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (0.0004, "0.40 µs"),
        (0.25, "250 µs"),
        (1.234, "1.23 ms"),
        (12.34, "12.3 ms"),
        (999.4, "999 ms"),
        (999.9, "1.00 s"),
        (61_000, "1 min 1 s"),
        (1e15, "16,666,666,666 min 40 s"),
        (None, ""),
    ],
)
def test_durations_have_three_digits_and_a_unit(milliseconds: float | None, text: str) -> None:
    assert pages.duration(milliseconds) == text


def test_axes_have_few_round_values() -> None:
    for length in (5, 60, 600, 7200, 86400, 1e7):
        ticks = charts.time_ticks(NOON + 0.3, length)
        assert 1 <= len(ticks) <= 8, length
        assert all(0 <= tick.at <= 100 for tick in ticks)
    assert [pages.tick(value, "P90(duration_ms)") for value in (0.5, 1, 10, 30, 200, 1000)] == [
        "500 µs",
        "1 ms",
        "10 ms",
        "30 ms",
        "200 ms",
        "1 s",
    ]
