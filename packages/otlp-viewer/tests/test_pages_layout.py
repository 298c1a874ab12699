"""Where things are drawn, and how values read."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from otlp_viewer.model import SpanOutline
from otlp_viewer.web import axis, colors, format, waterfall

NOON = 1_767_355_200  # 2026-01-02T12:00:00Z


def outline(
    number: int, parent: int, start_ms: float, duration: float, service: str = "s", kind: str = "internal", **more: Any
) -> SpanOutline:
    return SpanOutline(
        row=number,
        span_id=f"{number:016x}",
        parent_id=f"{parent:016x}" if parent else None,
        name=f"span-{number}",
        service=service,
        kind=kind,
        start_ns=NOON * 1_000_000_000 + round(start_ms * 1e6),
        duration_ms=duration,
        error=False,
        status_message="",
        **more,
    )


# Waterfall


def critical(*spans: SpanOutline) -> list[list[tuple[float, float]]]:
    """From when to when, in milliseconds, each span is on the critical path."""
    rows = waterfall.lay_out(spans).rows
    found = waterfall.critical(rows, range(len(rows)))
    base = NOON * 1_000_000_000
    paths = {rows[at].span.row: [((a - base) / 1e6, (b - base) / 1e6) for a, b in path] for at, path in found.items()}
    return [paths[span.row] for span in spans]


def test_the_critical_path_follows_the_last_child_to_end() -> None:
    spans = (outline(1, 0, 0, 100), outline(2, 1, 10, 30), outline(3, 1, 20, 60), outline(4, 3, 30, 10))
    assert critical(*spans) == [[(0, 10), (80, 100)], [(10, 20)], [(20, 30), (40, 80)], [(30, 40)]]


def test_the_critical_path_covers_the_root_exactly_once() -> None:
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


def test_services_of_the_critical_path_are_sorted_by_time() -> None:
    spans = [outline(1, 0, 0, 100, "a"), outline(2, 1, 10, 70, "b"), outline(3, 2, 20, 5, "c")]
    assert waterfall.lay_out(spans).critical_ms == {"b": 65, "a": 30, "c": 5}
    assert list(waterfall.lay_out(spans).critical_ms) == ["b", "a", "c"]


def skewed(behind_ms: float) -> list[SpanOutline]:
    return [
        outline(1, 0, 0, 10, "gateway", "server"),
        outline(2, 1, 2, 6, "gateway", "client"),
        outline(3, 2, 3 - behind_ms, 4, "catalog", "server"),
        outline(4, 3, 4 - behind_ms, 2, "catalog", "client"),
    ]


@pytest.mark.parametrize("behind_ms", [120_000.0, -120_000.0])
def test_spans_with_clock_skew_are_moved_into_their_parents_with_a_note(behind_ms: float) -> None:
    chart = waterfall.lay_out(skewed(behind_ms))
    assert chart.length_ns == 10_000_000
    (skew,) = chart.skews
    assert (skew.service, round(skew.behind_ns / 1e6)) == ("catalog", behind_ms)
    starts = [(row.start_ns - chart.start_ns) / 1e6 for row in chart.rows]
    assert starts == [0, 2, 3, 4]
    as_sent = waterfall.lay_out(skewed(behind_ms), aligned=False)
    assert as_sent.length_ns > 119_000_000_000
    assert [one.service for one in as_sent.skews] == ["catalog"]


def test_a_request_that_outlasts_its_caller_is_not_clock_skew() -> None:
    spans = [outline(1, 0, 0, 10, "a", "client"), outline(2, 1, 1, 3000, "b", "server")]
    chart = waterfall.lay_out(spans)
    assert chart.skews == []
    assert [row.note for row in chart.rows] == ["", "outlasts its parent"]


def test_work_after_the_root_gets_a_note() -> None:
    spans = [outline(1, 0, 0, 10), outline(2, 1, 8, 3030), outline(3, 2, 9, 1), outline(4, 1, 500, 3, "b", "consumer")]
    chart = waterfall.lay_out(spans)
    assert (chart.root_ms, chart.length_ns) == (10, 3_038_000_000)
    notes = {row.span.row: row.note for row in chart.rows}
    assert notes == {1: "", 2: "outlasts its parent", 3: "", 4: "starts after its parent"}


def test_ten_thousand_spans_with_a_slow_clock_all_have_parents() -> None:
    spans = [outline(1, 0, 0, 1000, "a", "server")]
    for number in range(2, 10_001, 2):
        spans.append(outline(number, 1, number / 10, 0.05, "a", "client"))
        spans.append(outline(number + 1, number, number / 10 - 120_000, 0.01, "b", "server"))
    chart = waterfall.lay_out(spans)
    assert len(chart.rows) == len(spans)
    assert not [row.note for row in chart.rows if row.note]


def test_two_roots_are_measured_from_the_first_start_to_the_last_end() -> None:
    chart = waterfall.lay_out([outline(1, 0, 0, 20), outline(2, 0, 50, 100)])
    assert (chart.roots, chart.root_ms) == (2, 150)


def test_of_spans_with_the_same_id_the_earliest_has_the_plain_key_as_in_the_store() -> None:
    spans = outline(1, 0, 0, 90), outline(2, 1, 5, 9), outline(3, 0, 1, 50), outline(4, 3, 2, 7)
    spans[3].span_id = spans[1].span_id
    rows = waterfall.lay_out(spans).rows
    assert dict(zip((row.span.row for row in rows), waterfall.keys(rows), strict=True)) == {
        1: f"{1:016x}",
        2: f"{2:016x}.2",
        3: f"{3:016x}",
        4: f"{2:016x}",
    }


def test_spans_with_the_same_id_have_different_keys() -> None:
    same = [outline(1, 0, 0, 5), outline(2, 1, 1, 1), outline(2, 1, 2, 1)]
    rows = waterfall.lay_out(
        [same[0], same[1], SpanOutline(7, *[getattr(same[2], n) for n in same[2].__slots__[1:]])]
    ).rows
    keys = waterfall.keys(rows)
    assert keys == [f"{1:016x}", f"{2:016x}", f"{2:016x}.7"]


# Time axis


@pytest.mark.parametrize("step", [60.0, 883_677_458.0])
def test_a_step_that_ends_with_the_events_has_a_column(step: float) -> None:
    end = int(step) * 2
    made = axis.make([end - 2, end - 1], end - 10, end, step)
    assert made.column(end - 1) == made.column(end - 2) == 0
    made = axis.make([end], end - 10, end + 10, step)
    assert made.column(end + 0.5) == 0
    assert made.width >= 1


def test_one_span_from_1970_gets_its_own_period() -> None:
    seconds = [0, *range(NOON, NOON + 60)]
    made = axis.make(seconds, 0, NOON + 60)
    assert len(made.periods) == 2
    assert made.step <= 1
    assert made.column(0.0) == 0
    assert made.column(NOON + 59) == made.columns - 1
    assert made.column(NOON / 2) is None
    assert made.days


def test_idle_time_between_two_bursts_is_left_out() -> None:
    seconds = [*range(NOON, NOON + 60), *range(NOON + 10_800, NOON + 10_860)]
    made = axis.make(seconds, NOON, NOON + 10_860)
    assert len(made.periods) == 2
    assert made.columns * made.step == 120
    assert len(made.gaps()) == 1


def test_steady_traffic_is_one_period() -> None:
    made = axis.make(range(NOON, NOON + 3600, 7), NOON, NOON + 3600)
    assert len(made.periods) == 1
    assert made.columns <= axis.MAX_COLUMNS + 1


def test_several_days_have_dates() -> None:
    made = axis.make(range(NOON, NOON + 4 * 86400, 600), NOON, NOON + 4 * 86400)
    assert made.days
    assert format.clock(made.ticks[0].value, made.tick_step, made.days) == "2026-01-03"
    assert format.clock(NOON, 3600, days=True) == "01-02 12:00"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=60), st.sampled_from([None, 1.0, 60.0, 86400.0]))
def test_every_second_with_events_is_on_the_axis_and_no_labels_touch(seconds: list[int], step: float | None) -> None:
    ordered = sorted(set(seconds))
    made = axis.make(ordered, ordered[0], ordered[-1] + 1, step)
    columns = [made.column(float(second)) for second in ordered]
    assert None not in columns
    assert columns == sorted(columns)  # type: ignore[type-var]
    assert all(0 <= tick.at <= 97 for tick in made.ticks)
    assert all(after.at - before.at >= 11 for before, after in itertools.pairwise(made.ticks))
    narrow = [tick for tick in made.ticks if not tick.wide]
    assert all(after.at - before.at >= 34 for before, after in itertools.pairwise(narrow))
    assert len(made.periods) <= axis.MAX_PERIODS


# Colors


def test_a_service_keeps_its_color_and_sixteen_have_different_ones() -> None:
    made = colors.Colors()
    names = [f"service-{number}" for number in range(16)]
    slots = {name: made[name] for name in names}
    assert len(set(slots.values())) == 16
    assert {name: made[name] for name in reversed(names)} == slots


# Values


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (0.000001, "1 ns"),
        (0.0004, "400 ns"),
        (0.25, "250 µs"),
        (1.234, "1.23 ms"),
        (12.34, "12.3 ms"),
        (999.4, "999 ms"),
        (999.9, "1.00 s"),
        (59_990, "1 min 0 s"),
        (61_000, "1 min 1 s"),
        (86_400_000, "1 d 0 h"),
        (3_600_000 * 23.5, "23 h 30 min"),
        (-120_000, "-2 min 0 s"),
        (1e15, "11,574,074 d 2 h"),
        (None, ""),
    ],
)
def test_durations_have_three_digits_and_a_unit(milliseconds: float | None, text: str) -> None:
    assert format.duration(milliseconds) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1500", 1500),
        ("1,500", 1500),
        ("1.5 s", 1500),
        ("250ms", 250),
        ("2 min", 120_000),
        (".5", 0.5),
        ("10 µs", 0.01),
    ],
)
def test_durations_are_parsed_as_users_write_them(text: str, value: float) -> None:
    assert format.milliseconds(text) == value


@pytest.mark.parametrize("text", ["", "x", "1.5 parsecs", "-5", "1e400", "\u0661"])
def test_invalid_durations_are_rejected(text: str) -> None:
    assert format.milliseconds(text) is None


def test_numbers_and_nouns_agree() -> None:
    assert [format.plural(n, "span") for n in (0, 1, 5917)] == ["0 spans", "1 span", "5,917 spans"]


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (12.0, "app.user.id", "12"),
        (12.5, "app.user.id", "12.5"),
        (1500.0, "duration_ms", "1.50 s"),
        (4711, "COUNT", "4,711"),
    ],
)
def test_values_are_formatted_by_type(value: float, name: str, text: str) -> None:
    assert format.measured(value, name) == text


def test_percentages_of_0_and_100_are_exact() -> None:
    assert [format.percent(share) for share in (0, 0.001, 0.5, 0.999, 1)] == ["0%", "<1%", "50%", ">99%", "100%"]


def test_axis_values_have_no_trailing_zeros() -> None:
    assert [format.tick(value, "P90(duration_ms)") for value in (0.5, 1, 10, 30, 200, 1000, 60_000, 3_600_000)] == [
        "500 µs",
        "1 ms",
        "10 ms",
        "30 ms",
        "200 ms",
        "1 s",
        "1 min",
        "1 h",
    ]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("a column must be a string", "A column must be a string"),
        ("“abc” is not a duration.", "“abc” is not a duration."),
        ("time_range must be a second or more", "time_range must be a second or more"),
        ("", ""),
    ],
)
def test_a_message_starts_with_a_capital_unless_it_starts_with_user_input(message: str, text: str) -> None:
    assert format.capital(message) == text


def test_names_of_fields_break_after_dots_and_underscores() -> None:
    assert format.breakable("http.response.status_code") == "http.<wbr>response.<wbr>status_<wbr>code<wbr>"
    assert "<b>" not in format.breakable("<b>.x")
