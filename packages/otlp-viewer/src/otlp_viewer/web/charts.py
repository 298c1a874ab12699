"""Lays out the charts: numbers in, places in SVG out, in percent across (charts fit any width) and in pixels down."""

import bisect
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from otlp_viewer.query.answer import nice
from otlp_viewer.query.parse import STEPS
from otlp_viewer.query.types import Answer, Calculation

HEATMAP_HEIGHT = 240
LINES_HEIGHT = 140
LEVELS = 7
FEW = 6  # a cell with fewer spans than this is not drawn at full strength
MOST_LINES = 8
MOST_DOTS = 60
DAY = 86400


class Tick(NamedTuple):
    at: float
    """Percent from the left, or pixels from the top."""
    value: float


class Cell(NamedTuple):
    x: float
    y: float
    width: float
    height: float
    level: int
    column: int
    row: int
    spans: int


class Heatmap(NamedTuple):
    cells: list[Cell]
    columns: int
    edges: list[float]
    """Borders of the rows, lowest first."""
    start: float
    step: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    height: int = HEATMAP_HEIGHT


class Line(NamedTuple):
    group: int
    points: str
    """For a polyline in a box of 100 by 100."""
    dots: list[tuple[float, float]]


class Lines(NamedTuple):
    name: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    height: int = LINES_HEIGHT


def steps_of(answer: Answer) -> tuple[float, float, int]:
    """Return where an answer's first step of time begins, how long each is, and how many there are."""
    step = answer.query.granularity
    first = math.floor(answer.query.start / step + 1e-6)
    last = math.ceil(answer.query.end / step - 1e-6)
    return first * step, step, max(last - first, 1)


def heatmap(answer: Answer, made: Calculation) -> Heatmap | None:
    """Return the heatmap of all groups of an answer together, or None where there is nothing to show."""
    start, step, columns = steps_of(answer)
    borders = answer.heatmaps[made].edges
    counts: dict[tuple[int, int], int] = {}
    for cell in answer.heatmaps[made].cells:
        place = round((cell.time - start) / step), cell.row
        counts[place] = counts.get(place, 0) + cell.count
    if not counts:
        return None
    height = HEATMAP_HEIGHT / (len(borders) - 1)
    width = 100 / columns
    most = max(counts.values())
    cells = [
        Cell(
            round(column * width, 4),
            round(HEATMAP_HEIGHT - (row + 1) * height, 2),
            round(width, 4),
            round(height, 2),
            max(1, round(LEVELS * math.log1p(count) / math.log1p(max(most, FEW)))),
            column,
            row,
            count,
        )
        for (column, row), count in sorted(counts.items())
    ]
    y_ticks = [Tick(round(HEATMAP_HEIGHT - _row_of(value, borders) * height, 2), value) for value in _values(borders)]
    return Heatmap(cells, columns, list(borders), start, step, time_ticks(start, step * columns), y_ticks)


def lines(answer: Answer, made: Calculation) -> Lines | None:
    """Return a line for each of the first groups; in steps in which a group has no events, its COUNT is 0."""
    start, step, columns = steps_of(answer)
    number = answer.query.values.index(made)
    values: dict[tuple[object, ...], dict[int, float]] = {group.key: {} for group in answer.groups[:MOST_LINES]}
    for point in answer.series:
        if point.key in values and point.values[number] is not None:
            values[point.key][round((point.time - start) / step)] = point.values[number]
    found = [value for line in values.values() for value in line.values()]
    if not found:
        return None
    low, high = min(0, *found), max(0, *found)
    high = high if high > low else low + 1
    width = 100 / columns

    def down(value: float) -> float:
        return round(100 - (value - low) / (high - low) * 100, 2)

    drawn = []
    for number, line in enumerate(values.values()):
        if not line:
            continue
        zero = made.op == "COUNT"
        at = {column: line.get(column, 0) for column in range(columns)} if zero else dict(sorted(line.items()))
        places = [(round((column + 0.5) * width, 3), down(value)) for column, value in at.items()]
        dots = [(round((column + 0.5) * width, 3), down(value)) for column, value in line.items()]
        few = [(x, round(y * LINES_HEIGHT / 100, 2)) for x, y in dots] if len(found) <= MOST_DOTS else []
        drawn.append(Line(number, " ".join(f"{x},{y}" for x, y in places), few))
    return Lines(
        made.name,
        drawn,
        time_ticks(start, step * columns),
        [Tick(round(down(value) * LINES_HEIGHT / 100, 2), value) for value in _round_values(low, high, 3)],
    )


def time_ticks(start: float, length: float) -> list[Tick]:
    """Return about five round times; their values are seconds since 1970."""
    step = next((step for step in STEPS if length / step <= 6), math.ceil(length / 6 / DAY) * DAY)
    first = math.ceil(start / step) * step
    count = math.floor((start + length - first) / step) + 1
    ticks = [
        Tick(round((first + number * step - start) / length * 100, 3), first + number * step) for number in range(count)
    ]
    return [tick for tick in ticks if 3 <= tick.at <= 92]


def _row_of(value: float, borders: Sequence[float]) -> float:
    """Return how many rows up a value is."""
    row = max(min(bisect.bisect_right(borders, value), len(borders) - 1) - 1, 0)
    low, high = borders[row], borders[row + 1]
    if borders[0] > 0:
        return row + math.log(value / low) / math.log(high / low)
    return row + (value - low) / (high - low)


def _values(borders: Sequence[float]) -> list[float]:
    """Return the round values that an axis along these borders names."""
    low, high = borders[0], borders[-1]
    if low <= 0 or high / low < 20:
        return list(_round_values(low, high, 5))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    factors = (1, 2, 5) if len(powers) <= 2 else (1, 3) if len(powers) <= 4 else (1,)
    found = [float(f"{factor}e{power}") for power in powers for factor in factors]
    return [value for value in found if low <= value <= high]


def _round_values(low: float, high: float, about: int) -> Iterable[float]:
    step = nice((high - low) / about)
    return [round(row * step, 12) for row in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
