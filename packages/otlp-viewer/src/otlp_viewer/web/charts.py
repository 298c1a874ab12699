"""Lays out charts as SVG coordinates: x in columns of the time axis, y in pixels."""

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otlp_viewer.query.answer import nice
from otlp_viewer.query.parse import STEPS
from otlp_viewer.query.types import Answer, Calculation
from otlp_viewer.web.axis import Axis

HEATMAP_HEIGHT = 240
LINES_HEIGHT = 120
LEVELS = 7
FEW = 6
"""Cells with fewer records than this never get the strongest color."""
FIRST_LINES = 8
MAX_LINES = 20
"""Lines after the first FIRST_LINES are hidden until the legend is expanded."""
MIN_COLUMNS = 12
MAX_ISOLATED = 0.1
"""If a larger share of values has no neighbor, each value covers a longer time."""

Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A round value on the vertical axis, in pixels from the top."""

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Heatmap:
    paths: Sequence[tuple[int, str]]
    """The SVG path of all cells at each color level from 1 to LEVELS."""
    counts: Sequence[tuple[int, int, int]]
    """Column, row and number of records of each cell."""
    rows: int
    edges: Sequence[float]
    """Edges of the rows in ascending order; empty if rows have names."""
    marks: Sequence[Mark]
    scale: Sequence[tuple[int, int]]
    """The levels in use, each with its lowest number of records."""
    height: int = HEATMAP_HEIGHT


@dataclass(frozen=True, slots=True)
class Line:
    group: int
    path: str
    dots: Sequence[tuple[float, float]]
    """Percent from the left and pixels from the top of values that stand alone or in twos."""
    values: Sequence[tuple[int, float]]
    """Column and value of each point."""


@dataclass(frozen=True, slots=True)
class Lines:
    name: str
    lines: Sequence[Line]
    marks: Sequence[Mark]
    height: int = LINES_HEIGHT


def heatmap(answer: Answer, calculation: Calculation, axis: Axis) -> Heatmap | None:
    """Return one heatmap for all groups of a result, or None if it is empty."""
    edges = answer.heatmaps[calculation].edges
    counts: dict[tuple[int, int], int] = {}
    for cell in answer.heatmaps[calculation].cells:
        column = axis.column(cell.time)
        if column is not None:
            counts[column, cell.row] = counts.get((column, cell.row), 0) + cell.count
    if not counts:
        return None
    height = HEATMAP_HEIGHT / (len(edges) - 1)
    marks = [Mark(round(HEATMAP_HEIGHT - _row_of(value, edges) * height, 2), value) for value in _values(edges)]
    return _grid(counts, len(edges) - 1, HEATMAP_HEIGHT, axis, edges, marks)


def named_rows(counts: Mapping[tuple[int, int], int], rows: int, height: int, axis: Axis) -> Heatmap | None:
    """Return a heatmap of record counts by column and row, whose rows have names."""
    return _grid(counts, rows, height, axis, (), ()) if counts else None


def _grid(
    counts: Mapping[tuple[int, int], int],
    rows: int,
    height: int,
    axis: Axis,
    edges: Sequence[float],
    marks: Sequence[Mark],
) -> Heatmap:
    highest = max(max(counts.values()), FEW)
    row_height = height / rows
    paths: dict[int, list[str]] = {}
    lowest: dict[int, int] = {}
    for (column, row), count in sorted(counts.items()):
        level = max(1, round(LEVELS * math.log1p(count) / math.log1p(highest)))
        lowest[level] = min(lowest.get(level, count), count)
        x, y = round(axis.x(column), 2), round(height - (row + 1) * row_height, 2)
        paths.setdefault(level, []).append(f"M{x:g} {y:g}h1v{row_height:.4g}h-1z")
    return Heatmap(
        [(level, "".join(paths[level])) for level in sorted(paths)],
        [(column, row, count) for (column, row), count in sorted(counts.items())],
        rows,
        edges,
        marks,
        sorted(lowest.items()),
        height,
    )


def step_of_lines(answer: Answer, axis: Axis) -> float:
    """Return the seconds that a value of a line covers: one column, or more if few values have neighbors."""
    keys = {group.key for group in answer.groups[:MAX_LINES]}
    points = [(point.key, point.time) for point in answer.series if point.key in keys]
    max_step = axis.columns * axis.step / MIN_COLUMNS
    step = axis.step
    for step in [axis.step, *(one for one in STEPS if axis.step < one <= max_step)]:
        occupied = {(key, math.floor(time / step + 1e-6)) for key, time in points}
        alone = sum((key, at - 1) not in occupied and (key, at + 1) not in occupied for key, at in occupied)
        if alone <= MAX_ISOLATED * len(occupied):
            break
    return step


def lines(answer: Answer, calculation: Calculation, axis: Axis) -> Lines | None:
    """Return a line for each of the first groups. Without records, COUNT is 0 and other calculations have a gap."""
    number = list(answer.query.values).index(calculation)
    values: dict[tuple[Any, ...], dict[int, float]] = {group.key: {} for group in answer.groups[:MAX_LINES]}
    for point in answer.series:
        column = axis.column(point.time)
        if column is not None and point.key in values and isinstance(point.values[number], int | float):
            values[point.key][column] = point.values[number]
    numbers = [value for line in values.values() for value in line.values()]
    if not numbers:
        return None
    low, high = min(0, *numbers), max(0, *numbers)
    high = high if high > low else low + 1

    def y_of(value: float) -> float:
        return round(LINES_HEIGHT - (value - low) / (high - low) * LINES_HEIGHT, 2)

    result = []
    for group, line in enumerate(values.values()):
        if not line:
            continue
        by_column = dict.fromkeys(range(axis.columns), 0.0) | line if calculation.op == "COUNT" else line
        path, dots = _path(by_column, axis, y_of)
        result.append(Line(group, path, dots, sorted(line.items())))
    marks = [value for value in _round_values(low, high, 3) if calculation.op != "COUNT" or float(value).is_integer()]
    return Lines(calculation.name, result, [Mark(y_of(value), value) for value in marks])


def _path(values: Mapping[int, float], axis: Axis, y_of: Scale) -> tuple[str, list[tuple[float, float]]]:
    """Return a path through values in adjacent columns, and dots for isolated values and pairs."""
    starts = {period.first for period in axis.periods}
    runs: list[list[tuple[float, float]]] = []
    last = -2
    for column, value in sorted(values.items()):
        point = round(axis.x(column) + 0.5, 2), y_of(value)
        if column != last + 1 or column in starts:
            runs.append([])
        runs[-1].append(point)
        last = column
    path = "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in run) for run in runs if len(run) > 1)
    return path, [(round(x / axis.width * 100, 3), y) for run in runs if len(run) <= 2 for x, y in run]


def _row_of(value: float, edges: Sequence[float]) -> float:
    """Return the position of a value in rows from the bottom."""
    row = max(min(bisect.bisect_right(edges, value), len(edges) - 1) - 1, 0)
    low, high = edges[row], edges[row + 1]
    if edges[0] > 0:
        return row + math.log(value / low) / math.log(high / low)
    return row + (value - low) / (high - low)


def _values(edges: Sequence[float]) -> list[float]:
    """Return the round values to label on an axis with these edges."""
    low, high = edges[0], edges[-1]
    if low <= 0 or high / low < 20:
        return _round_values(low, high, 5)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    factors = (1, 2, 5) if len(powers) <= 2 else (1, 3) if len(powers) <= 4 else (1,)
    values = [float(f"{factor}e{power}") for power in powers for factor in factors]
    return [value for value in values if low <= value <= high]


def _round_values(low: float, high: float, count: int) -> list[float]:
    step = nice((high - low) / count)
    return [round(row * step, 12) for row in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
